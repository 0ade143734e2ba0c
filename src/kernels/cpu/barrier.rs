//! The barrier between phases of a node and between nodes: all threads of the pool, one atomic addition each.

use std::cell::Cell;

use super::signal::{Counter, Patience};

/// A barrier for a fixed number of threads.
///
/// One counter counts arrivals for ever: barrier number k is open when k · members threads have arrived, so nothing is
/// reset, there is no sense to flip, and the last arrival itself is what the others wait for. With two threads a
/// crossing is two transfers of one cache line, one each way.
#[derive(Debug)]
pub(crate) struct Barrier {
    arrivals: Counter,
    members: u32,
    patience: Patience,
}

/// A thread's place in the sequence of barriers: the arrivals that had opened the last one it crossed.
#[derive(Debug, Default)]
pub(crate) struct Turn(Cell<u32>);

impl Barrier {
    pub(crate) fn new(members: usize, patience: Patience) -> Barrier {
        Barrier { arrivals: Counter::default(), members: members as u32, patience }
    }

    /// Waits until all members are here. What they wrote before is visible after.
    pub(crate) fn wait(&self, turn: &Turn) {
        let opens_at = turn.0.get().wrapping_add(self.members);
        turn.0.set(opens_at);
        if self.arrivals.add(1) == opens_at {
            self.arrivals.wake();
        } else {
            self.arrivals.wait(opens_at, self.patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A small generator, so that the delays are the same in every run.
    fn random(state: &mut u32) -> u32 {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state
    }

    /// Every thread writes its round before the barrier and must find everyone's after it.
    fn stress(members: usize, rounds: u32, patience: Patience, delays: bool) {
        let barrier = Barrier::new(members, patience);
        let written: Vec<AtomicU32> = (0..members).map(|_| AtomicU32::new(0)).collect();
        thread::scope(|scope| {
            for member in 0..members {
                let (barrier, written) = (&barrier, &written);
                scope.spawn(move || {
                    let (turn, mut seed) = (Turn::default(), member as u32 + 1);
                    for round in 1..=rounds {
                        match random(&mut seed) % 64 {
                            0 if delays => thread::sleep(Duration::from_micros(50)),
                            1..8 if delays => thread::yield_now(),
                            _ => {}
                        }
                        // Relaxed: only the barrier orders these.
                        written[member].store(round, Relaxed);
                        barrier.wait(&turn);
                        for other in written {
                            let seen = other.load(Relaxed);
                            assert!(seen == round || seen == round + 1, "round {round}: saw {seen}");
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn one_thread_never_waits() {
        stress(1, 1_000, Patience::NONE, false);
    }

    #[test]
    fn more_threads_than_cores_with_random_delays() {
        let cores = thread::available_parallelism().map_or(2, |n| n.get());
        stress(4 * cores, 500, Patience { spins: 50, yields: 2 }, true);
    }

    #[test]
    fn threads_that_sleep_at_once() {
        stress(5, 1_000, Patience::NONE, true);
    }

    #[test]
    fn two_threads_that_spin() {
        stress(2, 50_000, Patience { spins: 1_000, yields: 10 }, false);
    }

    #[test]
    fn the_count_of_arrivals_may_wrap() {
        let near_the_end = u32::MAX - 4;
        let barrier = Barrier::new(3, Patience::NONE);
        barrier.arrivals.add(near_the_end);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let turn = Turn(Cell::new(near_the_end));
                    (0..100).for_each(|_| barrier.wait(&turn));
                    assert_eq!(turn.0.get(), near_the_end.wrapping_add(300));
                });
            }
        });
    }
}
