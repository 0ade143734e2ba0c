//! The CUDA kernel: csrc/norm_lm_head.cu.

use crate::kernels::check::{Check, Checker};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, linear};
use crate::kernels::params::NormLmHeadParams;

pub(in crate::kernels) fn launch(p: &NormLmHeadParams, bucket: u32, multiprocessors: u32) -> Launch {
    linear("norm_lm_head", &[p.weight], bucket, multiprocessors)
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &NormLmHeadParams) -> Check {
    pieces::linear(checker, p.rows, &[("weight", p.weight)])
}
