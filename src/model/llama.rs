//! Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP.

use super::{ModelError, StepAddresses, rope};
use crate::device::params::{NextRows, WeightRef};
use crate::device::{Activations, Device, Node, PackSource, pod_bytes};
use crate::ops::attention::Attention;
use crate::ops::embed::Embed;
use crate::ops::linear_residual::LinearResidual;
use crate::ops::norm_gate_up::NormGateUp;
use crate::ops::norm_lm_head::NormLmHead;
use crate::ops::norm_qkv::NormQkv;
use crate::ops::sample::Sample;
use crate::trace::schema::{Op, Place};
use crate::weights::{ModelConfig, Weights};

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
    /// Packs a model's weights for the device. Positions up to `max_positions` can be used.
    pub fn load(
        device: &mut Device,
        weights: &Weights,
        max_positions: usize,
        activations: Activations,
    ) -> Result<Model, ModelError> {
        let config = weights.config().clone();
        let mut loader = Loader { device, weights };
        let (heads, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let (hidden, ffn) = (config.hidden, config.ffn);
        // Gate and up are half of a layer's arithmetic and the least sensitive to the rounding of their input. The rest
        // in the finer form: SmolLM2-135M's logits (Q4_1) are then off by 0.08 instead of 0.18 (root mean square).
        let fine = activations.finer();
        let embedding = loader.matrix("token_embd.weight", (config.vocab, hidden), fine)?;
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            layers.push(Layer {
                attn_norm: loader.vector(&name("attn_norm"), hidden)?,
                wq: loader.matrix(&name("attn_q"), (heads, hidden), fine)?,
                wk: loader.matrix(&name("attn_k"), (kv, hidden), fine)?,
                wv: loader.matrix(&name("attn_v"), (kv, hidden), fine)?,
                wo: loader.matrix(&name("attn_output"), (hidden, heads), fine)?,
                mlp_norm: loader.vector(&name("ffn_norm"), hidden)?,
                gate: loader.matrix(&name("ffn_gate"), (ffn, hidden), activations)?,
                up: loader.matrix(&name("ffn_up"), (ffn, hidden), activations)?,
                down: loader.matrix(&name("ffn_down"), (hidden, ffn), fine)?,
            });
        }
        let final_norm = loader.vector("output_norm.weight", hidden)?;
        let lm_head = match config.tied_embeddings {
            true => embedding,
            false => loader.matrix("output.weight", (config.vocab, hidden), fine)?,
        };
        let factors = match weights.has("rope_freqs.weight") {
            true => Some(loader.rope_factors(config.head_dim / 2)?),
            false => None,
        };
        let table = rope::table(&config, max_positions, factors.as_deref());
        let rope = loader.upload(&table, "rotary embedding")?;
        Ok(Model { config, embedding, layers, final_norm, lm_head, rope })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
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

/// Moves tensors from the file to the device, checking their shapes.
struct Loader<'a> {
    device: &'a mut Device,
    weights: &'a Weights,
}

impl Loader<'_> {
    fn matrix(
        &mut self,
        name: &str,
        (rows, cols): (usize, usize),
        activations: Activations,
    ) -> Result<WeightRef, ModelError> {
        let tensor = self.weights.tensor(name)?;
        check_shape(name, (tensor.rows, tensor.cols), (rows, cols))?;
        let source = PackSource { name, format: tensor.format, rows, cols, data: &tensor.data };
        Ok(self.device.pack(&source, activations)?)
    }

    fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.weights.tensor(name)?;
        check_shape(name, (tensor.rows, tensor.cols), (1, len))?;
        let mut values = vec![0.0; len];
        tensor.format.dequantise_row(&tensor.data, &mut values);
        Ok(values)
    }

    fn rope_factors(&mut self, pairs: usize) -> Result<Vec<f32>, ModelError> {
        let factors = self.values("rope_freqs.weight", pairs)?;
        match factors.iter().position(|factor| !(factor.is_finite() && *factor > 0.0)) {
            Some(index) => Err(ModelError::RopeFactor { index, value: factors[index] }),
            None => Ok(factors),
        }
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<u64, ModelError> {
        let values = self.values(name, len)?;
        self.upload(&values, "norm weights")
    }

    fn upload(&mut self, values: &[f32], purpose: &'static str) -> Result<u64, ModelError> {
        let buffer = self.device.alloc(size_of_val(values), purpose)?;
        self.device.upload(&buffer, 0, pod_bytes(values));
        Ok(buffer.addr)
    }
}

fn check_shape(name: &str, (rows, cols): (usize, usize), expected: (usize, usize)) -> Result<(), ModelError> {
    if (rows, cols) == expected {
        return Ok(());
    }
    let (expected_rows, expected_cols) = expected;
    Err(ModelError::Shape { name: name.to_owned(), rows, cols, expected_rows, expected_cols })
}
