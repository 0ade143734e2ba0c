//! A library of kernels that build.rs made, and its launches.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::{Copies, Launch, Order};

const SHARED_BYTES_MAX: u32 = 227 << 10;
const BLOCK_THREADS_MAX: u64 = 1024;
const GRID_MAX: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
const ERROR_BYTES: usize = 1024;

/// `simt::Kernel` of simt/threads.h.
#[repr(C)]
struct RawKernel {
    name: *const c_char,
    call: *const c_void,
    parameters: u32,
    parameter_bytes: *const u32,
    next: *const RawKernel,
}

/// `simt::Launch` of simt/threads.h.
#[repr(C)]
struct RawLaunch {
    kernel: *const RawKernel,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    copies_late: u8,
    greedy: u8,
    chained: u8,
    reserved: u8,
    parameters: *const *const u8,
    host: *mut c_void,
    predecessor: Option<unsafe extern "C" fn(*mut c_void)>,
    is_memory: Option<unsafe extern "C" fn(*mut c_void, u64, u64) -> u8>,
}

type RawLaunchFn = unsafe extern "C" fn(*const RawLaunch, *mut c_char, usize) -> c_int;

/// A kernel that can be launched.
#[derive(Debug)]
pub struct Kernel {
    /// Its name in C.
    pub name: String,
    /// The size of each parameter.
    pub parameter_bytes: Vec<u32>,
    raw: *const RawKernel,
}

/// Kernels compiled for the host.
pub struct Library {
    kernels: Vec<Kernel>,
    launch: RawLaunchFn,
}

// SAFETY: the raw kernels are constants of a library that is never closed, and its launch function may run on several
// threads at once: each launch has a workspace of its own.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The kernels of csrc; of another library of them if the environment names one as SOFTCUDA_KERNELS, as
    /// `cargo xtask soak` does.
    pub fn kernels() -> &'static Library {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let other = std::env::var_os("SOFTCUDA_KERNELS");
            Library::open(other.as_deref().unwrap_or(OsStr::new(env!("SOFTCUDA_KERNELS"))))
        })
    }

    /// The kernels that this crate tests itself with.
    pub fn probes() -> &'static Library {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| Library::open(OsStr::new(env!("SOFTCUDA_PROBES"))))
    }

    fn open(path: &OsStr) -> Library {
        // SAFETY: the library is ours, built as build.rs does; what it runs when it is opened only links its kernels.
        let library = unsafe { libloading::Library::new(path) }.unwrap_or_else(|error| panic!("{error}"));
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: simt/runtime.cc defines the two functions with these types.
        let (first, launch) = unsafe {
            let first = library.get::<unsafe extern "C" fn() -> *const RawKernel>(b"simt_kernels\0");
            (first.expect("simt_kernels")(), *library.get::<RawLaunchFn>(b"simt_launch\0").expect("simt_launch"))
        };
        let (mut kernels, mut next) = (Vec::new(), first);
        // SAFETY: a list of constants that ends with null; each has a name, and as many sizes as it says.
        while let Some(raw) = unsafe { next.as_ref() } {
            // SAFETY: as above.
            let (name, sizes) = unsafe {
                let sizes = std::slice::from_raw_parts(raw.parameter_bytes, raw.parameters as usize);
                (CStr::from_ptr(raw.name).to_str().expect("names are ASCII").to_owned(), sizes.to_vec())
            };
            kernels.push(Kernel { name, parameter_bytes: sizes, raw });
            next = raw.next;
        }
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Library { kernels, launch }
    }

    /// All kernels, by name.
    pub fn all(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel of that name.
    pub fn find(&self, name: &str) -> Option<&Kernel> {
        let index = self.kernels.binary_search_by(|kernel| kernel.name.as_str().cmp(name)).ok()?;
        Some(&self.kernels[index])
    }

    /// Runs a kernel to its end. An error says what is wrong with the launch, or what the kernel did wrong and where.
    pub fn launch(&self, launch: Launch) -> Result<(), String> {
        let name = launch.kernel;
        let kernel = self.find(name).ok_or_else(|| format!("{name}: no kernel of that name"))?;
        check(kernel, &launch)?;
        let parameters: Vec<*const u8> = launch.params.iter().map(|bytes| bytes.as_ptr()).collect();
        let mut host = Host { predecessor: launch.predecessor, is_memory: launch.is_memory };
        let raw = RawLaunch {
            kernel: kernel.raw,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            copies_late: u8::from(launch.mode.copies == Copies::Late),
            greedy: u8::from(launch.mode.order == Order::Greedy),
            chained: u8::from(launch.chained),
            reserved: 0,
            parameters: parameters.as_ptr(),
            predecessor: host.predecessor.is_some().then_some(end_predecessor),
            is_memory: host.is_memory.is_some().then_some(is_memory),
            host: (&raw mut host).cast(),
        };
        let mut error = [0u8; ERROR_BYTES];
        // SAFETY: the struct is the one of simt/threads.h, the parameters have the number and sizes that the kernel
        // says, and `error` has that many bytes. What the kernel does with addresses is what is being tested.
        let failed = unsafe { (self.launch)(&raw, error.as_mut_ptr().cast(), error.len()) };
        match failed {
            0 => Ok(()),
            _ => Err(CStr::from_bytes_until_nul(&error).expect("it is ended").to_string_lossy().into_owned()),
        }
    }
}

/// What the emulation calls back while a launch runs.
struct Host<'a> {
    predecessor: Option<&'a mut dyn FnMut()>,
    is_memory: Option<&'a dyn Fn(u64, u64) -> bool>,
}

unsafe extern "C" fn end_predecessor(host: *mut c_void) {
    // SAFETY: `launch` passed its `Host`, which lives until the launch ends; the calls come one at a time.
    let host = unsafe { &mut *host.cast::<Host>() };
    if let Some(end) = &mut host.predecessor {
        end();
    }
}

unsafe extern "C" fn is_memory(host: *mut c_void, address: u64, bytes: u64) -> u8 {
    // SAFETY: as above.
    let host = unsafe { &*host.cast::<Host>() };
    u8::from(host.is_memory.is_none_or(|is_memory| is_memory(address, bytes)))
}

/// What a driver refuses before it launches.
fn check(kernel: &Kernel, launch: &Launch) -> Result<(), String> {
    let name = launch.kernel;
    let threads: u64 = launch.block.iter().map(|&size| u64::from(size)).product();
    if threads == 0 || threads > BLOCK_THREADS_MAX || launch.block[2] > 64 {
        return Err(format!("{name}: a block of {:?} threads", launch.block));
    }
    if launch.grid.iter().zip(GRID_MAX).any(|(&size, max)| size == 0 || size > max) {
        return Err(format!("{name}: a grid of {:?} blocks", launch.grid));
    }
    if launch.shared_bytes > SHARED_BYTES_MAX {
        return Err(format!("{name}: {} bytes of shared memory, at most {SHARED_BYTES_MAX}", launch.shared_bytes));
    }
    let given: Vec<u32> = launch.params.iter().map(|bytes| bytes.len() as u32).collect();
    if given != kernel.parameter_bytes {
        return Err(format!("{name}: parameters of {given:?} bytes, it takes {:?}", kernel.parameter_bytes));
    }
    Ok(())
}
