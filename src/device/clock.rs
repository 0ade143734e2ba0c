//! The clock of every time in a recording, the machine's monotonic clock in nanoseconds, what it has to do with the
//! wall clock, and whose thread reads it.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::trace::session::ClockAnchor;

/// Looks at both clocks for one anchor: most of them take less than 100 ns, and one that the system interrupts is none
/// to keep.
const ANCHOR_TRIES: usize = 16;

/// Now, by the machine's monotonic clock.
///
/// On Linux this is `CLOCK_MONOTONIC`, read without a system call where the kernel's clock source is `tsc`: it counts
/// single nanoseconds and a read costs 28 ns (Zen 3, a virtual machine; measured by benches/device.rs).
#[cfg(unix)]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    debug_assert_eq!(rc, 0, "CLOCK_MONOTONIC always exists");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Now, in nanoseconds since the first call.
#[cfg(not(unix))]
pub fn monotonic_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    1 + ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// This moment on the wall clock and on the monotonic clock: the wall clock is read between two looks at the other, and
/// of several tries the shortest counts. The error is half of what lies between the two looks.
pub fn clock_anchor() -> ClockAnchor {
    let look = || {
        let before_ns = monotonic_ns();
        let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let after_ns = monotonic_ns();
        ClockAnchor {
            unix_ns,
            monotonic_ns: before_ns.midpoint(after_ns),
            error_ns: Some((after_ns - before_ns).div_ceil(2)),
            boot_id: None,
        }
    };
    let best = (1..ANCHOR_TRIES).fold(look(), |best, _| {
        let next = look();
        if next.error_ns < best.error_ns { next } else { best }
    });
    ClockAnchor { boot_id: boot_id(), ..best }
}

/// The run of the operating system, and where it keeps several monotonic clocks the one that this process has.
fn boot_id() -> Option<String> {
    static BOOT_ID: OnceLock<Option<String>> = OnceLock::new(); // it does not change while a process runs
    BOOT_ID.get_or_init(read_boot_id).clone()
}

fn read_boot_id() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = Some(boot.trim()).filter(|boot| !boot.is_empty())?;
    // Time namespaces shift the clock.
    let namespace = std::fs::read_link("/proc/self/ns/time").ok();
    let namespace = namespace.map(|name| format!(" {}", name.display())).unwrap_or_default();
    Some(format!("{boot}{namespace}"))
}

/// The calling thread, as the operating system numbers it; 0 where it has no such number.
pub fn thread_id() -> u32 {
    // SAFETY: gettid has no arguments and cannot fail.
    #[cfg(target_os = "linux")]
    return unsafe { libc::gettid() } as u32;
    #[cfg(not(target_os = "linux"))]
    return 0;
}

/// Lets every other thread of the machine go first from now on, where the operating system knows of that: for work
/// behind the serving.
pub fn yield_to_others() {
    #[cfg(target_os = "linux")]
    {
        const LAST: libc::c_int = 19;
        let idle = libc::sched_param { sched_priority: 0 };
        // Where they are refused, the thread is as others. One of the idle class gives way to a thread that wakes at
        // once, and not at the end of its slice.
        // SAFETY: three numbers; 0 is the calling thread, of which Linux keeps a priority of its own.
        let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) };
        // SAFETY: `idle` is read during the call; 0 is the calling thread.
        let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_and_is_fine_enough_for_nodes_of_a_microsecond() {
        let reads: Vec<u64> = (0..10_000).map(|_| monotonic_ns()).collect();
        assert!(reads.is_sorted());
        let smallest_step = reads.windows(2).map(|w| w[1] - w[0]).filter(|step| *step > 0).min();
        assert!(smallest_step.is_some_and(|step| step < 1_000), "resolution {smallest_step:?} ns");
    }

    #[test]
    fn an_anchor_is_within_its_error_of_both_clocks() {
        let unix_ns = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let (before, before_unix) = (monotonic_ns(), unix_ns());
        let anchor = clock_anchor();
        let (after_unix, after) = (unix_ns(), monotonic_ns());
        assert!((before..=after).contains(&anchor.monotonic_ns), "{before} {anchor:?} {after}");
        assert!((before_unix..=after_unix).contains(&anchor.unix_ns), "{before_unix} {anchor:?} {after_unix}");
        let error_ns = anchor.error_ns.expect("it is measured");
        // Half of the shortest of 16 looks, on a machine that is shared.
        assert!(error_ns > 0 && error_ns < 100_000, "{error_ns} ns");
        if cfg!(target_os = "linux") {
            assert!(anchor.boot_id.as_ref().is_some_and(|boot| boot.len() >= 36 && !boot.contains('\n')), "{anchor:?}");
            assert_eq!(anchor.boot_id, clock_anchor().boot_id);
        }
    }

    #[test]
    fn clock_costs_little() {
        let cost_ns = || {
            let start = monotonic_ns();
            for _ in 0..1_000 {
                std::hint::black_box(monotonic_ns());
            }
            (monotonic_ns() - start) / 1_000
        };
        let cost_ns = (0..20).map(|_| cost_ns()).min().unwrap();
        // A read by system call costs 100 ns and more, with the mitigations of today.
        assert!(cost_ns < 100, "reading the clock costs {cost_ns} ns: stamps would show in what they measure");
    }
}
