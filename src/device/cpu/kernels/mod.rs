//! The CPU's kernels and the table that chooses among them.
//!
//! A kernel is a function over its parameter struct, generic over the instruction set, run by every thread of the pool
//! at once; threads share its work by tiles. [`choose`] picks instruction set, tile and phases at capture.

pub mod pack;

use super::IsaChoice;
use super::worker::Worker;
use crate::device::KernelParams;

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

/// Chooses the variant for a node of a graph with this bucket.
pub fn choose(params: &KernelParams, bucket: u32, isa: IsaChoice) -> Choice {
    let _ = (params, bucket, isa);
    unimplemented!("kernels")
}
