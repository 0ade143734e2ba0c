//! Token embedding: x[i] = scale · row of token i.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::{F32_BYTES, Matrix, cost_per_token, weight_row_bytes};
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Op, Place};

impl EmbedParams {
    /// The node.
    pub fn node(&self) -> Node {
        let weight = &self.weight;
        assert!(weight.rows > 0, "an embedding of no tokens");
        let row_bytes = weight_row_bytes(weight) as f64 + F32_BYTES * f64::from(weight.cols) + 4.0;
        Node {
            params: KernelParams::Embed(*self),
            place: Place { layer: -1, op: Op::Embed },
            cost: cost_per_token(0.0, row_bytes, if self.scale == 1.0 { 0.0 } else { f64::from(weight.cols) }),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &EmbedParams) -> Check {
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("token_source", p.token_source, checker.rows * 4)?;
    checker.array("slot_tokens", p.slot_tokens, 4)?;
    checker.array("x", p.x, checker.floats(p.weight.cols, 1))?;
    checker.weight("weight", &p.weight, p.weight.rows, p.weight.cols)
}

/// (tokens, hidden)
pub fn reference(weight: &Matrix<'_>, token_source: &[i32], slot_tokens: &[u32]) -> Vec<f64> {
    let token = |source: i32| match source {
        0.. => source as usize,
        _ => slot_tokens[(-1 - source) as usize] as usize,
    };
    let row = |source: &i32| &weight.values[token(*source) * weight.cols..][..weight.cols];
    token_source.iter().flat_map(row).map(|value| f64::from(*value)).collect()
}
