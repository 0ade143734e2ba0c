//! A projection, added to the residual stream or by itself: x = from + scale · (input Wᵀ + bias).

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
        assert!(self.from.is_null() || self.from == self.x, "the residual stream is added to in place");
        let (adds, biased, scaled) = (!self.from.is_null(), !self.bias.is_null(), self.scale != 1.0);
        // input, x in, x out
        let row_bytes =
            F32_BYTES * (f64::from(weight.cols) + (1.0 + f64::from(u8::from(adds))) * f64::from(weight.rows));
        let operations = [adds, biased, scaled].into_iter().filter(|is_there| *is_there).count();
        let row_flops = product_flops(weight) + operations as f64 * f64::from(weight.rows);
        let bias_bytes = if biased { F32_BYTES * f64::from(weight.rows) } else { 0.0 };
        Node {
            params: KernelParams::LinearResidual(*self),
            place,
            cost: cost_per_token(weight_bytes(weight) + bias_bytes, row_bytes, row_flops),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &LinearResidualParams) -> Check {
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("input", p.input, checker.floats(p.weight.cols, 1))?;
    checker.array("x", p.x, checker.floats(p.weight.rows, 1))?;
    checker.optional("from", p.from, checker.floats(p.weight.rows, 1))?;
    checker.optional("bias", p.bias, p.weight.rows as usize * 4)?;
    checker.rows_of_input(p.rows, &[p.weight])?;
    checker.weight("weight", &p.weight, p.weight.rows, p.weight.cols)
}

/// The input of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// (rows, cols)
    pub weight: Matrix<'a>,
    /// `ACTIVATIONS_*`
    pub activations: u32,
    /// (tokens, cols)
    pub input: &'a [f32],
    /// (tokens, rows)
    pub from: Option<&'a [f32]>,
    /// (rows)
    pub bias: Option<&'a [f32]>,
    /// What the product is multiplied by.
    pub scale: f32,
}

/// from + scale · (input Wᵀ + bias): (tokens, rows)
pub fn reference(r: &Reference<'_>) -> Vec<f64> {
    let mut out = Vec::new();
    for (token, input) in r.input.chunks_exact(r.weight.cols).enumerate() {
        let input: Vec<f64> = input.iter().map(|value| f64::from(*value)).collect();
        let values = product(&r.weight, &round_activations(&input, r.activations));
        let at = |values: Option<&[f32]>, index: usize| values.map_or(0.0, |values| f64::from(values[index]));
        let value = |(row, value): (usize, &f64)| {
            at(r.from, token * r.weight.rows + row) + f64::from(r.scale) * (value + at(r.bias, row))
        };
        out.extend(values.iter().enumerate().map(value));
    }
    out
}
