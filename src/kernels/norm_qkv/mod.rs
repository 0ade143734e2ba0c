//! Norm, query, key and value projections, rotary embedding, KV cache write; or, before a norm of queries and keys,
//! both as the projections give them.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::*;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Op, Place};

impl NormQkvParams {
    /// The node.
    pub fn node(&self, layer: i32) -> Node {
        let &NormQkvParams { ref wq, ref wk, ref wv, ref kv, hidden, heads, kv_heads, head_dim, .. } = self;
        assert_same_input("norm_qkv", &[wq, wk, wv]);
        assert!(head_dim > 0 && head_dim.is_multiple_of(16), "head_dim is {head_dim}, not a multiple of 16");
        assert_eq!((wq.rows, wq.cols), (heads * head_dim, hidden), "the sizes are those of the query matrix");
        assert_eq!([wk.rows, wv.rows], [kv_heads * head_dim; 2], "the sizes are those of the key and value matrices");
        assert!(kv.format == FORMAT_F32 || kv.format == FORMAT_F16, "KV format {}", kv.format);
        let kv_bytes = if kv.format == FORMAT_F16 { 2.0 } else { F32_BYTES };
        let is_raw = !self.keys.is_null();
        assert!(!is_raw || self.rope.is_null(), "what is normed is turned behind the norm");
        let (norms, biases) = (norm_count(self.gamma), bias_count(self.bias));
        let turned = if self.rope.is_null() { 0.0 } else { 1.0 };
        let outputs = f64::from(wq.rows + 2 * wk.rows);
        let constant_bytes = weight_bytes(wq)
            + weight_bytes(wk)
            + weight_bytes(wv)
            + F32_BYTES * (norms * f64::from(hidden) + biases * outputs);
        // x, q, K and V, the angles, position and slot
        let key_bytes = if is_raw { F32_BYTES } else { kv_bytes };
        let row_bytes = F32_BYTES * (f64::from(hidden + wq.rows) + turned * f64::from(head_dim))
            + (key_bytes + kv_bytes) * f64::from(wk.rows)
            + 8.0;
        // The norm is four operations a value, a rotation three.
        let row_flops = product_flops(wq)
            + product_flops(wk)
            + product_flops(wv)
            + norms * 4.0 * f64::from(hidden)
            + biases * outputs
            + turned * 3.0 * f64::from(wq.rows + wk.rows);
        Node {
            params: KernelParams::NormQkv(*self),
            place: Place { layer, op: Op::AttnQkv },
            cost: cost_per_token(constant_bytes, row_bytes, row_flops),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &NormQkvParams) -> Check {
    checker.heads(p.heads, p.kv_heads, p.head_dim)?;
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("x", p.x, checker.floats(p.hidden, 1))?;
    checker.optional("gamma", p.gamma, p.hidden as usize * 4)?;
    checker.optional("bias", p.bias, (p.wq.rows as usize + p.wk.rows as usize + p.wv.rows as usize) * 4)?;
    checker.optional("rope", p.rope, p.head_dim as usize * 4)?;
    checker.optional("keys", p.keys, checker.floats(p.kv_heads, p.head_dim))?;
    checker.array("positions", p.positions, checker.rows * 4)?;
    checker.array("slot_mapping", p.slot_mapping, checker.rows * 4)?;
    checker.array("q", p.q, checker.floats(p.heads, p.head_dim))?;
    checker.rows_of_input(p.rows, &[p.wq, p.wk, p.wv])?;
    checker.weight("wq", &p.wq, p.heads.saturating_mul(p.head_dim), p.hidden)?;
    checker.weight("wk", &p.wk, p.kv_heads.saturating_mul(p.head_dim), p.hidden)?;
    checker.weight("wv", &p.wv, p.kv_heads.saturating_mul(p.head_dim), p.hidden)?;
    checker.kv_cache(&p.kv, p.kv_heads, p.head_dim)
}

/// The input of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// (tokens, hidden)
    pub x: &'a [f32],
    /// (hidden); none: no norm comes before
    pub gamma: Option<&'a [f32]>,
    /// Of the norm.
    pub eps: f32,
    /// Query, key and value projections.
    pub weights: [Matrix<'a>; 3],
    /// `ACTIVATIONS_*`, of each of the weights
    pub activations: [u32; 3],
    /// (query, key and value outputs)
    pub bias: Option<&'a [f32]>,
    /// (max_position, head_dim / 2, 2); none: nothing is rotated
    pub rope: Option<&'a [f32]>,
    /// (tokens)
    pub positions: &'a [u32],
    /// Width of a head.
    pub head_dim: usize,
}

/// Queries, keys and values: (tokens, heads · head_dim) of each.
pub fn reference(input: &Reference<'_>) -> [Vec<f64>; 3] {
    let hidden = input.weights[0].cols;
    let mut out = [const { Vec::new() }; 3];
    for (x, position) in input.x.chunks_exact(hidden).zip(input.positions) {
        let normed = normed(x, input.gamma, input.eps);
        let mut bias = input.bias;
        for (part, (weight, out)) in input.weights.iter().zip(&mut out).enumerate() {
            let own = bias.map(|bias| bias.split_at(weight.rows));
            bias = own.map(|(_, rest)| rest);
            let product = product(weight, &round_activations(&normed, input.activations[part]));
            let mut values = add_bias(product, own.map(|(own, _)| own));
            if let Some(rope) = input.rope.filter(|_| part < 2) {
                let angles = &rope[*position as usize * input.head_dim..][..input.head_dim];
                values.chunks_exact_mut(input.head_dim).for_each(|head| rotate(head, angles));
            }
            out.extend(values);
        }
    }
    out
}

/// Turns the pairs of a head by angles (head_dim / 2, 2): cos, sin.
pub fn rotate(head: &mut [f64], angles: &[f32]) {
    for (pair, angle) in head.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
        let (x, y, cos, sin) = (pair[0], pair[1], f64::from(angle[0]), f64::from(angle[1]));
        pair[0] = x * cos - y * sin;
        pair[1] = x * sin + y * cos;
    }
}
