//! The ops of one layer, as nodes: what families make their lists of.

use super::StepAddresses;
use super::packed::{LayerWeights, Model};
use crate::kernels::params::{
    AttentionParams, LinearResidualParams, NextRows, NormGateUpParams, NormQkvParams, NormResidualParams, QkNormParams,
    WeightRef,
};
use crate::kernels::{DevicePtr, Node};
use crate::trace::schema::{Op, Place};

/// One layer of a model.
pub(super) struct Block<'a> {
    pub(super) model: &'a Model,
    pub(super) weights: &'a LayerWeights,
    pub(super) at: &'a StepAddresses,
    pub(super) index: usize,
}

impl Block<'_> {
    fn place(&self, op: Op) -> Place {
        Place { layer: self.index as i32, op }
    }

    /// Norm, query, key and value projections, rotary embedding, KV cache write.
    pub(super) fn norm_qkv(&self) -> Node {
        let (at, config, weights) = (self.at, self.model.config(), self.weights);
        let params = NormQkvParams {
            shape: at.shape,
            x: at.x,
            gamma: weights.attn_norm,
            bias: weights.qkv_bias,
            rope: if weights.qk_norm.is_some() { DevicePtr::NULL } else { self.rope() },
            positions: at.positions,
            slot_mapping: at.slot_mapping,
            q: at.q,
            keys: if weights.qk_norm.is_some() { at.keys } else { DevicePtr::NULL },
            rows: at.x_rows,
            wq: weights.query,
            wk: weights.key,
            wv: weights.value,
            kv: at.kv[self.index],
            eps: config.rms_eps,
            hidden: config.hidden as u32,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            reserved: 0,
        };
        params.node(self.index as i32)
    }

    /// The table by which this layer turns queries and keys, if it does.
    fn rope(&self) -> DevicePtr<f32> {
        let is_turned = !self.model.config().unrotated_layers.contains(&self.index);
        if is_turned { self.model.rope } else { DevicePtr::NULL }
    }

    /// Norm of queries and keys, rotary embedding, KV cache write of the keys.
    pub(super) fn qk_norm(&self) -> Node {
        let (at, config) = (self.at, self.model.config());
        let norm = self.weights.qk_norm.expect("a family with this op lists the gains");
        let params = QkNormParams {
            shape: at.shape,
            q: at.q,
            keys: at.keys,
            q_gamma: norm.query,
            k_gamma: norm.key,
            rope: self.rope(),
            positions: at.positions,
            slot_mapping: at.slot_mapping,
            kv: at.kv[self.index],
            eps: config.rms_eps,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            whole: norm.is_whole.into(),
            reserved: 0,
        };
        params.node(self.index as i32)
    }

    /// Attention over the cache.
    pub(super) fn attention(&self) -> Node {
        let (at, config) = (self.at, self.model.config());
        let params = AttentionParams {
            shape: at.shape,
            q: at.q,
            positions: at.positions,
            page_tables: at.page_tables,
            items: at.items,
            splits: at.splits,
            partials: at.partials,
            arrivals: at.arrivals,
            out: at.attention,
            next: NextRows::default(),
            kv: at.kv[self.index],
            scale: config.attention_scale,
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            max_pages: at.max_pages,
            reserved: 0,
        };
        params.node(self.index as i32)
    }

    /// Attention's output projection, added to the residual stream unless a norm comes between.
    pub(super) fn attn_out(&self) -> Node {
        let (weight, bias) = (self.weights.attn_out, self.weights.attn_out_bias);
        self.projection(self.at.attention, weight, bias, self.weights.attn_post_norm, Op::AttnOut)
    }

    /// The norm behind attention.
    pub(super) fn attn_post_norm(&self) -> Node {
        self.norm_residual(self.weights.attn_post_norm, Op::AttnNorm)
    }

    /// Norm, gate and up projections, SiLU.
    pub(super) fn norm_gate_up(&self) -> Node {
        let (at, config, weights) = (self.at, self.model.config(), self.weights);
        let params = NormGateUpParams {
            shape: at.shape,
            x: at.x,
            gamma: weights.mlp_norm,
            bias: weights.gate_up_bias,
            out: at.mlp,
            rows: at.x_rows,
            gate: weights.gate,
            up: weights.up,
            next: NextRows::default(),
            eps: config.rms_eps,
            hidden: config.hidden as u32,
            ffn: config.ffn as u32,
            reserved: 0,
        };
        params.node(self.index as i32)
    }

    /// The MLP's down projection, added to the residual stream unless a norm comes between.
    pub(super) fn mlp_down(&self) -> Node {
        let (weight, bias) = (self.weights.down, self.weights.down_bias);
        self.projection(self.at.mlp, weight, bias, self.weights.mlp_post_norm, Op::MlpDown)
    }

    /// The norm behind the MLP.
    pub(super) fn mlp_post_norm(&self) -> Node {
        self.norm_residual(self.weights.mlp_post_norm, Op::MlpNorm)
    }

    /// Onto the residual stream, or to where the norm behind reads it.
    fn projection(
        &self,
        input: DevicePtr<f32>,
        weight: WeightRef,
        bias: DevicePtr<f32>,
        post_norm: DevicePtr<f32>,
        op: Op,
    ) -> Node {
        let at = self.at;
        let (from, x) = if post_norm.is_null() { (at.x, at.x) } else { (DevicePtr::NULL, at.y) };
        let params = LinearResidualParams {
            shape: at.shape,
            input,
            from,
            x,
            bias,
            rows: at.inner_rows,
            weight,
            next: NextRows::default(),
            scale: self.model.config().residual_scale,
            reserved: 0,
        };
        params.node(self.place(op))
    }

    fn norm_residual(&self, gamma: DevicePtr<f32>, op: Op) -> Node {
        let (at, config) = (self.at, self.model.config());
        let (next, eps, hidden) = (NextRows::default(), config.rms_eps, config.hidden as u32);
        NormResidualParams { shape: at.shape, y: at.y, gamma, x: at.x, next, eps, hidden }.node(self.place(op))
    }
}
