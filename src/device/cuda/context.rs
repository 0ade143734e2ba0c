//! The GPU, its context and the one stream that everything runs on, in order.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::CudaError;
use super::driver::{Driver, filled};

/// The oldest driver that takes the kernels: they are built for CUDA 13.0.
const DRIVER_VERSION_MIN: i32 = 13_000;

/// An opened GPU: the first that this process may use.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) driver: Driver,
    pub(super) stream: sys::CUstream,
    pub(super) gpu: Gpu,
    context: sys::CUcontext,
    /// Its own among all that this process has opened.
    number: u64,
}

thread_local! {
    /// The number of the context that is current on this thread.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// What the driver says about a GPU.
#[derive(Clone, Debug)]
pub(super) struct Gpu {
    handle: sys::CUdevice,
    pub(super) name: String,
    /// 10 · major + minor
    pub(super) capability: u32,
    pub(super) multiprocessors: u32,
    /// Threads that a multiprocessor holds at once.
    pub(super) multiprocessor_threads: u32,
    pub(super) l2_bytes: u64,
    /// The most dynamic shared memory of a block.
    pub(super) shared_bytes_max: u32,
}

// SAFETY: the driver's handles may be used on any thread; the context is made current on each thread that uses it.
unsafe impl Send for Context {}
// SAFETY: the driver's functions may be called by several threads at once.
unsafe impl Sync for Context {}

impl Gpu {
    /// The first GPU.
    pub(super) fn find(driver: &Driver) -> Result<Gpu, CudaError> {
        let version = driver.version()?;
        if version < DRIVER_VERSION_MIN {
            return Err(CudaError::OldDriver { major: version / 1000, minor: version % 1000 / 10 });
        }
        if driver.devices()? == 0 {
            return Err(CudaError::NoGpu);
        }
        let handle = driver.device(0)?;
        let number = |attribute| -> Result<u32, CudaError> { Ok(driver.attribute(handle, attribute)?.max(0) as u32) };
        let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Gpu {
            handle,
            name: driver.name(handle)?,
            capability: 10 * major + minor,
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            multiprocessor_threads: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            l2_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            shared_bytes_max: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        })
    }

    /// Whether a kernel may begin before the one ahead of it has ended.
    pub(super) fn has_programmatic_launch(&self) -> bool {
        self.capability >= 90
    }
}

impl Context {
    pub(super) fn open(driver: Driver, gpu: Gpu) -> Result<Context, CudaError> {
        // SAFETY: the driver writes a handle.
        let context =
            filled(std::ptr::null_mut(), |context| unsafe { driver.cuDevicePrimaryCtxRetain(context, gpu.handle) })?;
        // From here on dropping gives the context back.
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = 1 + OPENED.fetch_add(1, Relaxed);
        let mut opened = Context { driver, stream: std::ptr::null_mut(), gpu, context, number };
        opened.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes a handle.
        opened.stream = filled(std::ptr::null_mut(), |stream| unsafe { driver.cuStreamCreate(stream, flags) })?;
        Ok(opened)
    }

    /// Makes the context current on this thread: before any call, since a device may have moved.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        if CURRENT.get() != self.number {
            // SAFETY: the context is retained until this is dropped.
            unsafe { self.driver.cuCtxSetCurrent(self.context)? };
            CURRENT.set(self.number);
        }
        Ok(())
    }

    /// Waits until everything on the stream is done.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as this.
        unsafe { self.driver.cuStreamSynchronize(self.stream)? };
        Ok(())
    }
}

impl Drop for Context {
    /// After a failure of the GPU these calls fail too; the process is about to end then.
    fn drop(&mut self) {
        let _ = self.bind();
        // SAFETY: both are this context's own, and nothing uses them later.
        unsafe {
            if !self.stream.is_null() {
                let _ = self.driver.cuStreamDestroy_v2(self.stream);
            }
            let _ = self.driver.cuDevicePrimaryCtxRelease_v2(self.gpu.handle);
        }
    }
}
