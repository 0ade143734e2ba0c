//! Measuring the GPU by kernels that belong to no model: what it can do ([`peaks`]), what it costs to use it
//! ([`overheads`]), and what it costs that the driver's profiling library records ([`activity`]). They are launched on
//! the device's stream while no step is under way, and timed by their own stamps.

mod activity;
mod chains;
mod overheads;
mod peaks;
mod records;

use std::sync::Arc;

use cust_core::DeviceCopy;

pub use self::activity::{CHAIN_NODES, CHAIN_SPINS_NS, ChainRun, ChainTimes, Chains, RecordedRun};
pub use self::overheads::Overheads;
pub use self::records::{RecordCounts, RecordTimes};
use super::context::Context;
use super::driver::filled;
use super::graph::{STAMP_BYTES, launch_with};
use super::modules::Modules;
use super::{CudaDevice, CudaError};
use crate::device::{DeviceError, DevicePeaks, read_pod};
use crate::kernels::cuda::Launch;
use crate::kernels::params::LaunchInfo;

/// The kernels that are launched from here alone, for the test of launches.
#[cfg(test)]
pub(super) const KERNELS: [&str; 6] =
    ["peak_read", "peak_copy", "peak_bf16", "peak_int8", chains::PROBE, overheads::CLOCK_STEP];

/// What a measurement needs of the device.
struct Bench<'a> {
    context: &'a Arc<Context>,
    modules: &'a mut Modules,
    /// One stamp.
    stamp: Temporary,
}

impl<'a> Bench<'a> {
    fn new(device: &'a mut CudaDevice) -> Result<Bench<'a>, DeviceError> {
        device.begin()?;
        device.tickets.assert_idle("measuring");
        let context = &device.context;
        let stamp = Temporary::alloc(context, STAMP_BYTES, "a stamp")?;
        Ok(Bench { context, modules: &mut device.modules, stamp })
    }

    /// Launches a kernel and waits for it: how long it ran, from the begin of its first block to the end of its last.
    ///
    /// # Safety
    /// The kernel takes such parameters, and what they point to is large enough for them.
    unsafe fn duration_ns<P: DeviceCopy>(&mut self, launch: &Launch, params: P) -> Result<u64, CudaError> {
        let function = self.modules.function(&launch.kernel, 0)?;
        let (mut params, mut info) = (params, LaunchInfo { stamp: self.stamp.addr.into() });
        let mut arguments = [std::ptr::from_mut(&mut params).cast(), std::ptr::from_mut(&mut info).cast()];
        self.stamp.zero()?;
        // SAFETY: by this function's contract; the stamp is two cells.
        unsafe { launch_with(self.context, function, launch, &mut arguments, false)? };
        let cells: [u64; 2] = self.stamp.read(0)?;
        duration_ns(cells).ok_or_else(|| CudaError::NoStamp { kernel: launch.kernel.clone() })
    }
}

/// Of a node's two cells, if both were written.
fn duration_ns([start, end]: [u64; 2]) -> Option<u64> {
    if start == 0 || end == 0 { None } else { end.checked_sub(!start) }
}

/// Memory of the GPU for as long as something is measured, zeroed.
struct Temporary {
    context: Arc<Context>,
    addr: u64,
    bytes: usize,
}

impl Temporary {
    fn alloc(context: &Arc<Context>, bytes: usize, purpose: &'static str) -> Result<Temporary, DeviceError> {
        context.bind()?;
        // SAFETY: the driver writes an address.
        let addr = filled(0, |addr| unsafe { context.driver.cuMemAlloc_v2(addr, bytes) });
        let out_of_memory =
            |error| DeviceError::OutOfMemory { bytes, purpose, source: std::io::Error::other(format!("{error}")) };
        let memory = Temporary { context: context.clone(), addr: addr.map_err(out_of_memory)?, bytes };
        memory.zero()?;
        Ok(memory)
    }

    fn zero(&self) -> Result<(), CudaError> {
        // SAFETY: the memory is this value's own.
        unsafe { self.context.driver.cuMemsetD8Async(self.addr, 0, self.bytes, self.context.stream)? };
        Ok(())
    }

    /// Waits for the stream; the numbers that begin at a byte.
    fn read<T: DeviceCopy + Default, const N: usize>(&self, offset: usize) -> Result<[T; N], CudaError> {
        let mut bytes = vec![0u8; size_of::<[T; N]>()];
        assert!(offset + bytes.len() <= self.bytes, "{} bytes at {offset} of {}", bytes.len(), self.bytes);
        let (driver, stream) = (self.context.driver, self.context.stream);
        let from = self.addr + offset as u64;
        // SAFETY: the range is this value's own; the bytes outlive the copy, which is waited for.
        unsafe { driver.cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), stream)? };
        self.context.synchronize()?;
        Ok(std::array::from_fn(|i| read_pod(&bytes[i * size_of::<T>()..])))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: allocated by `alloc`, freed once; the driver waits for what uses it.
        let _ = unsafe { self.context.driver.cuMemFree_v2(self.addr) };
    }
}

/// The middle one; of an even number the upper one of both.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl CudaDevice {
    /// Measures the roofs, and compares the clocks of the GPU and the host anew.
    pub(in crate::device) fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        self.measure_clock()?;
        peaks::measure(&mut Bench::new(self)?)
    }

    /// Measures what it costs to use the device, with no step under way.
    pub fn measure_overheads(&mut self) -> Result<Overheads, DeviceError> {
        overheads::measure(&mut Bench::new(self)?)
    }

    /// Chains of nodes to measure the driver's profiling library by, if it was prepared; with no step under way.
    pub fn chains(&mut self) -> Result<Chains<'_>, DeviceError> {
        Chains::capture(Bench::new(self)?)
    }
}
