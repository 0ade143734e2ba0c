//! The kernels' modules: which of the embedded images a GPU runs, and their functions by name.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::sys;

use super::CudaError;
use super::context::{Context, Gpu};
use super::driver::filled;
use super::images::{self, Image};
use crate::kernels::cuda::Launch;

/// Blocks may have so much shared memory without being asked whether they want it.
const SHARED_BYTES_DEFAULT: u32 = 48 << 10;

/// The modules that were loaded, one per file of csrc.
#[derive(Debug)]
pub(super) struct Modules {
    context: Arc<Context>,
    modules: Vec<Module>,
    functions: HashMap<String, Function>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    handle: sys::CUfunction,
    /// The most dynamic shared memory that it may be launched with.
    shared_bytes: u32,
}

#[derive(Debug)]
struct Module {
    file: &'static str,
    arch: &'static str,
    handle: sys::CUmodule,
}

// SAFETY: the driver's handles may be used on any thread.
unsafe impl Send for Modules {}

/// The image of each file that suits a GPU best.
fn choose(gpu: &Gpu) -> Result<Vec<Image>, CudaError> {
    let (major, minor) = (gpu.capability / 10, gpu.capability % 10);
    let images = images::images_for((major, minor));
    match (images::IMAGES.is_empty(), images.is_empty()) {
        (true, _) => Err(CudaError::NoKernels),
        (false, true) => {
            let mut archs: Vec<_> = images::IMAGES.iter().map(|image| image.arch).collect();
            archs.sort_unstable();
            archs.dedup();
            Err(CudaError::NoImage { gpu: gpu.name.clone(), major, minor, embedded: archs.join(", ") })
        }
        (false, false) => Ok(images),
    }
}

/// Fails if this binary has no kernels for a GPU.
pub(super) fn check(gpu: &Gpu) -> Result<(), CudaError> {
    choose(gpu).map(|_| ())
}

/// The architectures of the images that a GPU runs.
pub(super) fn archs(gpu: &Gpu) -> Result<Vec<&'static str>, CudaError> {
    let mut archs: Vec<_> = choose(gpu)?.iter().map(|image| image.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    Ok(archs)
}

/// Fails if a launch asks for more dynamic shared memory than a block of this GPU may have.
pub(super) fn check_shared(gpu: &Gpu, launch: &Launch) -> Result<(), CudaError> {
    let (bytes, max) = (launch.shared_bytes, gpu.shared_bytes_max);
    if bytes > max { Err(CudaError::SharedMemory { kernel: launch.kernel.clone(), bytes, max }) } else { Ok(()) }
}

impl Modules {
    pub(super) fn load(context: &Arc<Context>) -> Result<Modules, CudaError> {
        context.bind()?;
        // From here on dropping unloads what was loaded.
        let mut loaded = Modules { context: context.clone(), modules: Vec::new(), functions: HashMap::new() };
        for Image { file, arch, bytes } in choose(&context.gpu)? {
            // SAFETY: an image is an ELF file, or text that ends with 0; both say their own length.
            let handle = filled(std::ptr::null_mut(), |module| unsafe {
                context.driver.cuModuleLoadData(module, bytes.as_ptr().cast())
            });
            let handle = handle.map_err(|error| error.of(|| format!("csrc/{file}.cu for {arch}")))?;
            loaded.modules.push(Module { file, arch, handle });
        }
        Ok(loaded)
    }

    /// The architecture of what was loaded: of the first file, if they differ.
    pub(super) fn arch(&self) -> &'static str {
        self.modules.first().map_or("none", |module| module.arch)
    }

    /// A kernel that may be launched with so much dynamic shared memory.
    pub(super) fn function(&mut self, kernel: &str, shared_bytes: u32) -> Result<sys::CUfunction, CudaError> {
        self.context.bind()?;
        let known = self.functions.get(kernel).copied();
        let mut function = match known {
            Some(function) => function,
            None => Function { handle: self.find(kernel)?, shared_bytes: SHARED_BYTES_DEFAULT },
        };
        if shared_bytes > function.shared_bytes {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a loaded module.
            let set =
                unsafe { self.context.driver.cuFuncSetAttribute(function.handle, attribute, shared_bytes as i32) };
            set.map_err(|error| error.of(|| format!("{kernel}, {shared_bytes} bytes of shared memory")))?;
            function.shared_bytes = shared_bytes;
        }
        self.functions.insert(kernel.to_owned(), function);
        Ok(function.handle)
    }

    /// Blocks of such a launch that one multiprocessor holds at once: by its registers, shared memory and threads.
    pub(super) fn blocks_held(&self, function: sys::CUfunction, launch: &Launch) -> Result<u32, CudaError> {
        self.context.bind()?;
        let (threads, shared_bytes) = (launch.threads as i32, launch.shared_bytes as usize);
        // SAFETY: the driver writes one int; the function belongs to a loaded module.
        let blocks = filled(0, |blocks| unsafe {
            self.context.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared_bytes)
        });
        let blocks = blocks.map_err(|error| error.of(|| launch.to_string()))?;
        Ok(blocks.max(0) as u32)
    }

    fn find(&self, kernel: &str) -> Result<sys::CUfunction, CudaError> {
        let name = CString::new(kernel).map_err(|_| CudaError::NoKernel { kernel: kernel.to_owned() })?;
        for module in &self.modules {
            // SAFETY: the module is loaded, and the name ends with 0.
            let found = filled(std::ptr::null_mut(), |function| unsafe {
                self.context.driver.cuModuleGetFunction(function, module.handle, name.as_ptr())
            });
            match found {
                Err(error) if error.is_not_found() => {}
                found => return Ok(found.map_err(|error| error.of(|| format!("{kernel} in csrc/{}.cu", module.file)))?),
            }
        }
        Err(CudaError::NoKernel { kernel: kernel.to_owned() })
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let _ = self.context.bind();
        for module in &self.modules {
            // SAFETY: loaded by `load`, unloaded once; graphs with its functions are not launched any more.
            if let Err(error) = unsafe { self.context.driver.cuModuleUnload(module.handle) } {
                tracing::debug!("csrc/{}.cu: {error}", module.file);
            }
        }
    }
}
