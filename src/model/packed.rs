//! A model on a device: its packed weights, and the nodes of its two graphs.

use super::block::Block;
use super::checkpoint::Checkpoint;
use super::tensors::Part;
use super::{Family, ModelConfig, ModelError, StepAddresses, rope};
use crate::device::{Activations, Device, pod_bytes};
use crate::formats::WeightFormat;
use crate::kernels::params::{EmbedParams, NextRows, NormLmHeadParams, SampleParams, WeightRef};
use crate::kernels::rows::activation_forms;
use crate::kernels::sizes::KernelLimits;
use crate::kernels::sizes::{self, ModelSizes, Size, Unfit};
use crate::kernels::{self, DevicePtr, Node};
use crate::weights::WeightsError;

/// A model on a device.
#[derive(Debug)]
pub struct Model {
    family: &'static Family,
    config: ModelConfig,
    embedding: WeightRef,
    layers: Vec<LayerWeights>,
    final_norm: DevicePtr<f32>,
    lm_head: WeightRef,
    pub(super) rope: DevicePtr<f32>,
}

/// The weights of one layer. Norms and biases are addresses of f32 values; null where the model has none.
#[derive(Debug)]
pub(super) struct LayerWeights {
    pub(super) attn_norm: DevicePtr<f32>,
    pub(super) query: WeightRef,
    pub(super) key: WeightRef,
    pub(super) value: WeightRef,
    /// Of query, key and value, one after the other.
    pub(super) qkv_bias: DevicePtr<f32>,
    pub(super) qk_norm: Option<QkNorm>,
    pub(super) attn_out: WeightRef,
    pub(super) attn_out_bias: DevicePtr<f32>,
    pub(super) attn_post_norm: DevicePtr<f32>,
    pub(super) mlp_norm: DevicePtr<f32>,
    pub(super) gate: WeightRef,
    pub(super) up: WeightRef,
    /// Of gate and up, one after the other.
    pub(super) gate_up_bias: DevicePtr<f32>,
    pub(super) down: WeightRef,
    pub(super) down_bias: DevicePtr<f32>,
    pub(super) mlp_post_norm: DevicePtr<f32>,
}

/// The gains of the norm of queries and keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct QkNorm {
    pub(super) query: DevicePtr<f32>,
    pub(super) key: DevicePtr<f32>,
    /// Of all heads together, and not of each.
    pub(super) is_whole: bool,
}

/// The nodes of a step.
#[derive(Debug)]
pub struct StepNodes {
    /// From tokens to hidden states.
    pub forward: Vec<Node>,
    /// From hidden states to tokens.
    pub sample: Vec<Node>,
}

impl Model {
    /// Packs a model's weights for the device, once its sizes are known to be such that there are kernels for them.
    /// Positions up to `max_positions` can be used.
    pub fn load(
        device: &mut Device,
        checkpoint: &Checkpoint,
        max_positions: usize,
        activations: Activations,
    ) -> Result<Model, ModelError> {
        let config = checkpoint.config().clone();
        check_sizes(checkpoint, &device.limits())?;
        let mut loader = Loader { device, checkpoint };
        let frequencies = loader.rope_frequencies(max_positions)?;
        // Gate and up are half of a layer's arithmetic and the least sensitive to the rounding of their input. The rest
        // in the finer form: SmolLM2-135M's logits (Q4_1) are then off by 0.08 instead of 0.18 (root mean square).
        let fine = activations.finer();
        let [embedding] = loader.matrices([Part::Embedding], None, fine)?;
        let layers = (0..config.layers).map(|layer| loader.layer(layer, activations)).collect::<Result<_, _>>()?;
        let final_norm = loader.vector(Part::FinalNorm, None)?;
        let lm_head = match config.tied_embeddings {
            true => embedding,
            false => loader.matrices([Part::LmHead], None, fine)?[0],
        };
        let rope = loader.rope_table(&frequencies, max_positions)?;
        Ok(Model { family: checkpoint.family(), config, embedding, layers, final_norm, lm_head, rope })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// In how many forms at once rows of the residual stream are read, at most.
    pub fn residual_forms(&self) -> usize {
        let of_layer = |layer: &LayerWeights| {
            activation_forms(&[layer.query, layer.key, layer.value]).max(activation_forms(&[layer.gate, layer.up]))
        };
        self.layers.iter().map(of_layer).max().unwrap_or(1)
    }

    /// Whether keys are kept in front of a norm of their own.
    pub fn norms_keys(&self) -> bool {
        self.layers.iter().any(|layer| layer.qk_norm.is_some())
    }

    /// Whether results are kept in front of a norm behind them.
    pub fn norms_results(&self) -> bool {
        self.layers.iter().any(|layer| !layer.attn_post_norm.is_null() || !layer.mlp_post_norm.is_null())
    }

    /// The nodes of both graphs.
    pub fn nodes(&self, at: &StepAddresses) -> StepNodes {
        let mut nodes = vec![self.embed(at)];
        for (index, weights) in self.layers.iter().enumerate() {
            nodes.extend((self.family.layer)(&Block { model: self, weights, at, index }));
        }
        let forward = nodes.len();
        nodes.extend([self.norm_lm_head(at), self.draw(at)]);
        kernels::link(&mut nodes);
        let sample = nodes.split_off(forward);
        StepNodes { forward: nodes, sample }
    }

    fn embed(&self, at: &StepAddresses) -> Node {
        let params = EmbedParams {
            shape: at.shape,
            token_source: at.token_source,
            slot_tokens: at.slot_tokens,
            x: at.x,
            weight: self.embedding,
            next: NextRows::default(),
            scale: self.config.embedding_scale,
            reserved: 0,
        };
        params.node()
    }

    fn norm_lm_head(&self, at: &StepAddresses) -> Node {
        let params = NormLmHeadParams {
            shape: at.shape,
            x: at.x,
            logit_rows: at.logit_rows,
            gamma: self.final_norm,
            logits: at.logits,
            rows: at.x_rows,
            weight: self.lm_head,
            eps: self.config.rms_eps,
            hidden: self.config.hidden as u32,
            vocab: self.config.vocab as u32,
            stride: at.logits_stride,
            scale: self.config.logit_scale,
            reserved: 0,
        };
        params.node()
    }

    fn draw(&self, at: &StepAddresses) -> Node {
        let params = SampleParams {
            shape: at.shape,
            logits: at.logits,
            rows: at.sample_rows,
            slot_tokens: at.slot_tokens,
            tokens: at.tokens,
            logprobs: at.logprobs,
            vocab: self.config.vocab as u32,
            stride: at.logits_stride,
        };
        params.node()
    }
}

/// Refuses a model that its ops cannot be made for, by what its file calls the size.
fn check_sizes(checkpoint: &Checkpoint, limits: &KernelLimits) -> Result<(), WeightsError> {
    let &ModelConfig { hidden, ffn, heads, kv_heads, head_dim, vocab, .. } = checkpoint.config();
    let sizes = ModelSizes { hidden, ffn, heads, kv_heads, head_dim, vocab };
    let Err(Unfit { size, value, expected }) = sizes::check(&sizes, limits) else { return Ok(()) };
    let names = checkpoint.size_names();
    let key = match size {
        Size::Hidden => &names.hidden,
        Size::Ffn => &names.ffn,
        Size::Heads => &names.heads,
        Size::HeadDim => &names.head_dim,
        Size::Vocab => &names.vocab,
    };
    let (path, value) = (checkpoint.path().to_owned(), value.to_string());
    Err(WeightsError::KeyValue { path, key: key.clone(), value, expected: expected.into() })
}

/// Positions of the rotary embedding's table that are made at once.
const ROPE_POSITIONS: usize = 4096;

/// Moves tensors from the file to the device.
struct Loader<'a> {
    device: &'a mut Device,
    checkpoint: &'a Checkpoint,
}

impl Loader<'_> {
    fn layer(&mut self, layer: usize, activations: Activations) -> Result<LayerWeights, ModelError> {
        let (fine, layer) = (activations.finer(), Some(layer));
        let attn_norm = self.optional(Part::AttnNorm, layer)?;
        let [query, key, value] = self.matrices([Part::Query, Part::Key, Part::Value], layer, fine)?;
        let qkv_bias = self.joined(&[Part::QueryBias, Part::KeyBias, Part::ValueBias], layer)?;
        let qk_norm = self.qk_norm(layer)?;
        let [attn_out] = self.matrices([Part::AttnOut], layer, fine)?;
        let attn_out_bias = self.optional(Part::AttnOutBias, layer)?;
        let attn_post_norm = self.optional(Part::AttnPostNorm, layer)?;
        let mlp_norm = self.optional(Part::MlpNorm, layer)?;
        let [gate, up] = self.matrices([Part::Gate, Part::Up], layer, activations)?;
        let gate_up_bias = self.joined(&[Part::GateBias, Part::UpBias], layer)?;
        let [down] = self.matrices([Part::Down], layer, fine)?;
        let down_bias = self.optional(Part::DownBias, layer)?;
        let mlp_post_norm = self.optional(Part::MlpPostNorm, layer)?;
        Ok(LayerWeights {
            attn_norm,
            query,
            key,
            value,
            qkv_bias,
            qk_norm,
            attn_out,
            attn_out_bias,
            attn_post_norm,
            mlp_norm,
            gate,
            up,
            gate_up_bias,
            down,
            down_bias,
            mlp_post_norm,
        })
    }

    fn qk_norm(&mut self, layer: Option<usize>) -> Result<Option<QkNorm>, ModelError> {
        if !self.checkpoint.has(Part::QueryNorm, layer) {
            return Ok(None);
        }
        let is_whole = self.checkpoint.values_of(Part::QueryNorm, layer) > self.checkpoint.config().head_dim;
        let (query, key) = (self.vector(Part::QueryNorm, layer)?, self.vector(Part::KeyNorm, layer)?);
        Ok(Some(QkNorm { query, key, is_whole }))
    }

    /// The matrices of one node.
    fn matrices<const N: usize>(
        &mut self,
        parts: [Part; N],
        layer: Option<usize>,
        activations: Activations,
    ) -> Result<[WeightRef; N], ModelError> {
        let mut formats = [WeightFormat::F32; N];
        for (format, part) in formats.iter_mut().zip(parts) {
            *format = self.checkpoint.format_of(part, layer)?;
        }
        let mut packed = [WeightRef::default(); N];
        for (packed, part) in packed.iter_mut().zip(parts) {
            let tensor = self.checkpoint.tensor_of(part, layer)?;
            *packed = self.device.pack_beside(&tensor.pack_source(), activations, &formats)?;
            self.checkpoint.release(part, layer);
        }
        Ok(packed)
    }

    fn vector(&mut self, part: Part, layer: Option<usize>) -> Result<DevicePtr<f32>, ModelError> {
        self.joined(&[part], layer)
    }

    /// Null where the model has none.
    fn optional(&mut self, part: Part, layer: Option<usize>) -> Result<DevicePtr<f32>, ModelError> {
        if self.checkpoint.has(part, layer) { self.vector(part, layer) } else { Ok(DevicePtr::NULL) }
    }

    /// Vectors, one after the other; null where the model has not the first of them.
    fn joined(&mut self, parts: &[Part], layer: Option<usize>) -> Result<DevicePtr<f32>, ModelError> {
        if !self.checkpoint.has(parts[0], layer) {
            return Ok(DevicePtr::NULL);
        }
        let mut values = Vec::new();
        for part in parts {
            values.extend(self.checkpoint.tensor_of(*part, layer)?.to_f32());
            self.checkpoint.release(*part, layer);
        }
        let buffer = self.device.alloc(size_of_val(&values[..]), "norms and biases")?;
        self.device.upload(&buffer, 0, pod_bytes(&values));
        Ok(buffer.addr.into())
    }

    /// How far pairs turn from one position to the next, if the last position can be told from others.
    fn rope_frequencies(&self, positions: usize) -> Result<Vec<f64>, ModelError> {
        let config = self.checkpoint.config();
        let path = || self.checkpoint.path().to_owned();
        let factors = match self.checkpoint.has(Part::RopeFactors, None) {
            true => Some(self.checkpoint.tensor_of(Part::RopeFactors, None)?.to_f32()),
            false => config.rope_factors.clone(),
        };
        let is_factor = |factor: &f32| factor.is_finite() && *factor > 0.0;
        if let Some((index, value)) = factors.iter().flatten().enumerate().find(|(_, factor)| !is_factor(factor)) {
            return Err(ModelError::RopeFactor { path: path(), index, value: *value });
        }
        let frequencies = rope::frequencies(config, factors.as_deref());
        let position = positions.saturating_sub(1);
        match frequencies.iter().position(|frequency| !(position as f64 * frequency).is_finite()) {
            None => Ok(frequencies),
            Some(pair) => {
                let (key, value) = (self.checkpoint.size_names().rope_theta.clone(), config.rope_theta);
                Err(ModelError::RopeBase { path: path(), key, value, pair, position })
            }
        }
    }

    /// The table of the rotary embedding, of which only a part is in the host's memory at once.
    fn rope_table(&mut self, frequencies: &[f64], positions: usize) -> Result<DevicePtr<f32>, ModelError> {
        let length = self.checkpoint.config().rope_length;
        let row_bytes = 2 * frequencies.len() * size_of::<f32>();
        let buffer = self.device.alloc(positions * row_bytes, "rotary embedding")?;
        for first in (0..positions).step_by(ROPE_POSITIONS) {
            let table = rope::table(frequencies, first..positions.min(first + ROPE_POSITIONS), length);
            self.device.upload(&buffer, first * row_bytes, pod_bytes(&table));
        }
        Ok(buffer.addr.into())
    }
}
