//! What a kernel sees of the pool: its share of the tiles, barriers, scratch memory.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::barrier::{Barrier, Turn};
use super::signal::{Padded, Patience};

/// What the threads of a pool share while they run a node.
#[derive(Debug)]
pub(crate) struct Crew {
    count: usize,
    barrier: Barrier,
    /// Tiles handed out in this phase and in the one before, by the phase's parity.
    handed_out: [Padded<AtomicUsize>; 2],
}

impl Crew {
    pub(crate) fn new(count: usize, patience: Patience) -> Crew {
        Crew { count, barrier: Barrier::new(count, patience), handed_out: Default::default() }
    }
}

/// One thread of the pool while it runs a node.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    crew: Arc<Crew>,
    turn: Turn,
    /// Barriers crossed.
    phase: Cell<usize>,
    /// Whether tiles were handed out in this phase.
    shared: Cell<bool>,
    scratch: Cell<*mut u8>,
    /// What `scratch` points into, if this is a pool of one thread.
    _own_scratch: Vec<Padded<[u8; 128]>>,
}

impl Worker {
    /// A pool of one thread, with scratch memory of its own.
    pub fn solo(scratch_bytes: usize) -> Worker {
        let mut scratch: Vec<_> = (0..scratch_bytes.div_ceil(128)).map(|_| Padded([0u8; 128])).collect();
        let worker = Worker::new(0, Arc::new(Crew::new(1, Patience::NONE)));
        worker.set_scratch(scratch.as_mut_ptr().cast());
        Worker { _own_scratch: scratch, ..worker }
    }

    pub(crate) fn new(index: usize, crew: Arc<Crew>) -> Worker {
        Worker {
            index,
            crew,
            turn: Turn::default(),
            phase: Cell::new(0),
            shared: Cell::new(false),
            scratch: Cell::new(std::ptr::null_mut()),
            _own_scratch: Vec::new(),
        }
    }

    /// This thread's number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Threads in the pool.
    pub fn count(&self) -> usize {
        self.crew.count
    }

    /// Calls `work` for tiles 0..tiles, each tile on exactly one thread of the pool: each thread's first tile is the
    /// one with its number, the others go to whichever asks next. At most one call between two barriers, with the same
    /// `tiles` on every thread.
    pub fn for_each_tile(&self, tiles: usize, mut work: impl FnMut(usize)) {
        debug_assert!(!self.shared.replace(true), "two calls of for_each_tile without a barrier between them");
        let handed_out = &self.crew.handed_out[self.phase.get() % 2].0;
        let mut tile = self.index;
        while tile < tiles {
            work(tile);
            // Relaxed: only the numbers have to be distinct; what tiles write is ordered by the barrier.
            tile = self.crew.count + handed_out.fetch_add(1, Relaxed);
        }
    }

    /// Waits until every thread of the pool is here; what they wrote before is visible after.
    pub fn barrier(&self) {
        self.crew.barrier.wait(&self.turn);
        let phase = self.phase.get().wrapping_add(1);
        self.phase.set(phase);
        self.shared.set(false);
        if self.index == 0 {
            // The counter of the phase before: everyone has left that phase, and the next use is beyond the next
            // barrier, where this thread arrives after this store.
            self.crew.handed_out[(phase + 1) % 2].0.store(0, Relaxed);
        }
    }

    /// This thread's scratch memory, aligned to 64 bytes, as large as the node's choice asked for.
    pub fn scratch(&self) -> *mut u8 {
        self.scratch.get()
    }

    pub(crate) fn set_scratch(&self, scratch: *mut u8) {
        self.scratch.set(scratch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn each_tile_runs_once_in_every_phase() {
        for count in [1, 2, 3, 7] {
            let crew = Arc::new(Crew::new(count, Patience { spins: 20, yields: 2 }));
            let tiles_of = |phase: usize| [0, 1, count, 3 * count + 1, 100][phase % 5];
            let runs: Vec<Vec<AtomicU32>> =
                (0..200).map(|phase| (0..tiles_of(phase)).map(|_| AtomicU32::new(0)).collect()).collect();
            thread::scope(|scope| {
                for index in 0..count {
                    let (crew, runs) = (crew.clone(), &runs);
                    scope.spawn(move || {
                        let worker = Worker::new(index, crew);
                        for phase in runs {
                            worker.for_each_tile(phase.len(), |tile| {
                                phase[tile].fetch_add(1, Relaxed);
                            });
                            worker.barrier();
                            assert!(phase.iter().all(|runs| runs.load(Relaxed) == 1));
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_solo_worker_has_aligned_scratch() {
        let worker = Worker::solo(1000);
        assert_eq!(worker.scratch() as usize % 64, 0);
        // SAFETY: 1000 bytes were asked for, and no one else uses them.
        unsafe { worker.scratch().write_bytes(7, 1000) };
        assert_eq!((worker.index(), worker.count()), (0, 1));
    }
}
