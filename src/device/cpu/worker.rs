//! What a kernel sees of the pool: its share of the tiles, barriers, scratch memory.

use std::cell::{Cell, UnsafeCell};

/// One thread of the pool while it runs a node.
pub struct Worker {
    tiles: Cell<usize>,
    scratch: UnsafeCell<Vec<u64>>,
}

impl Worker {
    /// A pool of one thread.
    pub fn solo(scratch_bytes: usize) -> Worker {
        Worker { tiles: Cell::new(0), scratch: UnsafeCell::new(vec![0; scratch_bytes.div_ceil(8) + 8]) }
    }

    /// This thread's number, from 0.
    pub fn index(&self) -> usize {
        0
    }

    /// Threads in the pool.
    pub fn count(&self) -> usize {
        1
    }

    /// Calls `work` for tiles 0..tiles, each tile on exactly one thread of the pool: whichever asks next.
    /// At most one call between two barriers.
    pub fn for_each_tile(&self, tiles: usize, mut work: impl FnMut(usize)) {
        self.tiles.set(tiles);
        (0..tiles).for_each(&mut work);
    }

    /// Waits until every thread of the pool is here; what they wrote before is visible after.
    pub fn barrier(&self) {}

    /// This thread's scratch memory, aligned to 64 bytes, as large as the node's choice asked for.
    pub fn scratch(&self) -> *mut u8 {
        // SAFETY: only this thread has the worker.
        let words = unsafe { (*self.scratch.get()).as_mut_ptr() };
        words.cast::<u8>().wrapping_add(words.align_offset(64) * size_of::<u64>())
    }
}
