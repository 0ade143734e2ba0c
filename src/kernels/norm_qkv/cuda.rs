//! The CUDA kernel: csrc/norm_qkv.cu.

use crate::kernels::check::{Check, Checker};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, linear};
use crate::kernels::params::NormQkvParams;

pub(in crate::kernels) fn launch(p: &NormQkvParams, bucket: u32, multiprocessors: u32) -> Launch {
    linear("norm_qkv", &[p.wq, p.wk, p.wv], bucket, multiprocessors)
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &NormQkvParams) -> Check {
    pieces::linear(checker, p.rows, &[("wq", p.wq), ("wk", p.wk), ("wv", p.wv)])?;
    pieces::kv_cache(&p.kv)
}
