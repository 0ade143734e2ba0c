//! The CUDA kernel: csrc/linear_residual.cu.

use crate::kernels::check::{Check, Checker};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, linear};
use crate::kernels::params::LinearResidualParams;

pub(in crate::kernels) fn launch(p: &LinearResidualParams, bucket: u32, multiprocessors: u32) -> Launch {
    linear("linear_residual", &[p.weight], bucket, multiprocessors)
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &LinearResidualParams) -> Check {
    pieces::linear(checker, p.rows, &[("weight", p.weight)])?;
    pieces::next_rows(checker, &p.next, p.weight.rows)
}
