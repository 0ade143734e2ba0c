//! Runs kernels on the host, every thread of a block as a fiber.
//!
//! Blocks run one after the other, and a thread runs until it waits for others. So races rarely show in a result. They
//! are found for what they are: accesses are noted, and two of one byte by different threads, one of them a write, need
//! something between them that orders them. In shared memory and within a block that is a barrier (simt/races.h); in
//! global memory between blocks an atomic with fences (simt/global_memory.h). In shared memory this finds a race in any
//! order of threads, as long as both accesses are made; in global memory if the write is made first. What else depends
//! on an order shows in the result if it does in one of those in which the emulation can run threads: a test runs a
//! kernel in all of [`Mode::ALL`] and compares each result with the reference. There the two orders are opposite, of
//! threads and of blocks.
//!
//! Errors, each with the kernel's name, the block and, where it is one thread's, the thread: races, copies that are
//! read before they were waited for or are under way when their thread ends, divergent barriers and exchanges of a
//! warp, deadlock, a return without `pdl_wait` in a chained launch, accesses to memory that is not there, addresses
//! that a function of ptx.cuh sees and that are not where they have to be, or not aligned. Shared memory holds 0xff in
//! every byte when a block begins.
//!
//! Not seen: in global memory, a write to what another thread or block may still read; out-of-range accesses that hit
//! other memory; anything about time. Sums of floats in `mma` have an order that no device promises.

mod library;

pub use self::library::{Kernel, Library};

/// When `copy_async` copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// At once.
    Early,
    /// When the thread waits for it; never, if it does not.
    Late,
}

/// In which order threads and blocks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A thread runs until it waits, then the next one does. Blocks and warps from the first to the last.
    RoundRobin,
    /// A warp runs as long as one of its threads can. Blocks and warps from the last to the first.
    Greedy,
}

/// How a launch runs where a device is free to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// When asynchronous copies are made.
    pub copies: Copies,
    /// The order of threads and blocks.
    pub order: Order,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 4] = [
        Mode { copies: Copies::Early, order: Order::RoundRobin },
        Mode { copies: Copies::Early, order: Order::Greedy },
        Mode { copies: Copies::Late, order: Order::RoundRobin },
        Mode { copies: Copies::Late, order: Order::Greedy },
    ];
}

/// One launch of a kernel.
pub struct Launch<'a> {
    /// Its name in C.
    pub kernel: &'a str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The bytes of each parameter, as in `params.h`.
    pub params: &'a [&'a [u8]],
    /// How it runs.
    pub mode: Mode,
    /// It is launched as dependent on the kernel before: every thread has to call `pdl_wait`.
    pub chained: bool,
    /// Ends the kernel before. It is called when every thread of the first block waits for that, so that what the block
    /// reads too early it reads before the other kernel has written it.
    pub predecessor: Option<&'a mut dyn FnMut()>,
    /// Whether so many bytes at this address are memory of the device. Asked where a function of ptx.cuh is given an
    /// address; without it, any address is right.
    pub is_memory: Option<&'a dyn Fn(u64, u64) -> bool>,
}

/// Runs a kernel of csrc as a link of a chain, which all of them are. An error says what the kernel did wrong, where.
///
/// Addresses in the parameters are addresses in this process.
pub fn launch(
    kernel: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: &[&[u8]],
    mode: Mode,
) -> Result<(), String> {
    let (predecessor, is_memory) = (None, None);
    Library::kernels().launch(Launch {
        kernel,
        grid,
        block,
        shared_bytes,
        params,
        mode,
        chained: true,
        predecessor,
        is_memory,
    })
}
