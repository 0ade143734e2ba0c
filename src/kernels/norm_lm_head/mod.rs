//! Final norm and vocabulary projection of the rows that need logits.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::*;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Cost, LinearCost, Op, Place};

impl NormLmHeadParams {
    /// The node.
    pub fn node(&self) -> Node {
        let &NormLmHeadParams { ref weight, hidden, vocab, stride, .. } = self;
        assert_eq!((hidden, vocab), (weight.cols, weight.rows), "the sizes are those of the matrix");
        assert!(stride >= vocab && stride.is_multiple_of(16), "a stride of {stride} for {vocab} logits");
        let constant_bytes = weight_bytes(weight) + F32_BYTES * f64::from(hidden);
        let row_bytes = F32_BYTES * f64::from(hidden + vocab) + 4.0;
        let row_flops = product_flops(weight) + 4.0 * f64::from(hidden);
        Node {
            params: KernelParams::NormLmHead(*self),
            place: Place { layer: -1, op: Op::LmHead },
            cost: Cost {
                bytes: LinearCost { constant: constant_bytes, logit_rows: row_bytes, ..LinearCost::default() },
                flops: LinearCost { logit_rows: row_flops, ..LinearCost::default() },
            },
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &NormLmHeadParams) -> Check {
    checker.stride(p.stride, p.vocab)?;
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("x", p.x, p.hidden as usize * 4)?;
    checker.array("logit_rows", p.logit_rows, checker.rows * 4)?;
    checker.array("gamma", p.gamma, p.hidden as usize * 4)?;
    checker.array("logits", p.logits, checker.floats(p.stride, 1))?;
    checker.rows_of_input(p.rows, &[p.weight])?;
    checker.weight("weight", &p.weight, p.vocab, p.hidden)
}

/// The input of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// (tokens, hidden)
    pub x: &'a [f32],
    /// (logit_rows)
    pub logit_rows: &'a [u32],
    /// (hidden)
    pub gamma: &'a [f32],
    /// Of the norm.
    pub eps: f32,
    /// (vocab, hidden)
    pub weight: Matrix<'a>,
    /// `ACTIVATIONS_*`
    pub activations: u32,
    /// What logits are multiplied by.
    pub scale: f32,
}

/// (logit_rows, vocab)
pub fn reference(input: &Reference<'_>) -> Vec<f64> {
    let hidden = input.weight.cols;
    let mut out = Vec::new();
    for row in input.logit_rows {
        let x = &input.x[*row as usize * hidden..][..hidden];
        let normalised = round_activations(&rms_norm(x, input.gamma, input.eps), input.activations);
        out.extend(product(&input.weight, &normalised).iter().map(|logit| f64::from(input.scale) * logit));
    }
    out
}
