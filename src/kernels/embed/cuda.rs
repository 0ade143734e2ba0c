//! The CUDA kernel: csrc/embed.cu.

use crate::kernels::check::{Check, Checker};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, THREADS};
use crate::kernels::params::EmbedParams;

pub(in crate::kernels) fn launch(_: &EmbedParams, bucket: u32, _: u32) -> Launch {
    Launch::of("embed".into(), [bucket, 1, 1], THREADS)
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &EmbedParams) -> Check {
    pieces::weight("weight", &p.weight)?;
    pieces::next_rows(checker, &p.next, p.weight.cols)
}
