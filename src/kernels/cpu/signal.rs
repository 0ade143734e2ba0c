//! Waiting, the same everywhere in the pool: a counter that only goes up and that threads wait for.
//!
//! A wait escalates: it spins for about [`SPIN_NS`], because the other threads usually come within a microsecond; then
//! it offers its core to others, because cores are shared; then it sleeps, so that an idle pool costs nothing. Whoever
//! advances a counter makes a system call only if somebody sleeps.

use std::sync::atomic::{AtomicU32, Ordering::*};
use std::time::Instant;

/// How long a wait spins before it yields its core.
const SPIN_NS: u32 = 20_000;

/// How often a wait yields its core before it sleeps: some tens of microseconds where nothing else wants to run.
const YIELDS: u32 = 100;

/// How long a wait goes on in which way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Looks at the counter with a pause in between.
    pub(crate) spins: u32,
    /// Looks with a `sched_yield` in between.
    pub(crate) yields: u32,
}

impl Patience {
    /// Sleeps at once: for a thread that would take its core from the one it waits for.
    pub(crate) const NONE: Patience = Patience { spins: 0, yields: 0 };

    /// The whole escalation, for threads that have a core each.
    pub(crate) fn measured() -> Patience {
        const PAUSES: u32 = 256;
        let pauses_ns = || {
            let start = Instant::now();
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            start.elapsed().as_nanos() as u32
        };
        // The least of several: an interruption only makes it longer.
        let least_ns = (0..8).map(|_| pauses_ns()).min().unwrap_or(1).max(1);
        Patience { spins: (SPIN_NS / least_ns).max(1) * PAUSES, yields: YIELDS }
    }

    /// The escalation without spinning: for threads that share cores with those they wait for.
    pub(crate) const YIELDING: Patience = Patience { spins: 0, yields: YIELDS };
}

/// Keeps what one thread writes off the cache lines (two: they are fetched in pairs) that others read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A counter that threads wait for. It wraps; waits concern values less than 2³¹ apart.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    value: Padded<AtomicU32>,
    /// Threads asleep, or about to be. Read by whoever advances, and rarely written: so it stays in their caches.
    sleepers: Padded<AtomicU32>,
    bed: sleep::Bed,
}

impl Counter {
    /// Adds to the counter without waking anyone; what this thread wrote before is visible to those who see the
    /// new value, which is returned.
    pub(crate) fn add(&self, amount: u32) -> u32 {
        self.value.0.fetch_add(amount, SeqCst).wrapping_add(amount)
    }

    /// Wakes the sleepers after an [`add`](Self::add) that they may wait for.
    pub(crate) fn wake(&self) {
        // A sleeper counts itself, then looks at the value; this thread has added to the value and now looks at the
        // count. All four are sequentially consistent, so one of the two sees the other.
        if self.sleepers.0.load(SeqCst) != 0 {
            self.bed.wake_all(&self.value.0);
        }
    }

    /// Whether the counter has come to `target`.
    pub(crate) fn reached(&self, target: u32) -> bool {
        is_at_least(self.value.0.load(Acquire), target)
    }

    /// Waits until the counter has come to `target`; what was written before it was advanced is visible after.
    pub(crate) fn wait(&self, target: u32, patience: Patience) {
        for _ in 0..patience.spins {
            if self.reached(target) {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..patience.yields {
            if self.reached(target) {
                return;
            }
            std::thread::yield_now();
        }
        self.sleep(target);
    }

    #[cold]
    fn sleep(&self, target: u32) {
        self.sleepers.0.fetch_add(1, SeqCst);
        loop {
            let value = self.value.0.load(SeqCst);
            if is_at_least(value, target) {
                break;
            }
            self.bed.sleep_while(&self.value.0, value);
        }
        self.sleepers.0.fetch_sub(1, SeqCst);
    }
}

fn is_at_least(value: u32, target: u32) -> bool {
    value.wrapping_sub(target) as i32 >= 0
}

#[cfg(target_os = "linux")]
mod sleep {
    use std::sync::atomic::AtomicU32;

    /// Linux sleeps on the address itself.
    #[derive(Debug, Default)]
    pub(crate) struct Bed;

    impl Bed {
        /// Sleeps until woken (or for no reason), unless the value is another one by now.
        pub(crate) fn sleep_while(&self, value: &AtomicU32, expected: u32) {
            let no_timeout = std::ptr::null::<libc::timespec>();
            // SAFETY: the address is that of a live, aligned u32, which this call only reads.
            unsafe {
                let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
                libc::syscall(libc::SYS_futex, value.as_ptr(), op, expected, no_timeout);
            }
        }

        pub(crate) fn wake_all(&self, value: &AtomicU32) {
            // SAFETY: the address is that of a live u32; a wake does not access it.
            unsafe {
                let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
                libc::syscall(libc::SYS_futex, value.as_ptr(), op, i32::MAX);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod sleep {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::sync::{Condvar, Mutex, PoisonError};

    /// The lock makes looking at the value and falling asleep one step, as the futex does on Linux.
    #[derive(Debug, Default)]
    pub(crate) struct Bed {
        lock: Mutex<()>,
        woken: Condvar,
    }

    impl Bed {
        pub(crate) fn sleep_while(&self, value: &AtomicU32, expected: u32) {
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if value.load(SeqCst) == expected {
                drop(self.woken.wait(guard));
            }
        }

        pub(crate) fn wake_all(&self, _: &AtomicU32) {
            drop(self.lock.lock());
            self.woken.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn targets_are_compared_across_the_wrap() {
        for (value, target, expected) in [
            (0, 0, true),
            (0, 1, false),
            (1, 0, true),
            (u32::MAX, 0, false),
            (0, u32::MAX, true),
            (3, u32::MAX - 3, true),
        ] {
            assert_eq!(is_at_least(value, target), expected, "{value} at least {target}");
        }
    }

    #[test]
    fn every_sleeper_is_woken_and_sees_what_was_written_before() {
        const ROUNDS: u32 = 2_000;
        let (counter, data) = (Counter::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            for patience in [Patience::NONE, Patience::NONE, Patience::YIELDING, Patience::measured()] {
                let (counter, data) = (&counter, &data);
                scope.spawn(move || {
                    for round in 1..=ROUNDS {
                        counter.wait(round, patience);
                        assert!(data.load(Relaxed) >= round);
                    }
                });
            }
            for round in 1..=ROUNDS {
                data.store(round, Relaxed);
                counter.add(1);
                counter.wake();
                if round % 200 == 0 {
                    thread::sleep(Duration::from_micros(300)); // let all of them fall asleep
                }
            }
        });
    }

    #[test]
    fn spinning_lasts_about_as_long_as_it_should() {
        let Patience { spins, .. } = Patience::measured();
        let spin_ns = || {
            let start = Instant::now();
            Counter::default().wait_at_most(spins);
            start.elapsed().as_nanos()
        };
        let least_ns = (0..50).map(|_| spin_ns()).min().unwrap();
        assert!((5_000..100_000).contains(&least_ns), "{spins} looks took {least_ns} ns");
    }

    impl Counter {
        fn wait_at_most(&self, spins: u32) {
            for _ in 0..spins {
                if self.reached(1) {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }
}
