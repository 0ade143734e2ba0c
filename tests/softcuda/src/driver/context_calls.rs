//! Calls about the driver, the device, its context, modules and functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Once;

use super::modules::{Function, KernelInfo, Module, SHARED_BYTES_DEFAULT, SHARED_BYTES_MAX};
use super::state::{self, Driver};
use super::status::{self, Answer, Refusal};
use super::{Needs, call, give, occupancy, settings};

/// The device's name.
const NAME: &CStr = c"vitrum softcuda";
const VERSION: c_int = 13_000;
/// The architecture that it runs.
const ARCH: &str = "sm_90a";

/// Attributes by their numbers in cuda.h: those of a small device of capability 9.0.
const ATTRIBUTES: &[(c_int, c_int)] = &[
    (1, 1024), // threads of a block
    (2, 1024), // x, y, z
    (3, 1024),
    (4, 64),
    (5, 0x7fff_ffff), // blocks of a grid in x, y, z
    (6, 0xffff),
    (7, 0xffff),
    (8, SHARED_BYTES_DEFAULT as c_int),
    (10, 32),        // lanes of a warp
    (13, 1_000_000), // clock, kHz
    (16, 4),         // multiprocessors
    (36, 1_000_000), // memory clock, kHz
    (37, 512),       // memory bus, bits
    (38, 4 << 20),   // L2, bytes
    (39, 2048),      // threads of a multiprocessor
    (41, 1),         // unified addressing
    (75, 9),         // compute capability
    (76, 0),
    (81, 228 << 10), // shared memory of a multiprocessor
    (115, 0),        // memory pools
];

/// The attribute that the environment may change.
const SHARED_BYTES_PER_BLOCK_OPTIN: c_int = 97;

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    settings::begin();
    call("cuInit", Needs::Nothing, |driver| {
        if flags != 0 {
            return Err(Refusal::new(status::INVALID_VALUE, format!("flags {flags}")));
        }
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function takes nothing and may run at any time.
        AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(state::at_exit) }, 0, "atexit"));
        driver.is_initialised = true;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: by this function's contract.
    call("cuDriverGetVersion", Needs::Nothing, |_| unsafe { give(version, VERSION) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: by this function's contract.
    call("cuDeviceGetCount", Needs::Initialised, |_| unsafe { give(count, 1) })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    call("cuDeviceGet", Needs::Initialised, |_| {
        check_device(ordinal)?;
        // SAFETY: by this function's contract.
        unsafe { give(device, 0) }
    })
}

fn check_device(device: c_int) -> Answer {
    if device == 0 { Ok(()) } else { Err(Refusal::new(status::INVALID_DEVICE, format!("device {device} of 1"))) }
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> c_int {
    call("cuDeviceGetName", Needs::Initialised, |_| {
        check_device(device)?;
        let bytes = NAME.to_bytes_with_nul();
        if name.is_null() || (len as usize) < bytes.len() {
            return Err(Refusal::new(status::INVALID_VALUE, format!("{len} bytes for the name")));
        }
        // SAFETY: there is room for the name, by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), name, bytes.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    call("cuDeviceGetAttribute", Needs::Initialised, |_| {
        check_device(device)?;
        let shared = (SHARED_BYTES_PER_BLOCK_OPTIN, settings::settings().shared_bytes_max as c_int);
        let found = ATTRIBUTES.iter().chain([&shared]).find(|(known, _)| *known == attribute);
        let missing = || Refusal::new(status::INVALID_VALUE, format!("attribute {attribute} is not modelled"));
        let (_, number) = found.ok_or_else(missing)?;
        // SAFETY: by this function's contract.
        unsafe { give(value, *number) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRetain", Needs::Initialised, |driver| {
        check_device(device)?;
        if driver.retained == 0 {
            driver.primary = driver.contexts.insert(());
        }
        driver.retained += 1;
        // SAFETY: by this function's contract.
        unsafe { give(context, driver.primary) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRelease_v2", Needs::Initialised, |driver| {
        check_device(device)?;
        if driver.retained == 0 {
            return Err(Refusal::new(status::INVALID_CONTEXT, "the context is not retained"));
        }
        driver.retained -= 1;
        if driver.retained == 0 {
            driver.destroy_context();
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    call("cuCtxSetCurrent", Needs::Initialised, |driver| {
        if !context.is_null() {
            driver.contexts.get(context).map_err(|_| Refusal::new(status::INVALID_CONTEXT, "no context"))?;
        }
        Driver::set_current(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> c_int {
    call("cuModuleLoadData", Needs::Context, |driver| {
        driver.refuse_in_capture("a module is loaded")?;
        // SAFETY: by this function's contract.
        let loaded = unsafe { Module::load(image.cast())? };
        // SAFETY: as above.
        unsafe { give(module, driver.modules.insert(loaded)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuModuleUnload(module: *mut c_void) -> c_int {
    call("cuModuleUnload", Needs::Context, |driver| {
        driver.refuse_in_capture("a module is unloaded")?;
        driver.modules.remove(module)?;
        driver.wait_for_all();
        driver.functions.retain(|function| function.module != module as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    call("cuModuleGetFunction", Needs::Context, |driver| {
        let found = driver.modules.get(module)?;
        if name.is_null() {
            return Err(Refusal::new(status::INVALID_VALUE, "no name"));
        }
        // SAFETY: a string that ends with 0, by this function's contract.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let missing = || Refusal::quiet(status::NOT_FOUND, format!("no kernel {name:?}"));
        let info = found.kernels.get(&name).ok_or_else(missing)?.clone();
        let (module, library) = (module as usize, found.library);
        let dynamic_shared_bytes_max = SHARED_BYTES_DEFAULT.saturating_sub(info.static_shared_bytes);
        let known = driver.functions.find(|known| known.module == module && known.name == name);
        let new = || Function { module, library, name: name.clone(), info, dynamic_shared_bytes_max };
        let handle = known.unwrap_or_else(|| driver.functions.insert(new()));
        // SAFETY: by this function's contract.
        unsafe { give(function, handle) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuFuncSetAttribute(function: *mut c_void, attribute: c_int, value: c_int) -> c_int {
    const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
    const PREFERRED_SHARED_MEMORY_CARVEOUT: c_int = 9;
    call("cuFuncSetAttribute", Needs::Context, |driver| {
        let function = driver.functions.get(function)?;
        let max = SHARED_BYTES_MAX - function.info.static_shared_bytes;
        match (attribute, u32::try_from(value)) {
            (MAX_DYNAMIC_SHARED_SIZE_BYTES, Ok(bytes)) if bytes <= max => function.dynamic_shared_bytes_max = bytes,
            (MAX_DYNAMIC_SHARED_SIZE_BYTES, _) => {
                let why = format!("{value} bytes of dynamic shared memory, at most {max}");
                return Err(Refusal::new(status::INVALID_VALUE, why));
            }
            (PREFERRED_SHARED_MEMORY_CARVEOUT, _) => {}
            _ => return Err(Refusal::new(status::NOT_SUPPORTED, format!("attribute {attribute} is not modelled"))),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    function: *mut c_void,
) -> c_int {
    call("cuFuncGetAttribute", Needs::Context, |driver| {
        let function = driver.functions.get(function)?;
        let KernelInfo { threads_max, static_shared_bytes, registers, .. } = function.info;
        let number = match attribute {
            0 => {
                if threads_max == 0 {
                    1024
                } else {
                    threads_max
                }
            }
            1 => static_shared_bytes,
            3 => 0, // local memory of a thread
            4 => registers,
            8 => function.dynamic_shared_bytes_max,
            _ => return Err(Refusal::new(status::INVALID_VALUE, format!("attribute {attribute} is not modelled"))),
        };
        // SAFETY: by this function's contract.
        unsafe { give(value, number as c_int) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: *mut c_void,
    threads: c_int,
    shared_bytes: usize,
) -> c_int {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", Needs::Context, |driver| {
        let function = driver.functions.get(function)?;
        let threads = match u32::try_from(threads) {
            Ok(threads @ 1..=1024) => threads,
            _ => return Err(Refusal::new(status::INVALID_VALUE, format!("blocks of {threads} threads"))),
        };
        let KernelInfo { threads_max, static_shared_bytes, registers, .. } = function.info;
        // What a launch would refuse fits nowhere.
        let is_refused =
            (threads_max > 0 && threads > threads_max) || shared_bytes > function.dynamic_shared_bytes_max as usize;
        let shared = static_shared_bytes + shared_bytes.min(SHARED_BYTES_MAX as usize) as u32;
        let held = occupancy::blocks(ARCH, threads, registers, shared).expect("an architecture that is known");
        // SAFETY: by this function's contract.
        unsafe { give(blocks, if is_refused { 0 } else { held as c_int }) }
    })
}
