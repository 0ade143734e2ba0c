//! Calls about launches and graphs.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::sync::Arc;

use super::arena::DEVICE;
use super::modules::{Call, Function};
use super::status::{self, Answer, Refusal};
use super::streams::Work;
use super::{Needs, call, give};

/// `CUlaunchConfig` of cuda.h.
#[repr(C)]
pub(super) struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: *mut c_void,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// `CUlaunchAttribute` of cuda.h.
#[repr(C)]
pub(super) struct LaunchAttribute {
    id: c_uint,
    padding: [u8; 4],
    value: [c_int; 16],
}

const _: () = assert!(size_of::<LaunchConfig>() == 56 && size_of::<LaunchAttribute>() == 72, "as in cuda.h");

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: *mut c_void,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> c_int {
    call("cuLaunchKernelEx", Needs::Context, |driver| {
        // SAFETY: null, or a configuration by this function's contract.
        let config = unsafe { config.as_ref() }.ok_or_else(|| refuse("no configuration"))?;
        let function = driver.functions.get(function)?;
        let stream = driver.streams.get(config.stream)?;
        if !extra.is_null() {
            return Err(Refusal::new(status::NOT_SUPPORTED, "`extra` is not modelled"));
        }
        check_sizes(function, config)?;
        // SAFETY: by this function's contract.
        let (chained, params) = unsafe { (read_attributes(config)?, read_params(function, params)?) };
        let launch = Call {
            module: function.module,
            library: function.library,
            kernel: function.name.clone(),
            grid: config.grid,
            block: config.block,
            shared_bytes: config.shared_bytes,
            params,
            chained,
            registers: function.info.registers,
            static_shared_bytes: function.info.static_shared_bytes,
        };
        stream.submit(Work::Kernel(Arc::new(launch)))
    })
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal::new(status::INVALID_VALUE, why)
}

fn check_sizes(function: &Function, config: &LaunchConfig) -> Answer {
    let (name, info) = (&function.name, &function.info);
    let ([grid_x, grid_y, grid_z], block) = (config.grid, config.block);
    if grid_x == 0 || grid_x > 0x7fff_ffff || grid_y == 0 || grid_y > 0xffff || grid_z == 0 || grid_z > 0xffff {
        return Err(refuse(format!("{name}: a grid of {:?}", config.grid)));
    }
    let threads: u64 = block.iter().map(|&size| u64::from(size)).product();
    let max = if info.threads_max == 0 { 1024 } else { u64::from(info.threads_max) };
    if threads == 0 || threads > max || block[2] > 64 {
        return Err(refuse(format!("{name}: a block of {block:?}, at most {max} threads")));
    }
    if config.shared_bytes > function.dynamic_shared_bytes_max {
        let max = function.dynamic_shared_bytes_max;
        return Err(refuse(format!("{name}: {} bytes of shared memory, at most {max} so far", config.shared_bytes)));
    }
    Ok(())
}

/// Whether the launch is chained to the one ahead of it.
///
/// # Safety
/// The configuration has as many attributes as it says.
unsafe fn read_attributes(config: &LaunchConfig) -> Answer<bool> {
    const IGNORE: c_uint = 0;
    const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;
    let mut chained = false;
    for index in 0..config.attribute_count as usize {
        if config.attributes.is_null() {
            return Err(refuse("no attributes, but a number of them"));
        }
        // SAFETY: by this function's contract.
        let attribute = unsafe { &*config.attributes.add(index) };
        match attribute.id {
            IGNORE => {}
            PROGRAMMATIC_STREAM_SERIALIZATION => chained = attribute.value[0] != 0,
            id => return Err(Refusal::new(status::NOT_SUPPORTED, format!("launch attribute {id} is not modelled"))),
        }
    }
    Ok(chained)
}

/// Copies the parameters, of the sizes that the kernel's image says.
///
/// # Safety
/// As for the driver's launch: but pointers that cannot be read are refused.
unsafe fn read_params(function: &Function, params: *mut *mut c_void) -> Answer<Vec<Vec<u8>>> {
    let name = &function.name;
    let host = HostRanges::read();
    let mut all = Vec::new();
    for (index, &(_, bytes)) in function.info.parameters.iter().enumerate() {
        let place = format!("{name}: parameter {index} of {}", function.info.parameters.len());
        let unreadable = || refuse(format!("{place}: {bytes} bytes cannot be read"));
        if params.is_null() {
            return Err(unreadable());
        }
        let pointer = read_host(params as u64 + 8 * index as u64, 8).ok_or_else(unreadable)?;
        let pointer = u64::from_ne_bytes(pointer.try_into().expect("8 bytes"));
        let value = read_host(pointer, bytes as usize).ok_or_else(unreadable)?;
        for (word, bytes) in value.chunks_exact(8).enumerate() {
            let addr = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
            if host.holds(addr) && !DEVICE.is_range_of(addr) {
                let why = format!("{place}, byte {}: {addr:#x} is an address of the host", 8 * word);
                return Err(Refusal::new(status::ILLEGAL_ADDRESS, why));
            }
        }
        all.push(value);
    }
    Ok(all)
}

/// What is mapped in this process.
struct HostRanges(Vec<(u64, u64)>);

impl HostRanges {
    fn read() -> HostRanges {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let range = |line: &str| {
            let (begin, end) = line.split(' ').next()?.split_once('-')?;
            Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        };
        HostRanges(maps.lines().filter_map(range).collect())
    }

    /// Two 32-bit numbers side by side are addresses as well, but hardly of something.
    fn holds(&self, addr: u64) -> bool {
        self.0.iter().any(|&(begin, end)| (begin..end).contains(&addr))
    }
}

/// Bytes of this process; `None` if they are not there.
fn read_host(addr: u64, bytes: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0u8; bytes];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: bytes };
    let remote = libc::iovec { iov_base: addr as *mut c_void, iov_len: bytes };
    // SAFETY: it writes at most the buffer, and says so if the address cannot be read.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if read == bytes as isize {
        return Some(buffer);
    }
    let is_forbidden = matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM | libc::ENOSYS));
    if !is_forbidden || addr == 0 {
        return None;
    }
    // SAFETY: where the system does not let a process look, the caller's word is all there is.
    Some(unsafe { std::slice::from_raw_parts(addr as *const u8, bytes) }.to_vec())
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut *mut c_void,
    graph: *mut c_void,
    flags: c_ulonglong,
) -> c_int {
    call("cuGraphInstantiateWithFlags", Needs::Context, |driver| {
        let graph = driver.graphs.get(graph)?;
        if flags != 0 {
            return Err(Refusal::new(status::NOT_SUPPORTED, format!("flags {flags} are not modelled")));
        }
        let made = Arc::new(graph.instantiate());
        // SAFETY: by this function's contract.
        unsafe { give(executable, driver.executables.insert(made)) }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGraphUpload(executable: *mut c_void, stream: *mut c_void) -> c_int {
    call("cuGraphUpload", Needs::Context, |driver| {
        driver.executables.get(executable)?;
        match &mut driver.streams.get(stream)?.capture {
            Some(capture) => Err(capture.invalidate(status::CAPTURE_UNSUPPORTED, "a graph is uploaded in a capture")),
            None => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGraphLaunch(executable: *mut c_void, stream: *mut c_void) -> c_int {
    call("cuGraphLaunch", Needs::Context, |driver| {
        let executable = driver.executables.get(executable)?.clone();
        for step in &executable.steps {
            if let Work::Kernel(call) = &step.work {
                let gone =
                    |_| Refusal::new(status::INVALID_HANDLE, format!("the module of {} is unloaded", call.kernel));
                driver.modules.get(call.module as *mut c_void).map_err(gone)?;
            }
        }
        driver.streams.get(stream)?.submit(Work::Graph(executable))
    })
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGraphExecDestroy(executable: *mut c_void) -> c_int {
    call("cuGraphExecDestroy", Needs::Context, |driver| driver.executables.remove(executable).map(drop))
}

#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn cuGraphDestroy(graph: *mut c_void) -> c_int {
    call("cuGraphDestroy", Needs::Context, |driver| driver.graphs.remove(graph).map(drop))
}
