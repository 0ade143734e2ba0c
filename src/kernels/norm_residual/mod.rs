//! A norm behind a projection, added to the residual stream.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::{F32_BYTES, cost_per_token, rms_norm};
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::Place;

impl NormResidualParams {
    /// The node: behind attention, or behind the MLP.
    pub fn node(&self, place: Place) -> Node {
        let hidden = f64::from(self.hidden);
        assert_ne!(self.y, self.x, "what is normed is not the residual stream");
        Node {
            params: KernelParams::NormResidual(*self),
            place,
            // y and x in, x out; the norm is four operations a value, the sum one.
            cost: cost_per_token(F32_BYTES * hidden, 3.0 * F32_BYTES * hidden, 5.0 * hidden),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &NormResidualParams) -> Check {
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("y", p.y, checker.floats(p.hidden, 1))?;
    checker.array("gamma", p.gamma, p.hidden as usize * 4)?;
    checker.array("x", p.x, checker.floats(p.hidden, 1))
}

/// x + norm(y): (tokens, hidden), with as many values of gamma as a row has.
pub fn reference(x: &[f32], y: &[f32], gamma: &[f32], eps: f32) -> Vec<f64> {
    let normed = y.chunks_exact(gamma.len()).flat_map(|row| rms_norm(row, gamma, eps));
    x.iter().zip(normed).map(|(x, normed)| f64::from(*x) + normed).collect()
}
