//! Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP.

use super::{ModelError, StepAddresses, rope};
use crate::device::params::{NextRows, WeightRef};
use crate::device::{Activations, Device, KernelLimits, Node, WeightFormat, activation_forms, pod_bytes};
use crate::ops::attention::Attention;
use crate::ops::embed::Embed;
use crate::ops::linear_residual::LinearResidual;
use crate::ops::norm_gate_up::NormGateUp;
use crate::ops::norm_lm_head::NormLmHead;
use crate::ops::norm_qkv::NormQkv;
use crate::ops::sample::Sample;
use crate::ops::sizes::{self, ModelSizes, Size, Unfit};
use crate::trace::schema::{Op, Place};
use crate::weights::{ModelConfig, Weights, WeightsError};

/// A model on a device.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    embedding: WeightRef,
    layers: Vec<Layer>,
    final_norm: u64,
    lm_head: WeightRef,
    rope: u64,
}

/// The weights of one layer; norms are addresses of `hidden` f32 values.
#[derive(Debug)]
struct Layer {
    attn_norm: u64,
    wq: WeightRef,
    wk: WeightRef,
    wv: WeightRef,
    wo: WeightRef,
    mlp_norm: u64,
    gate: WeightRef,
    up: WeightRef,
    down: WeightRef,
}

impl Model {
    /// Packs a model's weights for the device, once its sizes are known to be such that there are kernels for them.
    /// Positions up to `max_positions` can be used.
    pub fn load(
        device: &mut Device,
        weights: &Weights,
        max_positions: usize,
        activations: Activations,
    ) -> Result<Model, ModelError> {
        let config = weights.config().clone();
        check_sizes(weights, &device.limits())?;
        let mut loader = Loader { device, weights };
        let frequencies = loader.rope_frequencies(max_positions)?;
        // Gate and up are half of a layer's arithmetic and the least sensitive to the rounding of their input. The rest
        // in the finer form: SmolLM2-135M's logits (Q4_1) are then off by 0.08 instead of 0.18 (root mean square).
        let fine = activations.finer();
        let [embedding] = loader.matrices(["token_embd.weight"], fine)?;
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            let attn_norm = loader.vector(&name("attn_norm"))?;
            let [wq, wk, wv] = loader.matrices(["attn_q", "attn_k", "attn_v"].map(name), fine)?;
            let [wo] = loader.matrices(["attn_output"].map(name), fine)?;
            let mlp_norm = loader.vector(&name("ffn_norm"))?;
            let [gate, up] = loader.matrices(["ffn_gate", "ffn_up"].map(name), activations)?;
            let [down] = loader.matrices(["ffn_down"].map(name), fine)?;
            layers.push(Layer { attn_norm, wq, wk, wv, wo, mlp_norm, gate, up, down });
        }
        let final_norm = loader.vector("output_norm.weight")?;
        let lm_head = match config.tied_embeddings {
            true => embedding,
            false => loader.matrices(["output.weight"], fine)?[0],
        };
        let rope = loader.rope_table(&frequencies, max_positions)?;
        Ok(Model { config, embedding, layers, final_norm, lm_head, rope })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// In how many forms at once rows of the residual stream are read, at most.
    pub fn residual_forms(&self) -> usize {
        let of_layer = |layer: &Layer| {
            activation_forms(&[layer.wq, layer.wk, layer.wv]).max(activation_forms(&[layer.gate, layer.up]))
        };
        self.layers.iter().map(of_layer).max().unwrap_or(1)
    }

    /// From tokens to hidden states.
    pub fn forward(&self, at: &StepAddresses) -> Vec<Node> {
        let embed = Embed {
            shape: at.shape,
            token_source: at.token_source,
            slot_tokens: at.slot_tokens,
            x: at.x,
            weight: self.embedding,
            next: match self.layers.first() {
                Some(first) => normed(at, first.attn_norm, &first.wq),
                None => normed(at, self.final_norm, &self.lm_head),
            },
        };
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| self.layer(i, layer, at));
        std::iter::once(embed.node()).chain(layers).collect()
    }

    /// From hidden states to tokens.
    pub fn sample(&self, at: &StepAddresses) -> Vec<Node> {
        let lm_head = NormLmHead {
            shape: at.shape,
            x: at.x,
            logit_rows: at.logit_rows,
            gamma: self.final_norm,
            logits: at.logits,
            rows: at.x_rows,
            weight: self.lm_head,
            eps: self.config.rms_eps,
            stride: at.logits_stride,
        };
        let sample = Sample {
            shape: at.shape,
            logits: at.logits,
            rows: at.sample_rows,
            slot_tokens: at.slot_tokens,
            tokens: at.tokens,
            logprobs: at.logprobs,
            vocab: self.config.vocab,
            stride: at.logits_stride as usize,
        };
        vec![lm_head.node(), sample.node()]
    }

    fn layer(&self, index: usize, layer: &Layer, at: &StepAddresses) -> [Node; 5] {
        let config = &self.config;
        let number = index as i32;
        let inner = |weight: &WeightRef| NextRows {
            rows: at.inner_rows,
            activations: weight.activations,
            ..NextRows::default()
        };
        let qkv = NormQkv {
            shape: at.shape,
            x: at.x,
            gamma: layer.attn_norm,
            rope: self.rope,
            positions: at.positions,
            slot_mapping: at.slot_mapping,
            q: at.q,
            rows: at.x_rows,
            wq: layer.wq,
            wk: layer.wk,
            wv: layer.wv,
            kv: at.kv[index],
            eps: config.rms_eps,
            head_dim: config.head_dim as u32,
        };
        let attention = Attention {
            shape: at.shape,
            q: at.q,
            positions: at.positions,
            page_tables: at.page_tables,
            items: at.items,
            splits: at.splits,
            partials: at.partials,
            arrivals: at.arrivals,
            out: at.attention,
            next: inner(&layer.wo),
            kv: at.kv[index],
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            max_pages: at.max_pages as usize,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
        };
        let residual =
            |input, weight, next| LinearResidual { shape: at.shape, input, x: at.x, rows: at.inner_rows, weight, next };
        let out = residual(at.attention, layer.wo, normed(at, layer.mlp_norm, &layer.gate));
        let up = NormGateUp {
            shape: at.shape,
            x: at.x,
            gamma: layer.mlp_norm,
            out: at.mlp,
            rows: at.x_rows,
            gate: layer.gate,
            up: layer.up,
            eps: config.rms_eps,
            next: inner(&layer.down),
        };
        let after = match self.layers.get(index + 1) {
            Some(next) => normed(at, next.attn_norm, &next.wq),
            None => normed(at, self.final_norm, &self.lm_head),
        };
        let down = residual(at.mlp, layer.down, after);
        [
            qkv.node(number),
            attention.node(number),
            out.node(Place { layer: number, op: Op::AttnOut }),
            up.node(number),
            down.node(Place { layer: number, op: Op::MlpDown }),
        ]
    }
}

/// The residual stream for a layer with a norm in front of it.
fn normed(at: &StepAddresses, gamma: u64, weight: &WeightRef) -> NextRows {
    NextRows { rows: at.x_rows, gamma, activations: weight.activations, reserved: 0 }
}

/// Refuses a model that its ops cannot be made for, by what its file calls the size.
fn check_sizes(weights: &Weights, limits: &KernelLimits) -> Result<(), WeightsError> {
    let &ModelConfig { hidden, ffn, heads, kv_heads, head_dim, vocab, .. } = weights.config();
    let sizes = ModelSizes { hidden, ffn, heads, kv_heads, head_dim, vocab };
    let Err(Unfit { size, value, expected }) = sizes::check(&sizes, limits) else { return Ok(()) };
    let keys = weights.keys();
    let key = match size {
        Size::Hidden => keys.hidden,
        Size::Ffn => keys.ffn,
        Size::Heads => keys.heads,
        Size::HeadDim => keys.head_dim,
        Size::Vocab => keys.vocab,
    };
    let (path, value) = (weights.path().to_owned(), value.to_string());
    Err(WeightsError::KeyValue { path, key: key.to_owned(), value, expected: expected.into() })
}

/// Positions of the rotary embedding's table that are made at once.
const ROPE_POSITIONS: usize = 4096;

/// Moves tensors from the file to the device.
struct Loader<'a> {
    device: &'a mut Device,
    weights: &'a Weights,
}

impl Loader<'_> {
    /// The matrices of one node.
    fn matrices<const N: usize>(
        &mut self,
        names: [impl AsRef<str>; N],
        activations: Activations,
    ) -> Result<[WeightRef; N], ModelError> {
        let mut formats = [WeightFormat::F32; N];
        for (format, name) in formats.iter_mut().zip(&names) {
            *format = self.weights.format(name.as_ref())?;
        }
        let mut packed = [WeightRef::default(); N];
        for (packed, name) in packed.iter_mut().zip(&names) {
            let tensor = self.weights.tensor(name.as_ref())?;
            *packed = self.device.pack_beside(&tensor.pack_source(), activations, &formats)?;
        }
        Ok(packed)
    }

    fn vector(&mut self, name: &str) -> Result<u64, ModelError> {
        let values = self.weights.tensor(name)?.to_f32();
        let buffer = self.device.alloc(size_of_val(&values[..]), "norm weights")?;
        self.device.upload(&buffer, 0, pod_bytes(&values));
        Ok(buffer.addr)
    }

    /// How far pairs turn from one position to the next, if the last position can be told from others.
    fn rope_frequencies(&self, positions: usize) -> Result<Vec<f64>, ModelError> {
        let config = self.weights.config();
        let path = || self.weights.path().to_owned();
        let factors = match self.weights.has("rope_freqs.weight") {
            true => Some(self.weights.tensor("rope_freqs.weight")?.to_f32()),
            false => None,
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
                let (key, value) = (self.weights.keys().rope_theta, config.rope_theta);
                Err(ModelError::RopeBase { path: path(), key, value, pair, position })
            }
        }
    }

    /// The table of the rotary embedding, of which only a part is in the host's memory at once.
    fn rope_table(&mut self, frequencies: &[f64], positions: usize) -> Result<u64, ModelError> {
        let row_bytes = 2 * frequencies.len() * size_of::<f32>();
        let buffer = self.device.alloc(positions * row_bytes, "rotary embedding")?;
        for first in (0..positions).step_by(ROPE_POSITIONS) {
            let table = rope::table(frequencies, first..positions.min(first + ROPE_POSITIONS));
            self.device.upload(&buffer, first * row_bytes, pod_bytes(&table));
        }
        Ok(buffer.addr)
    }
}
