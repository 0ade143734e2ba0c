//! A model as a list of ops: its packed weights, and the nodes of its two graphs.
//!
//! **To add a family**: one file beside `qwen3.rs`, which says what its files' keys mean, which tensors it has under
//! which names, and which ops a layer is, in order; and its line in [`FAMILIES`]; what dense decoders have in common is
//! in `decoder.rs`. A tensor that no family had before is a `Part` in `tensors.rs`, and is packed in `packed.rs`; an op
//! that none had, a method of `block.rs`. The order of the ops *is* the architecture; everything about how they run
//! belongs to the device.

mod block;
mod checkpoint;
mod config;
mod decoder;
mod granite;
mod llama;
mod olmo2;
mod packed;
mod qwen2;
mod qwen3;
mod rope;
mod smollm3;
mod tensors;

use std::os::raw::c_void;
use std::path::PathBuf;

use thiserror::Error;

use self::block::Block;
pub use self::checkpoint::Checkpoint;
pub use self::config::{Biases, ModelConfig};
pub use self::packed::{Model, StepNodes};
use self::tensors::TensorList;
use crate::device::DeviceError;
use crate::formats::WeightFormat;
use crate::kernels::DevicePtr;
use crate::kernels::Node;
use crate::kernels::params::*;
use crate::weights::{Container, Keys, Naming, WeightsError};

/// Every family of models.
const FAMILIES: [&Family; 6] =
    [&llama::LLAMA, &qwen2::QWEN2, &qwen3::QWEN3, &smollm3::SMOLLM3, &granite::GRANITE, &olmo2::OLMO2];

/// A family of models.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its name.
    name: &'static str,
    /// `architectures` of its `config.json`.
    hf: &'static [&'static str],
    /// `general.architecture` of its GGUF files.
    gguf: &'static [&'static str],
    /// Reads its keys.
    read: fn(&mut Keys<'_>, &dyn Container) -> Result<ModelConfig, WeightsError>,
    /// Lists its tensors.
    tensors: fn(&ModelConfig, &mut TensorList),
    /// The ops of a layer, in order.
    layer: fn(&Block<'_>) -> Vec<Node>,
}

/// The family of a container's model.
fn family_of(container: &dyn Container) -> Result<&'static Family, WeightsError> {
    let names = |family: &'static Family| match container.key_naming() {
        Naming::HuggingFace => family.hf,
        Naming::Gguf => family.gguf,
    };
    let architecture = container.architecture();
    FAMILIES.into_iter().find(|family| names(family).contains(&architecture)).ok_or_else(|| {
        WeightsError::UnsupportedArchitecture {
            path: container.path().to_owned(),
            architecture: architecture.to_owned(),
            supported: FAMILIES.into_iter().flat_map(names).copied().collect::<Vec<_>>().join(", "),
        }
    })
}

/// Why a model could not be loaded onto a device.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A factor that no frequency can be divided by.
    #[error(
        "{}: factor {index} of tensor rope_freqs.weight is {value}, and has to be finite and above 0",
        path.display()
    )]
    RopeFactor {
        /// The file.
        path: PathBuf,
        /// The pair.
        index: usize,
        /// Its factor.
        value: f32,
    },
    /// A rotary embedding that turns by no number.
    #[error(
        "{}: {key} is {value:?}, and has to be so large that pair {pair} of position {position} turns by a number",
        path.display()
    )]
    RopeBase {
        /// The file.
        path: PathBuf,
        /// Its name for the base.
        key: String,
        /// The base.
        value: f64,
        /// The pair.
        pair: usize,
        /// The last position.
        position: usize,
    },
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
}

impl KvFormat {
    /// The format of its values.
    pub fn format(self) -> WeightFormat {
        match self {
            KvFormat::F32 => WeightFormat::F32,
            KvFormat::F16 => WeightFormat::F16,
        }
    }

    /// Bytes of keys and values of one page in one layer.
    pub fn bytes_per_page_and_layer(self, config: &ModelConfig) -> usize {
        2 * PAGE_TOKENS as usize * config.kv_heads * config.head_dim * self.format().block_bytes()
    }

    /// Bytes of keys and values of one page in all layers.
    pub fn bytes_per_page(self, config: &ModelConfig) -> usize {
        self.bytes_per_page_and_layer(config) * config.layers
    }
}

/// The addresses that a step's nodes read and write besides weights; shapes as in `params.h`.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is the field of the same name in params.h
pub struct StepAddresses {
    pub shape: DevicePtr<StepShape>,
    pub token_source: DevicePtr<i32>,
    pub positions: DevicePtr<u32>,
    pub slot_mapping: DevicePtr<u32>,
    pub logit_rows: DevicePtr<u32>,
    pub sample_rows: DevicePtr<SampleRow>,
    pub items: DevicePtr<AttentionItem>,
    pub splits: DevicePtr<AttentionSplit>,
    pub page_tables: DevicePtr<u32>,
    pub max_pages: u32,
    pub x: DevicePtr<f32>,
    pub q: DevicePtr<f32>,
    /// Keys in front of their norm; null for models without one.
    pub keys: DevicePtr<f32>,
    /// Results in front of the norm behind them; null for models without one.
    pub y: DevicePtr<f32>,
    pub attention: DevicePtr<f32>,
    pub partials: DevicePtr<f32>,
    pub arrivals: DevicePtr<u32>,
    pub mlp: DevicePtr<f32>,
    /// The residual stream as linear layers read it.
    pub x_rows: DevicePtr<c_void>,
    /// Attention's and the MLP's results as linear layers read them.
    pub inner_rows: DevicePtr<c_void>,
    pub logits: DevicePtr<f32>,
    pub logits_stride: u32,
    pub slot_tokens: DevicePtr<u32>,
    pub tokens: DevicePtr<u32>,
    pub logprobs: DevicePtr<LogprobRow>,
    /// One per layer.
    pub kv: Vec<KvCacheRef>,
}
