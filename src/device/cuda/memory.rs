//! Memory of the GPU, zeroed, at fixed addresses, and pinned memory of the host for copies; freed with the device.

use std::sync::Arc;

use super::CudaError;
use super::context::Context;
use super::driver::filled;
use crate::device::buffers::Buffers;
use crate::device::{DeviceBuffer, DeviceError};

/// The GPU memory of one device.
#[derive(Debug)]
pub(super) struct Memory {
    context: Arc<Context>,
    /// Every allocation, to be freed.
    addrs: Vec<u64>,
    buffers: Buffers,
}

impl Memory {
    pub(super) fn new(context: Arc<Context>) -> Memory {
        Memory { context, addrs: Vec::new(), buffers: Buffers::default() }
    }

    /// The buffers given out so far.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Zeroed memory, aligned to 256 bytes by the driver.
    pub(super) fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        let (driver, stream) = (self.context.driver, self.context.stream);
        let out_of_memory = |error: CudaError| {
            let free = driver.memory().map_or_else(
                |_| String::new(),
                |(free, total)| format!("; {free} of the GPU's {total} bytes are free"),
            );
            let source = std::io::Error::other(format!("{error}{free}"));
            DeviceError::OutOfMemory { bytes, purpose, source }
        };
        self.context.bind()?;
        // No two buffers at one address, not even empty ones.
        let room = bytes.max(1);
        // SAFETY: the driver writes an address.
        let addr = filled(0, |addr| unsafe { driver.cuMemAlloc_v2(addr, room) });
        let addr = addr.map_err(|error| out_of_memory(error.into()))?;
        self.addrs.push(addr);
        // SAFETY: the memory was just allocated with so many bytes.
        unsafe { driver.cuMemsetD8Async(addr, 0, room, stream) }.map_err(CudaError::from)?;
        let buffer = DeviceBuffer { addr, bytes };
        self.buffers.insert(buffer);
        Ok(buffer)
    }

    /// Copies to the GPU and waits.
    ///
    /// # Safety
    /// The range lies in a buffer, and nothing under way uses it.
    pub(super) unsafe fn upload(&self, addr: u64, data: &[u8]) -> Result<(), CudaError> {
        if data.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: by this function's contract; `data` outlives the copy, which is waited for.
        unsafe {
            self.context.driver.cuMemcpyHtoDAsync_v2(addr, data.as_ptr().cast(), data.len(), self.context.stream)?
        };
        self.context.synchronize()
    }

    /// Copies from the GPU and waits.
    ///
    /// # Safety
    /// As for [`Memory::upload`].
    pub(super) unsafe fn download(&self, addr: u64, data: &mut [u8]) -> Result<(), CudaError> {
        if data.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        let (driver, stream) = (self.context.driver, self.context.stream);
        // SAFETY: by this function's contract; `data` outlives the copy, which is waited for.
        unsafe { driver.cuMemcpyDtoHAsync_v2(data.as_mut_ptr().cast(), addr, data.len(), stream)? };
        self.context.synchronize()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = self.context.bind();
        for addr in &self.addrs {
            // SAFETY: allocated by `alloc`, freed once; what used it has ended, or the GPU has failed.
            let _ = unsafe { self.context.driver.cuMemFree_v2(*addr) };
        }
    }
}

/// Memory of the host that the GPU copies from and to by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    addr: *mut u8,
    bytes: usize,
}

impl Pinned {
    pub(super) fn alloc(context: &Arc<Context>, bytes: usize) -> Result<Pinned, CudaError> {
        context.bind()?;
        // SAFETY: the driver writes an address.
        let addr = filled(std::ptr::null_mut(), |addr| unsafe { context.driver.cuMemHostAlloc(addr, bytes, 0) });
        let addr: *mut u8 = addr.map_err(|error| error.of(|| format!("{bytes} bytes of staging")))?.cast();
        // SAFETY: the driver gave so many bytes. They are written once so that they are never read uninitialised.
        unsafe { addr.write_bytes(0, bytes) };
        Ok(Pinned { context: context.clone(), addr, bytes })
    }

    /// The bytes, while no copy writes them.
    ///
    /// # Safety
    /// No copy that writes them is under way.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with so many bytes, initialised, and by this function's contract nobody writes them.
        unsafe { std::slice::from_raw_parts(self.addr, self.bytes) }
    }

    /// A range of the bytes, while no copy uses it.
    ///
    /// # Safety
    /// No copy that reads or writes the range is under way.
    pub(super) unsafe fn bytes_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        // SAFETY: `range` is within the bytes, as for `bytes`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.range(offset, bytes), bytes) }
    }

    /// The address of a range, to copy from or to.
    pub(super) fn range(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset + bytes <= self.bytes, "{bytes} bytes at {offset} of {} pinned bytes", self.bytes);
        self.addr.wrapping_add(offset)
    }
}

// SAFETY: the memory is this value's own, and may be used and freed on any thread.
unsafe impl Send for Pinned {}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: allocated by `alloc`, freed once; copies have ended, or the GPU has failed.
        let _ = unsafe { self.context.driver.cuMemFreeHost(self.addr.cast()) };
    }
}
