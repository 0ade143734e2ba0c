//! What can go wrong on a CUDA device besides running out of memory.

use thiserror::Error;

use super::driver::DriverError;

/// An error of the CUDA device.
#[derive(Debug, Error)]
pub enum CudaError {
    /// A call of the driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A driver that cannot run the kernels.
    #[error("the CUDA driver is for CUDA {major}.{minor}, and the kernels of this binary need 13.0: update the driver")]
    OldDriver {
        /// Of the driver.
        major: i32,
        /// Of the driver.
        minor: i32,
    },
    /// A driver, but nothing to drive.
    #[error("there is no CUDA device that this process may use")]
    NoGpu,
    /// A binary that was built where no nvcc was.
    #[error("this binary was built without CUDA kernels: build it where nvcc is found")]
    NoKernels,
    /// A GPU that none of the embedded images runs on.
    #[error("{gpu} has compute capability {major}.{minor}, and the kernels of this binary are for {embedded}")]
    NoImage {
        /// Its name.
        gpu: String,
        /// Of its capability.
        major: u32,
        /// Of its capability.
        minor: u32,
        /// The architectures that there are images for.
        embedded: String,
    },
    /// A kernel that no embedded image has.
    #[error("the embedded images have no kernel {kernel}")]
    NoKernel {
        /// Its name.
        kernel: String,
    },
    /// A kernel that asks for more shared memory than this GPU has.
    #[error("{kernel} needs {bytes} bytes of shared memory, and a block on this GPU has at most {max}")]
    SharedMemory {
        /// Its name.
        kernel: String,
        /// What it needs.
        bytes: u32,
        /// What there is.
        max: u32,
    },
    /// A kernel whose stamp, by which it is measured, is not whole.
    #[error("{kernel} ran, and did not say when by the GPU's clock")]
    NoStamp {
        /// Its name.
        kernel: String,
    },
    /// A capture that is no chain, though nothing else was captured.
    #[error("a kernel was captured, and the graph has {count} ends instead of one")]
    NoFrontier {
        /// Nodes that nothing depends on.
        count: usize,
    },
    /// The delay of a test.
    #[error("a node can be delayed on the CPU only")]
    NoDelay,
}

impl CudaError {
    /// Nothing failed: this machine has no GPU, or this binary nothing that runs on it.
    pub fn is_absence(&self) -> bool {
        match self {
            CudaError::Driver(DriverError::NoLibrary) | CudaError::NoGpu | CudaError::NoKernels => true,
            CudaError::Driver(error) => error.is_no_device(),
            _ => matches!(self, CudaError::NoImage { .. }),
        }
    }

    /// The same error, saying what a failed call was for.
    pub(super) fn of(self, what: impl FnOnce() -> String) -> CudaError {
        match self {
            CudaError::Driver(error) => CudaError::Driver(error.of(what)),
            other => other,
        }
    }
}
