//! libcuda, loaded at run time: the functions that this device calls, and errors that name the call.
//!
//! The types are cudarc's. Its own wrappers of the functions panic where the library or a symbol is missing, and turn a
//! status that is newer than the bindings into an enum that has no such value; so the table below is looked up here,
//! all of it when the library is loaded, and a status is a number.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use cudarc::driver::sys::{self, CUresult};
use thiserror::Error;

/// What went wrong in the CUDA driver.
#[derive(Debug, Error)]
pub enum DriverError {
    /// No driver on this machine.
    #[error("there is no CUDA driver: libcuda was not found")]
    NoLibrary,
    /// A driver without a function that is called.
    #[error("the CUDA driver has no {symbol}, which CUDA 13.0 has: {reason}")]
    NoSymbol {
        /// The function.
        symbol: &'static str,
        /// The loader's word.
        reason: String,
    },
    /// A call that failed.
    #[error("{call}{subject}: {name} ({status}): {text}")]
    Call {
        /// The function.
        call: &'static str,
        /// What it was called for, with a space before it; or nothing.
        subject: String,
        /// The driver's number for the error.
        status: i32,
        /// The driver's name for it.
        name: String,
        /// The driver's description of it.
        text: String,
    },
}

impl DriverError {
    /// What was asked for is not there.
    pub(super) fn is_not_found(&self) -> bool {
        let not_found = CUresult::CUDA_ERROR_NOT_FOUND as i32;
        matches!(self, DriverError::Call { status, .. } if *status == not_found)
    }

    /// There is a driver, but nothing to drive.
    pub fn is_no_device(&self) -> bool {
        let no_device = CUresult::CUDA_ERROR_NO_DEVICE as i32;
        matches!(self, DriverError::Call { status, .. } if *status == no_device)
    }

    /// The same error, saying what the call was for.
    pub(super) fn of(self, what: impl FnOnce() -> String) -> DriverError {
        match self {
            DriverError::Call { call, status, name, text, .. } => {
                DriverError::Call { call, subject: format!(" ({})", what()), status, name, text }
            }
            other => other,
        }
    }
}

/// The table: one field and one method per function of the driver. The types are compared with cudarc's.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        #[derive(Clone, Copy)]
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> c_int,)*
        }

        impl Functions {
            fn load() -> Result<Functions, DriverError> {
                // SAFETY: loading libcuda runs its initialisers, which is what they are for.
                let library = unsafe {
                    if !sys::is_culib_present() {
                        return Err(DriverError::NoLibrary);
                    }
                    sys::culib()
                };
                Ok(Functions {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: the type is the function's, as the comparison below holds; the status is an int in C.
                        let found = unsafe { library.get::<unsafe extern "C" fn($($type),*) -> c_int>(symbol) };
                        let error = |reason: String| DriverError::NoSymbol { symbol: stringify!($name), reason };
                        *found.map_err(|reason| error(reason.to_string()))?
                    },)*
                })
            }
        }

        $(const _: unsafe fn($($type),*) -> CUresult = sys::$name;)*

        #[allow(non_snake_case, missing_docs, clippy::too_many_arguments)]
        impl Driver {
            $(
                /// # Safety
                /// The arguments are what the driver's function of this name asks for.
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), DriverError> {
                    // SAFETY: by this function's contract.
                    let status = unsafe { (self.functions.$name)($($argument),*) };
                    if status == 0 { Ok(()) } else { Err(self.error(stringify!($name), status)) }
                }
            )*
        }
    };
}

functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut sys::CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, len: c_int, device: sys::CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: sys::CUdevice_attribute, device: sys::CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut sys::CUcontext, device: sys::CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: sys::CUdevice);
    cuCtxSetCurrent(context: sys::CUcontext);
    cuModuleLoadData(module: *mut sys::CUmodule, image: *const c_void);
    cuModuleUnload(module: sys::CUmodule);
    cuModuleGetFunction(function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char);
    cuFuncSetAttribute(function: sys::CUfunction, attribute: sys::CUfunction_attribute, value: c_int);
    cuFuncGetAttribute(value: *mut c_int, attribute: sys::CUfunction_attribute, function: sys::CUfunction);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: sys::CUfunction,
        threads: c_int,
        shared_bytes: usize
    );
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(addr: *mut sys::CUdeviceptr, bytes: usize);
    cuMemFree_v2(addr: sys::CUdeviceptr);
    cuMemHostAlloc(addr: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(addr: *mut c_void);
    cuMemsetD8Async(addr: sys::CUdeviceptr, value: u8, bytes: usize, stream: sys::CUstream);
    cuMemcpyHtoDAsync_v2(to: sys::CUdeviceptr, from: *const c_void, bytes: usize, stream: sys::CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: sys::CUdeviceptr, bytes: usize, stream: sys::CUstream);
    cuStreamCreate(stream: *mut sys::CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: sys::CUstream);
    cuStreamSynchronize(stream: sys::CUstream);
    cuStreamBeginCapture_v2(stream: sys::CUstream, mode: sys::CUstreamCaptureMode);
    cuStreamGetCaptureInfo_v3(
        stream: sys::CUstream,
        status: *mut sys::CUstreamCaptureStatus,
        id: *mut sys::cuuint64_t,
        graph: *mut sys::CUgraph,
        frontier: *mut *const sys::CUgraphNode,
        edges: *mut *const sys::CUgraphEdgeData,
        count: *mut usize
    );
    cuStreamEndCapture(stream: sys::CUstream, graph: *mut sys::CUgraph);
    cuLaunchKernelEx(
        config: *const sys::CUlaunchConfig,
        function: sys::CUfunction,
        params: *mut *mut c_void,
        extra: *mut *mut c_void
    );
    cuGraphInstantiateWithFlags(exec: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong);
    cuGraphUpload(exec: sys::CUgraphExec, stream: sys::CUstream);
    cuGraphLaunch(exec: sys::CUgraphExec, stream: sys::CUstream);
    cuGraphExecDestroy(exec: sys::CUgraphExec);
    cuGraphDestroy(graph: sys::CUgraph);
    cuEventCreate(event: *mut sys::CUevent, flags: c_uint);
    cuEventDestroy_v2(event: sys::CUevent);
    cuEventRecord(event: sys::CUevent, stream: sys::CUstream);
    cuEventSynchronize(event: sys::CUevent);
}

/// The driver: its functions. It stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Driver {
    functions: Functions,
    words: ErrorWords,
}

type ErrorWord = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// The driver's words for a status. Not of the table, since there a status would be an enum.
#[derive(Clone, Copy)]
struct ErrorWords {
    name: ErrorWord,
    text: ErrorWord,
}

impl ErrorWords {
    fn load() -> Result<ErrorWords, DriverError> {
        let find = |symbol: &'static str| -> Result<ErrorWord, DriverError> {
            // SAFETY: both functions take a status, an int in C, and a place for a string of the driver's own.
            let found = unsafe { sys::culib().get::<ErrorWord>(symbol.as_bytes()) };
            found.map(|found| *found).map_err(|reason| DriverError::NoSymbol { symbol, reason: reason.to_string() })
        };
        Ok(ErrorWords { name: find("cuGetErrorName")?, text: find("cuGetErrorString")? })
    }
}

impl Driver {
    /// Finds libcuda and initialises it.
    pub(super) fn load() -> Result<Driver, DriverError> {
        let functions = Functions::load()?;
        let driver = Driver { functions, words: ErrorWords::load()? };
        // SAFETY: 0 is the only value that the flags take.
        unsafe { driver.cuInit(0)? };
        Ok(driver)
    }

    fn error(&self, call: &'static str, status: c_int) -> DriverError {
        let word = |function: ErrorWord| {
            let mut text = std::ptr::null();
            // SAFETY: the driver writes the address of a string that lives as long as the library, or null.
            unsafe {
                function(status, &mut text);
                if text.is_null() { "?".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            }
        };
        DriverError::Call {
            call,
            subject: String::new(),
            status,
            name: word(self.words.name),
            text: word(self.words.text),
        }
    }

    /// The CUDA version that the driver has, 1000 · major + 10 · minor.
    pub(super) fn version(&self) -> Result<i32, DriverError> {
        // SAFETY: the driver writes one int.
        filled(0, |version| unsafe { self.cuDriverGetVersion(version) })
    }

    /// Devices that this process may use.
    pub(super) fn devices(&self) -> Result<i32, DriverError> {
        // SAFETY: the driver writes one int.
        filled(0, |count| unsafe { self.cuDeviceGetCount(count) })
    }

    /// The device with this number.
    pub(super) fn device(&self, ordinal: i32) -> Result<sys::CUdevice, DriverError> {
        // SAFETY: the driver writes one int.
        filled(0, |device| unsafe { self.cuDeviceGet(device, ordinal) })
    }

    /// A number that a device has.
    pub(super) fn attribute(
        &self,
        device: sys::CUdevice,
        attribute: sys::CUdevice_attribute,
    ) -> Result<i32, DriverError> {
        // SAFETY: the driver writes one int.
        filled(0, |value| unsafe { self.cuDeviceGetAttribute(value, attribute, device) })
    }

    /// A device's name.
    pub(super) fn name(&self, device: sys::CUdevice) -> Result<String, DriverError> {
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most as many bytes as it is told of.
        unsafe { self.cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device)? };
        let name =
            CStr::from_bytes_until_nul(&name).map_or_else(|_| String::new(), |name| name.to_string_lossy().into());
        Ok(name)
    }

    /// Free and total bytes of the current context's device.
    pub(super) fn memory(&self) -> Result<(usize, usize), DriverError> {
        let mut free = 0;
        // SAFETY: the driver writes two numbers.
        let total = filled(0, |total| unsafe { self.cuMemGetInfo_v2(&mut free, total) })?;
        Ok((free, total))
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

/// What `fill` makes of `value`.
pub(super) fn filled<T>(mut value: T, fill: impl FnOnce(*mut T) -> Result<(), DriverError>) -> Result<T, DriverError> {
    fill(&mut value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is a driver it is loaded, with all functions that are called; where there is none, or one without a
    /// device, that is an error and no panic.
    #[test]
    fn a_machine_without_a_driver_is_an_error() {
        let loaded = Driver::load().map(|_| ());
        assert!(!matches!(loaded, Err(DriverError::NoSymbol { .. })), "{loaded:?}");
    }

    #[test]
    fn an_error_names_the_call_and_what_it_was_for() {
        let error = DriverError::Call {
            call: "cuLaunchKernelEx",
            subject: String::new(),
            status: 1,
            name: "CUDA_ERROR_INVALID_VALUE".into(),
            text: "invalid argument".into(),
        };
        assert_eq!(
            error.of(|| "embed, grid 1 x 1 x 1".into()).to_string(),
            "cuLaunchKernelEx (embed, grid 1 x 1 x 1): CUDA_ERROR_INVALID_VALUE (1): invalid argument"
        );
    }
}
