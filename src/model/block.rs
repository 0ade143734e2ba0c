//! The ops of one layer, as nodes: what families make their lists of.

use super::StepAddresses;
use super::packed::{LayerWeights, Model};
use crate::kernels::params::{
    AttentionParams, LinearResidualParams, NextRows, NormGateUpParams, NormQkvParams, WeightRef,
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
            rope: self.model.rope,
            positions: at.positions,
            slot_mapping: at.slot_mapping,
            q: at.q,
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
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            heads: config.heads as u32,
            kv_heads: config.kv_heads as u32,
            head_dim: config.head_dim as u32,
            max_pages: at.max_pages,
            reserved: 0,
        };
        params.node(self.index as i32)
    }

    /// Attention's output projection, added to the residual stream.
    pub(super) fn attn_out(&self) -> Node {
        self.residual(self.at.attention, self.weights.attn_out, Op::AttnOut)
    }

    /// Norm, gate and up projections, SiLU.
    pub(super) fn norm_gate_up(&self) -> Node {
        let (at, config, weights) = (self.at, self.model.config(), self.weights);
        let params = NormGateUpParams {
            shape: at.shape,
            x: at.x,
            gamma: weights.mlp_norm,
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

    /// The MLP's down projection, added to the residual stream.
    pub(super) fn mlp_down(&self) -> Node {
        self.residual(self.at.mlp, self.weights.down, Op::MlpDown)
    }

    fn residual(&self, input: DevicePtr<f32>, weight: WeightRef, op: Op) -> Node {
        let at = self.at;
        let next = NextRows::default();
        LinearResidualParams { shape: at.shape, input, x: at.x, rows: at.inner_rows, weight, next }.node(self.place(op))
    }
}
