//! What the CPU's kernels have in common: the threads that run them, prepared rows, products, instruction sets.
//!
//! A kernel is a function over its parameter struct, generic over the instruction set, run by every thread of the pool
//! at once; threads share its work by tiles. Its phases are [`Body`](crate::isa::Body)s: what is below
//! [`Isa::enter`](crate::isa::Isa::enter) is compiled for the instruction set. `choose` of each kernel picks
//! instruction set, tile and phases at capture.

pub(super) mod activations;
pub(crate) mod barrier;
pub(super) mod heads;
pub(super) mod linear;
pub(super) mod math;
pub(super) mod product;
pub(crate) mod signal;
pub(super) mod weights;
pub(crate) mod worker;

pub use self::worker::Worker;
use super::KernelParams;

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
        let run: $crate::kernels::cpu::KernelFn = match $isa {
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
pub(super) use instance;
