//! What the driver says of a kernel and its launch: registers, shared memory, and how much of the GPU it fills.

use std::ffi::c_int;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute};

use super::CudaError;
use super::context::Context;
use super::driver::filled;
use crate::kernels::cuda::Launch;
use crate::trace::schema::LaunchFacts;

/// The facts of a launch, of whose blocks one multiprocessor holds so many.
pub(super) fn of(
    context: &Context,
    function: sys::CUfunction,
    launch: &Launch,
    blocks_held: u32,
) -> Result<LaunchFacts, CudaError> {
    let number = |attribute: Attribute| -> Result<u32, CudaError> {
        // SAFETY: the driver writes one int; the function belongs to a loaded module.
        let value: c_int = filled(0, |value| unsafe { context.driver.cuFuncGetAttribute(value, attribute, function) })
            .map_err(|error| error.of(|| launch.to_string()))?;
        Ok(value.max(0) as u32)
    };
    Ok(LaunchFacts {
        grid: launch.grid,
        block: [launch.threads, 1, 1],
        registers: number(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
        static_shared_bytes: number(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
        dynamic_shared_bytes: launch.shared_bytes,
        blocks_held,
        multiprocessors: context.gpu.multiprocessors,
        threads_max: context.gpu.multiprocessor_threads,
    })
}
