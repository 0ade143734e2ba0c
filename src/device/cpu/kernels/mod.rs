//! The CPU's kernels and the table that chooses among them.
//!
//! A kernel is a function over its parameter struct, generic over the instruction set, run by every thread of the pool
//! at once; threads share its work by tiles. Its phases are [`Body`](crate::isa::Body)s: what is below
//! [`Isa::enter`](crate::isa::Isa::enter) is compiled for the instruction set. [`choose`] picks instruction set, tile
//! and phases at capture.

mod activations;
mod attention;
mod embed;
mod linear;
mod linear_residual;
mod math;
mod norm_gate_up;
mod norm_lm_head;
mod norm_qkv;
pub mod pack;
mod product;
mod sample;

use super::worker::Worker;
use crate::device::KernelParams;
use crate::isa::IsaChoice;

/// A kernel's entry for one instruction set; called by all threads of the pool.
pub type KernelFn = unsafe fn(&KernelParams, &Worker);

/// A chosen kernel variant.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The kernel's name in traces: op, formats, instruction set.
    pub name: String,
    /// Tile and phases, for `vitrum graph`.
    pub variant: String,
    /// Barriers inside the node, plus the one that the pool sets at its end.
    pub barriers: u32,
    /// Scratch memory per thread.
    pub scratch_bytes: usize,
    /// The entry.
    pub run: KernelFn,
}

/// The instance of a kernel (a function generic over the instruction set, and maybe constants) for a chosen set.
macro_rules! instance {
    ($isa:expr, $kernel:ident $(, $constant:expr)*) => {{
        use $crate::isa::{IsaChoice, portable::Portable};
        let run: $crate::device::cpu::kernels::KernelFn = match $isa {
            IsaChoice::Portable => $kernel::<Portable $(, { $constant })*>,
            #[cfg(target_arch = "x86_64")]
            IsaChoice::Avx2 => $kernel::<$crate::isa::avx2::Avx2 $(, { $constant })*>,
            #[cfg(target_arch = "x86_64")]
            IsaChoice::Avx512 => $kernel::<$crate::isa::avx512::Avx512<false> $(, { $constant })*>,
            #[cfg(target_arch = "x86_64")]
            IsaChoice::Avx512Bf16 => $kernel::<$crate::isa::avx512::Avx512<true> $(, { $constant })*>,
            #[cfg(not(target_arch = "x86_64"))]
            _ => $kernel::<Portable $(, { $constant })*>,
        };
        run
    }};
}
use instance;

/// Chooses the variant for a node of a graph with this bucket.
pub fn choose(params: &KernelParams, bucket: u32, isa: IsaChoice) -> Choice {
    match params {
        KernelParams::Embed(p) => embed::choose(p, isa),
        KernelParams::NormQkv(p) => norm_qkv::choose(p, bucket, isa),
        KernelParams::LinearResidual(p) => linear_residual::choose(p, bucket, isa),
        KernelParams::NormGateUp(p) => norm_gate_up::choose(p, bucket, isa),
        KernelParams::NormLmHead(p) => norm_lm_head::choose(p, bucket, isa),
        KernelParams::Attention(p) => attention::choose(p, isa),
        KernelParams::Sample(p) => sample::choose(p, isa),
    }
}
