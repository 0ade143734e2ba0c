//! The GPU's clock against the host's: node times are told by the host's monotonic clock.
//!
//! Both count nanoseconds, from different origins and a little differently fast. The distance is measured when nothing
//! is under way, between two reads of the host's clock around one of the GPU's. After that it is corrected by what
//! cannot be: no step begins before it is submitted, or ends after its completion has been seen.

use cudarc::driver::sys;

use super::CudaError;
use super::context::Context;
use super::graph::launch_with;
use super::modules::Modules;
use crate::kernels::cuda::Launch;
use crate::kernels::params::LaunchInfo;

/// The kernel that reads the GPU's clock: csrc/device_clock.cu.
#[derive(Debug)]
pub(super) struct ClockKernel {
    function: sys::CUfunction,
    launch: Launch,
}

// SAFETY: the driver's handle may be used on any thread.
unsafe impl Send for ClockKernel {}

impl ClockKernel {
    /// It is used as long as the modules are loaded.
    pub(super) fn find(modules: &mut Modules) -> Result<ClockKernel, CudaError> {
        let launch = Launch::clock();
        Ok(ClockKernel { function: modules.function(&launch.kernel, 0)?, launch })
    }

    /// Has the GPU write its clock, as the begin of a stamp, when the stream comes to it.
    ///
    /// # Safety
    /// A cell is at the address, and the kernel's module is loaded.
    pub(super) unsafe fn read_to(&self, context: &Context, addr: u64) -> Result<(), CudaError> {
        let mut info = LaunchInfo { stamp: addr.into() };
        let mut arguments = [std::ptr::from_mut(&mut info).cast()];
        // SAFETY: by this function's contract; the kernel takes nothing but its launch's info.
        unsafe { launch_with(context, self.function, &self.launch, &mut arguments, false) }
    }
}

/// Host time − GPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClockDistance {
    ns: i64,
}

/// A read of the GPU's clock, and of the host's before and after.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockRead {
    pub(super) host_before_ns: u64,
    pub(super) gpu_ns: u64,
    pub(super) host_after_ns: u64,
}

impl ClockDistance {
    /// From the read that took the shortest time: it is off by half of that at most.
    pub(super) fn measured(reads: &[ClockRead]) -> ClockDistance {
        let best = reads.iter().min_by_key(|read| read.host_after_ns - read.host_before_ns);
        let distance = |read: &ClockRead| {
            let middle_ns = read.host_before_ns + (read.host_after_ns - read.host_before_ns) / 2;
            middle_ns.wrapping_sub(read.gpu_ns) as i64
        };
        ClockDistance { ns: best.map_or(0, distance) }
    }

    /// Host time of a GPU time.
    pub(super) fn host_ns(self, gpu_ns: u64) -> u64 {
        gpu_ns.wrapping_add_signed(self.ns)
    }

    /// Corrects the distance by a step: submitted and seen complete at host times, begun and ended at GPU times. The
    /// completion is seen soon after it; a submission may lie long before the begin. So the end has the last word.
    pub(super) fn correct(&mut self, submitted_ns: u64, gpu_start_ns: u64, gpu_end_ns: u64, completed_ns: u64) {
        let early_ns = submitted_ns.wrapping_sub(self.host_ns(gpu_start_ns)) as i64;
        self.ns += early_ns.max(0);
        let late_ns = self.host_ns(gpu_end_ns).wrapping_sub(completed_ns) as i64;
        self.ns -= late_ns.max(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: [ClockRead; 3] = [
        ClockRead { host_before_ns: 1_000, gpu_ns: 9_000_500, host_after_ns: 3_000 },
        ClockRead { host_before_ns: 4_000, gpu_ns: 9_003_100, host_after_ns: 4_200 },
        ClockRead { host_before_ns: 5_000, gpu_ns: 9_004_000, host_after_ns: 6_000 },
    ];

    #[test]
    fn the_shortest_read_counts() {
        let distance = ClockDistance::measured(&READS);
        assert_eq!(distance.host_ns(9_003_100), 4_100);
        assert_eq!(distance.host_ns(9_003_000), 4_000);
    }

    #[test]
    fn what_cannot_be_corrects_the_distance() {
        let measured = ClockDistance::measured(&READS);
        let host_ns = |correct: (u64, u64, u64, u64)| {
            let mut distance = measured;
            distance.correct(correct.0, correct.1, correct.2, correct.3);
            distance.host_ns(9_003_100)
        };
        assert_eq!(host_ns((4_000, 9_003_100, 9_003_300, 4_400)), 4_100, "all is well");
        assert_eq!(host_ns((4_150, 9_003_100, 9_003_300, 4_400)), 4_150, "it began before it was submitted");
        assert_eq!(host_ns((4_000, 9_003_100, 9_003_300, 4_280)), 4_080, "it ended after it was seen complete");
    }
}
