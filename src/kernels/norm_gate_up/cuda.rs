//! The CUDA kernel: csrc/norm_gate_up.cu.

use crate::kernels::check::{Check, Checker, require};
use crate::kernels::cuda::check as pieces;
use crate::kernels::cuda::launch::{Launch, formats, linear};
use crate::kernels::params::NormGateUpParams;

pub(in crate::kernels) fn launch(p: &NormGateUpParams, bucket: u32, multiprocessors: u32) -> Launch {
    // A block has the same outputs of gate and up.
    Launch { formats: formats(&[p.gate, p.up]), ..linear("norm_gate_up", &[p.gate], bucket, multiprocessors) }
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &NormGateUpParams) -> Check {
    pieces::linear(checker, p.rows, &[("gate", p.gate), ("up", p.up)])?;
    require(p.bias.is_null(), "bias", p.bias.addr(), "none: this kernel adds no bias")?;
    pieces::next_rows(checker, &p.next, p.ffn)
}
