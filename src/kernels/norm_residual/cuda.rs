//! The CUDA kernel: csrc/norm_residual.cu.

use crate::kernels::check::{Check, Checker, require};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, THREADS};
use crate::kernels::params::{NormResidualParams, QUANT_BLOCK};

pub(in crate::kernels) fn launch(_: &NormResidualParams, bucket: u32, _: u32) -> Launch {
    Launch::of("norm_residual".into(), [bucket, 1, 1], THREADS)
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &NormResidualParams) -> Check {
    require(p.hidden.is_multiple_of(QUANT_BLOCK), "hidden", p.hidden.into(), "whole blocks of 32 columns")?;
    pieces::next_rows(checker, &p.next, p.hidden)
}
