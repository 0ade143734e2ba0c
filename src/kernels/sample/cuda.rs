//! The CUDA kernel: csrc/sample.cu.

use crate::kernels::check::{Check, Checker, require};
use crate::kernels::cuda::check::LIMITS;
use crate::kernels::cuda::launch::Launch;
use crate::kernels::params::SampleParams;

/// Threads of a block, which has one row.
const SAMPLE_THREADS: u32 = 1024;

pub(in crate::kernels) fn launch(_: &SampleParams, bucket: u32, _: u32) -> Launch {
    Launch::of("sample".into(), [bucket, 1, 1], SAMPLE_THREADS)
}

pub(in crate::kernels) fn check(_: &Checker<'_>, p: &SampleParams) -> Check {
    require(p.vocab as usize <= LIMITS.vocab_max, "vocab", p.vocab.into(), "at most 2097152")
}
