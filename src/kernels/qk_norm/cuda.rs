//! The CUDA kernel: csrc/qk_norm.cu.

use crate::kernels::check::{Check, Checker};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, THREADS};
use crate::kernels::params::QkNormParams;

/// A block has the queries of a token, or its keys.
pub(in crate::kernels) fn launch(_: &QkNormParams, bucket: u32, _: u32) -> Launch {
    Launch::of("qk_norm".into(), [bucket, 2, 1], THREADS)
}

pub(in crate::kernels) fn check(_: &Checker<'_>, p: &QkNormParams) -> Check {
    pieces::kv_cache(&p.kv)
}
