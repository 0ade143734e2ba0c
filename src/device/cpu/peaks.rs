//! The roofs of a roofline, measured: what all workers together read and compute in loops that do nothing else.

mod loops;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::memory::{aligned_addr, map_huge};
use super::{CpuDevice, Worker};
use crate::device::{DeviceError, DevicePeaks, monotonic_ns};
use crate::isa::IsaChoice;

/// How long one sample lasts.
const SAMPLE_NS: u64 = 4_000_000;

/// Samples of which the median counts: neighbours on shared cores make single ones slow.
const SAMPLES: usize = 21;

/// Bounds of the working set that is to come from memory.
const STREAM_BYTES_MIN: u64 = 64 << 20;
const STREAM_BYTES_MAX: u64 = 256 << 20;

/// Measures all roofs.
pub(super) fn measure(
    device: &mut CpuDevice,
    isa: IsaChoice,
    cache_bytes: u64,
    limit_bytes: u64,
) -> Result<DevicePeaks, DeviceError> {
    // A quarter of the last-level cache is left to everything else that lives in it.
    let in_cache_bytes = cache_bytes / 4 * 3;
    let stream_bytes = (4 * cache_bytes).clamp(STREAM_BYTES_MIN, STREAM_BYTES_MAX).max(2 * cache_bytes);
    if stream_bytes > limit_bytes {
        let source = std::io::ErrorKind::OutOfMemory.into();
        return Err(out_of_memory(stream_bytes, source));
    }
    let map = map_huge(stream_bytes as usize).map_err(|source| out_of_memory(stream_bytes, source))?;
    let addr = aligned_addr(&map);
    device.on_all_workers(&|worker| share(worker, stream_bytes).touch(addr));
    let mut read_gb_s = |bytes: u64| {
        // SAFETY: the map is as large as both working sets, and lives until the end of this function.
        rate(device, bytes as f64, &|worker| unsafe { share(worker, bytes).read(addr, isa) })
    };
    let (memory_gb_s, cache_gb_s) = (read_gb_s(stream_bytes), read_gb_s(in_cache_bytes));
    let half = stream_bytes / 2;
    // SAFETY: as above: one half is read, the other written.
    let copy_gb_s = rate(device, 2.0 * half as f64, &|worker| unsafe { share(worker, half).copy(addr, half) });
    let mut compute = |arithmetic: loops::Arithmetic| {
        let operations = arithmetic.operations as f64 * device.info().workers as f64;
        // SAFETY: the loop is that of the device's instruction set, which this machine has.
        rate(device, operations, &|_| unsafe { (arithmetic.run)() })
    };
    let (float_gflop_s, int8_gop_s) = (compute(loops::f32(isa)), compute(loops::int8(isa)));
    Ok(DevicePeaks { memory_gb_s, cache_gb_s, cache_bytes: in_cache_bytes, copy_gb_s, float_gflop_s, int8_gop_s })
}

fn out_of_memory(bytes: u64, source: std::io::Error) -> DeviceError {
    DeviceError::OutOfMemory { bytes: bytes as usize, purpose: "measuring memory bandwidth", source }
}

/// How much of `amount` is done per nanosecond, if `work` on all workers together does it once: the median of samples.
fn rate(device: &mut CpuDevice, amount: f64, work: &(dyn Fn(&Worker) + Sync)) -> f64 {
    sample_ns(device, 1, work); // caches and clocks warm up
    let repeats = (SAMPLE_NS / sample_ns(device, 1, work)).max(1);
    let mut samples_ns = [(); SAMPLES].map(|()| sample_ns(device, repeats, work));
    samples_ns.sort_unstable();
    amount * repeats as f64 / samples_ns[SAMPLES / 2] as f64
}

/// How long `repeats` of the work take, until the last worker is done.
fn sample_ns(device: &mut CpuDevice, repeats: u64, work: &(dyn Fn(&Worker) + Sync)) -> u64 {
    let elapsed_ns = AtomicU64::new(0);
    device.on_all_workers(&|worker| {
        worker.barrier();
        let start_ns = monotonic_ns();
        (0..repeats).for_each(|_| work(worker));
        worker.barrier();
        if worker.index() == 0 {
            elapsed_ns.store(monotonic_ns() - start_ns, Relaxed);
        }
    });
    elapsed_ns.into_inner().max(1)
}

/// One worker's part of a working set, in whole pages.
struct Share {
    offset: usize,
    bytes: usize,
}

const PAGE_BYTES: usize = 4096;

fn share(worker: &Worker, set_bytes: u64) -> Share {
    let bytes = set_bytes as usize / worker.count() / PAGE_BYTES * PAGE_BYTES;
    Share { offset: worker.index() * bytes, bytes }
}

impl Share {
    /// Makes the system give the pages, near this worker.
    fn touch(&self, addr: u64) {
        for page in (self.offset..self.offset + self.bytes).step_by(PAGE_BYTES) {
            let byte = (addr as *mut u8).wrapping_add(page);
            // SAFETY: the share lies in the mapped set, and shares do not overlap.
            unsafe { byte.write_volatile(1) };
        }
    }

    /// Copies to the same share of the set behind this one, which is `distance` bytes further.
    ///
    /// # Safety
    /// Both sets are mapped at `addr`, and nobody else uses them.
    unsafe fn copy(&self, addr: u64, distance: u64) {
        let from = (addr as *const u8).wrapping_add(self.offset);
        let to = (addr as *mut u8).wrapping_add(self.offset + distance as usize);
        // SAFETY: by the contract of this function; a share is no longer than the distance.
        unsafe { std::ptr::copy_nonoverlapping(from, to, self.bytes) };
    }

    /// # Safety
    /// The set is mapped at `addr`, and the machine has the instruction set.
    unsafe fn read(&self, addr: u64, isa: IsaChoice) {
        let from = (addr as *const u64).wrapping_byte_add(self.offset);
        // SAFETY: by the contract of this function; a share is in whole pages.
        unsafe { loops::read(from, self.bytes, isa) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::device::{Device, DeviceChoice, DeviceOptions};

    #[test]
    fn peaks_are_plausible_and_quick() {
        let options =
            DeviceOptions { choice: DeviceChoice::Cpu, threads: None, isa: None, delay: None, activity: false };
        let mut device = Device::open(&options).unwrap();
        let start = Instant::now();
        let peaks = device.measure_peaks().unwrap();
        let took = start.elapsed();
        println!("{peaks:.1?} in {took:?} on {:?}", device.info());
        // About 0.6 s alone, 2 s where the last-level cache has hundreds of MiB; other tests share the cores.
        assert!(took < Duration::from_secs(20), "{took:?}");
        // No machine is slower by memory than a tenth of the slowest one in use, or faster than a rack of them.
        assert!((0.5..10_000.0).contains(&peaks.memory_gb_s), "{peaks:?}");
        assert!((0.5..10_000.0).contains(&peaks.copy_gb_s), "{peaks:?}");
        assert!((0.5..100_000.0).contains(&peaks.cache_gb_s), "{peaks:?}");
        assert!((0.5..1e6).contains(&peaks.float_gflop_s), "{peaks:?}");
        assert!((0.5..1e6).contains(&peaks.int8_gop_s), "{peaks:?}");
        assert!(peaks.cache_bytes >= 1 << 20, "{peaks:?}");
    }
}
