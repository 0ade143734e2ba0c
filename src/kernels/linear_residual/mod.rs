//! A projection added to the residual stream.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::*;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::Place;

impl LinearResidualParams {
    /// The node: an attention output or an MLP down projection.
    pub fn node(&self, place: Place) -> Node {
        let weight = &self.weight;
        assert_ne!(self.input, self.x, "the input of a residual projection is not the residual stream");
        // input, x in, x out
        let row_bytes = F32_BYTES * (f64::from(weight.cols) + 2.0 * f64::from(weight.rows));
        let row_flops = product_flops(weight) + f64::from(weight.rows);
        Node {
            params: KernelParams::LinearResidual(*self),
            place,
            cost: cost_per_token(weight_bytes(weight), row_bytes, row_flops),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &LinearResidualParams) -> Check {
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("input", p.input, checker.floats(p.weight.cols, 1))?;
    checker.array("x", p.x, checker.floats(p.weight.rows, 1))?;
    checker.rows_of_input(p.rows, &[p.weight])?;
    checker.weight("weight", &p.weight, p.weight.rows, p.weight.cols)
}

/// x + input Wᵀ: (tokens, weight.rows)
pub fn reference(weight: &Matrix<'_>, activations: u32, input: &[f32], x: &[f32]) -> Vec<f64> {
    let mut out = Vec::new();
    for (input, x) in input.chunks_exact(weight.cols).zip(x.chunks_exact(weight.rows)) {
        let input: Vec<f64> = input.iter().map(|value| f64::from(*value)).collect();
        let values = product(weight, &round_activations(&input, activations));
        out.extend(values.iter().zip(x).map(|(value, x)| f64::from(*x) + value));
    }
    out
}
