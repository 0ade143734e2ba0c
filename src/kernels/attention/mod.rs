//! Attention over the paged cache, and the work list that shares it out.

pub(super) mod cpu;
pub(super) mod cuda;
mod plan;

pub use self::plan::{PlanOptions, SequenceRows, max_items, plan};
use crate::kernels::check::at_least;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Cost, LinearCost, Op, Place};

/// The largest head that the kernels have room for.
pub const MAX_HEAD_DIM: usize = 256;

impl AttentionParams {
    /// The node of a layer.
    pub fn node(&self, layer: i32) -> Node {
        let &AttentionParams { heads, kv_heads, head_dim, .. } = self;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} query heads for {kv_heads}");
        let is_width = head_dim.is_multiple_of(16) && (1..=MAX_HEAD_DIM).contains(&(head_dim as usize));
        assert!(is_width, "heads of {head_dim} values");
        let element_bytes = match self.kv.format {
            FORMAT_F32 => size_of::<f32>(),
            FORMAT_F16 => size_of::<u16>(),
            format => panic!("a KV cache is f32 or f16, not format {format}"),
        };
        let width = f64::from(heads) * f64::from(head_dim);
        let position_bytes = 2 * kv_heads as usize * head_dim as usize * element_bytes;
        Node {
            params: KernelParams::Attention(*self),
            place: Place { layer, op: Op::AttnCore },
            cost: Cost {
                // Keys and values once per sequence; queries in, results out.
                bytes: LinearCost {
                    kv_tokens: position_bytes as f64,
                    tokens: 2.0 * width * size_of::<f32>() as f64,
                    ..Default::default()
                },
                // A multiply-add per dimension for the score and one for the value.
                flops: LinearCost { qk_pairs: 4.0 * width, ..Default::default() },
            },
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &AttentionParams) -> Check {
    checker.heads(p.heads, p.kv_heads, p.head_dim)?;
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("q", p.q, checker.floats(p.heads, p.head_dim))?;
    checker.array("positions", p.positions, checker.rows * 4)?;
    checker.array("page_tables", p.page_tables, p.max_pages as usize * 4)?;
    checker.array("items", p.items, size_of::<AttentionItem>())?;
    checker.array("splits", p.splits, checker.rows * size_of::<AttentionSplit>())?;
    checker.array("partials", p.partials, 0)?;
    checker.array("out", p.out, checker.floats(p.heads, p.head_dim))?;
    at_least("max_pages", p.max_pages, 1)?;
    checker.kv_cache(&p.kv, p.kv_heads, p.head_dim)
}

/// Memory for `slots` partial results of (heads, head_dim + 2) f32.
pub fn partial_bytes(slots: usize, heads: usize, head_dim: usize) -> usize {
    slots * heads * (head_dim + 2) * size_of::<f32>()
}

/// The input of [`reference`]: one sequence, with its keys and values in order of position.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f64,
    /// (rows, heads * head_dim)
    pub q: &'a [f32],
    /// (rows)
    pub positions: &'a [u32],
    /// (positions, kv_heads * head_dim)
    pub keys: &'a [f32],
    /// (positions, kv_heads * head_dim)
    pub values: &'a [f32],
}

/// softmax(scale · q Kᵀ, cut by causality) V, as the definition says it: (rows, heads * head_dim).
pub fn reference(input: &Reference<'_>) -> Vec<f64> {
    let Reference { heads, kv_heads, head_dim: dim, .. } = *input;
    let mut out = vec![0.0; input.q.len()];
    for (row, &position) in input.positions.iter().enumerate() {
        for head in 0..heads {
            let at = (row * heads + head) * dim;
            let kv_at = |position: usize| (position * kv_heads + head / (heads / kv_heads)) * dim;
            let score = |position: usize| -> f64 {
                let key = &input.keys[kv_at(position)..][..dim];
                let q = &input.q[at..at + dim];
                input.scale * q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
            };
            let scores: Vec<f64> = (0..=position as usize).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            for (position, score) in scores.iter().enumerate() {
                let probability = (score - max).exp() / sum;
                for d in 0..dim {
                    out[at + d] += probability * f64::from(input.values[kv_at(position) + d]);
                }
            }
        }
    }
    out
}
