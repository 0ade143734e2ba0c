//! The clock of every time in a recording, the machine's monotonic clock in nanoseconds, and whose thread reads it.

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
    const LAST: libc::c_int = 19;
    // SAFETY: three numbers; 0 is the calling thread, of which Linux keeps a priority of its own.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) }; // where it is refused, the thread is as others
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
