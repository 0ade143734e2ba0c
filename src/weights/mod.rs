//! Model files: GGUF read in place, and random weights for a `config.json`.
//!
//! [`Weights`] is what the model is built from, whichever of the two it is. Formats of tensors stay as the file has
//! them; the device packs them.

mod config;
mod dummy;
mod dummy_config;
mod error;
mod gguf;
pub mod hub;
mod random;
mod tokenizer_spec;

use std::borrow::Cow;
use std::path::Path;

pub use self::config::{Architecture, Keys, ModelConfig, TensorSpec};
pub use self::dummy::Dummy;
pub use self::error::{Malformed, WeightsError};
pub use self::gguf::Gguf;
pub use self::tokenizer_spec::{StringTable, TokenKind, TokenizerSpec};
use crate::device::{PackSource, WeightFormat};

/// The weights of a model.
#[derive(Debug)]
pub enum Weights {
    /// A GGUF file.
    Gguf(Box<Gguf>),
    /// Random values in the shapes of a configuration.
    Dummy(Box<Dummy>),
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Its GGUF name.
    pub name: &'a str,
    /// How its values are stored.
    pub format: WeightFormat,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `rows * format.row_bytes(cols)` bytes.
    pub data: Cow<'a, [u8]>,
}

impl Weights {
    /// Opens a `.gguf` file.
    pub fn open(path: &Path) -> Result<Weights, WeightsError> {
        Ok(Weights::Gguf(Box::new(Gguf::open(path)?)))
    }

    /// Random weights for a Hugging Face `config.json` of a `LlamaForCausalLM`, the same for the same seed.
    pub fn dummy(config_json: &Path, format: WeightFormat, seed: u64) -> Result<Weights, WeightsError> {
        Ok(Weights::Dummy(Box::new(Dummy::open(config_json, format, seed)?)))
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Weights::Gguf(gguf) => gguf.config(),
            Weights::Dummy(dummy) => dummy.config(),
        }
    }

    /// The file that it is described in.
    pub fn path(&self) -> &Path {
        match self {
            Weights::Gguf(gguf) => gguf.path(),
            Weights::Dummy(dummy) => dummy.path(),
        }
    }

    /// What that file calls the model's numbers.
    pub fn keys(&self) -> &'static Keys {
        match self {
            Weights::Gguf(gguf) => gguf.keys(),
            Weights::Dummy(dummy) => dummy.keys(),
        }
    }

    /// The format of a tensor, which is not read.
    pub fn format(&self, name: &str) -> Result<WeightFormat, WeightsError> {
        match self {
            Weights::Gguf(gguf) => gguf.format(name),
            Weights::Dummy(dummy) => dummy.format(name),
        }
    }

    /// A tensor, by its GGUF name. Those of [`ModelConfig::tensors`] are there, in their shapes; `rope_freqs.weight`
    /// may be.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        match self {
            Weights::Gguf(gguf) => gguf.tensor(name),
            Weights::Dummy(dummy) => dummy.tensor(name),
        }
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Weights::Gguf(gguf) => gguf.has(name),
            Weights::Dummy(dummy) => dummy.has(name),
        }
    }

    /// What the tokenizer is made from; random weights have none.
    pub fn tokenizer(&self) -> Option<&TokenizerSpec> {
        match self {
            Weights::Gguf(gguf) => Some(gguf.tokenizer()),
            Weights::Dummy(_) => None,
        }
    }
}

impl Tensor<'_> {
    /// The tensor as the device packs it.
    pub fn pack_source(&self) -> PackSource<'_> {
        PackSource { name: self.name, format: self.format, rows: self.rows, cols: self.cols, data: &self.data }
    }

    /// Expands all values to f32, row by row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        let rows = self.data.chunks_exact(self.format.row_bytes(self.cols));
        for (row, out) in rows.zip(values.chunks_exact_mut(self.cols)) {
            self.format.dequantise_row(row, out);
        }
        values
    }
}
