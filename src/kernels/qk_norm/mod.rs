//! Norm of queries and keys, rotary embedding, KV cache write of the keys.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::F32_BYTES;
use crate::kernels::linear::{cost_per_token, rms_norm};
use crate::kernels::norm_qkv::rotate;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Op, Place};

impl QkNormParams {
    /// The node.
    pub fn node(&self, layer: i32) -> Node {
        let &QkNormParams { ref kv, heads, kv_heads, head_dim, whole, .. } = self;
        assert!(head_dim > 0 && head_dim.is_multiple_of(16), "head_dim is {head_dim}, not a multiple of 16");
        let kv_bytes = if kv.format == FORMAT_F16 { 2.0 } else { F32_BYTES };
        let (q, k) = (f64::from(heads * head_dim), f64::from(kv_heads * head_dim));
        let gains = if whole == 0 { 2.0 * f64::from(head_dim) } else { q + k };
        let turned = if self.rope.is_null() { 0.0 } else { 1.0 };
        // q in and out, keys in, K, the angles, position and slot
        let row_bytes = F32_BYTES * (2.0 * q + k + turned * f64::from(head_dim)) + kv_bytes * k + 8.0;
        // The norm is four operations a value, a rotation three.
        let row_flops = (4.0 + turned * 3.0) * (q + k);
        Node {
            params: KernelParams::QkNorm(*self),
            place: Place { layer, op: Op::AttnQkNorm },
            cost: cost_per_token(F32_BYTES * gains, row_bytes, row_flops),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &QkNormParams) -> Check {
    checker.heads(p.heads, p.kv_heads, p.head_dim)?;
    let gains = |heads: u32| if p.whole == 0 { 1 } else { heads as usize } * p.head_dim as usize * 4;
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("q", p.q, checker.floats(p.heads, p.head_dim))?;
    checker.array("keys", p.keys, checker.floats(p.kv_heads, p.head_dim))?;
    checker.array("q_gamma", p.q_gamma, gains(p.heads))?;
    checker.array("k_gamma", p.k_gamma, gains(p.kv_heads))?;
    checker.optional("rope", p.rope, p.head_dim as usize * 4)?;
    checker.array("positions", p.positions, checker.rows * 4)?;
    checker.array("slot_mapping", p.slot_mapping, checker.rows * 4)?;
    checker.kv_cache(&p.kv, p.kv_heads, p.head_dim)
}

/// The input of the reference: queries, or keys.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// (tokens, heads · head_dim)
    pub values: &'a [f32],
    /// (head_dim), or of all heads together
    pub gamma: &'a [f32],
    /// Of the norm.
    pub eps: f32,
    /// (max_position, head_dim / 2, 2); none: nothing is rotated
    pub rope: Option<&'a [f32]>,
    /// (tokens)
    pub positions: &'a [u32],
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// rope(norm(values)): (tokens, heads · head_dim)
pub fn reference(r: &Reference<'_>) -> Vec<f64> {
    let mut out = Vec::new();
    for (row, position) in r.values.chunks_exact(r.heads * r.head_dim).zip(r.positions) {
        let mut normed: Vec<f64> =
            row.chunks_exact(r.gamma.len()).flat_map(|part| rms_norm(part, r.gamma, r.eps)).collect();
        if let Some(rope) = r.rope {
            let angles = &rope[*position as usize * r.head_dim..][..r.head_dim];
            normed.chunks_exact_mut(r.head_dim).for_each(|head| rotate(head, angles));
        }
        out.extend(normed);
    }
    out
}
