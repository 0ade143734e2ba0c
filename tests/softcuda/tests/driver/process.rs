//! Programs that use the driver, each in a process of its own: what one does wrong stays there.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::ffi::{CStr, CString, c_char};
use std::process::Command;

const CHILD: &str = "SOFTCUDA_TEST_CHILD";

/// Runs `body` in a process that has the software driver, and with these variables; what it printed on standard error
/// in lines of the driver. The test that calls this is started again, as `body`'s process.
pub(crate) fn in_process(test: &str, variables: &[(&str, &str)], body: impl FnOnce(&Cuda)) -> Vec<String> {
    if std::env::var_os(CHILD).is_some() {
        body(&Cuda::load());
        // What follows in the test is for the other process.
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command.env("LD_LIBRARY_PATH", softcuda::library_dir()).envs(variables.iter().copied());
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{test}: {}\n{errors}", output.status);
    errors.lines().filter_map(|line| line.strip_prefix("softcuda: ")).map(str::to_owned).collect()
}

/// The driver, as a program finds it.
pub(crate) struct Cuda(libloading::Library);

impl Cuda {
    fn load() -> Cuda {
        // SAFETY: the driver does nothing when it is loaded.
        Cuda(unsafe { libloading::Library::new("libcuda.so") }.expect("a driver"))
    }

    /// A call and its status. All arguments are integers or addresses.
    pub(crate) fn status(&self, name: &str, arguments: &[u64]) -> i32 {
        let symbol = CString::new(name).expect("a name");
        let mut seven = [0u64; 7];
        seven[..arguments.len()].copy_from_slice(arguments);
        let [a, b, c, d, e, f, g] = seven;
        type Function = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64) -> i32;
        // SAFETY: integers and addresses travel in registers, the seventh where a function that takes fewer does not
        // look.
        unsafe { self.0.get::<Function>(symbol.as_bytes_with_nul()).expect(name)(a, b, c, d, e, f, g) }
    }

    /// A function of the library, as a pointer.
    pub(crate) fn symbol<T: Copy>(&self, name: &str) -> T {
        let symbol = CString::new(name).expect("a name");
        // SAFETY: the caller says the type.
        unsafe { *self.0.get::<T>(symbol.as_bytes_with_nul()).expect(name) }
    }

    /// A call that succeeds.
    pub(crate) fn call(&self, name: &str, arguments: &[u64]) {
        let status = self.status(name, arguments);
        assert_eq!(status, 0, "{name}: {}", self.name_of(status));
    }

    /// A call that fails with this status.
    pub(crate) fn refused(&self, status: &str, name: &str, arguments: &[u64]) {
        let got = self.status(name, arguments);
        assert_eq!(self.name_of(got), format!("CUDA_{status}"), "{name}");
    }

    /// A call that gives a handle, address or number through its first argument.
    pub(crate) fn make(&self, name: &str, arguments: &[u64]) -> u64 {
        let mut made = 0u64;
        let mut all = vec![&raw mut made as u64];
        all.extend(arguments);
        self.call(name, &all);
        made
    }

    pub(crate) fn name_of(&self, status: i32) -> String {
        let mut name: *const c_char = std::ptr::null();
        self.status("cuGetErrorName", &[status as u32 as u64, &raw mut name as u64]);
        assert!(!name.is_null(), "status {status} has no name");
        // SAFETY: the driver gave a string of its own.
        unsafe { CStr::from_ptr(name) }.to_str().expect("ASCII").to_owned()
    }
}

/// A context with one stream and the module of this crate's kernels.
pub(crate) struct Program<'a> {
    pub(crate) cuda: &'a Cuda,
    pub(crate) stream: u64,
    pub(crate) module: u64,
}

/// How a kernel is launched, beside its parameters.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    /// The id of a launch attribute with value 1, or 0.
    pub(crate) attribute: u32,
}

pub(crate) const CHAINED: u32 = 6;

impl<'a> Program<'a> {
    pub(crate) fn begin(cuda: &'a Cuda) -> Program<'a> {
        cuda.call("cuInit", &[0]);
        let context = cuda.make("cuDevicePrimaryCtxRetain", &[0]);
        cuda.call("cuCtxSetCurrent", &[context]);
        let stream = cuda.make("cuStreamCreate", &[1]);
        let module = cuda.make("cuModuleLoadData", &[c"softcuda probes".as_ptr() as u64]);
        Program { cuda, stream, module }
    }

    pub(crate) fn end(self) {
        self.cuda.call("cuStreamDestroy_v2", &[self.stream]);
        self.cuda.call("cuModuleUnload", &[self.module]);
        self.cuda.call("cuDevicePrimaryCtxRelease_v2", &[0]);
    }

    pub(crate) fn alloc(&self, bytes: usize) -> u64 {
        self.cuda.make("cuMemAlloc_v2", &[bytes as u64])
    }

    pub(crate) fn free(&self, addr: u64) {
        self.cuda.call("cuMemFree_v2", &[addr]);
    }

    pub(crate) fn upload<T>(&self, to: u64, from: &[T]) {
        let bytes = size_of_val(from) as u64;
        self.cuda.call("cuMemcpyHtoDAsync_v2", &[to, from.as_ptr() as u64, bytes, self.stream]);
    }

    pub(crate) fn download(&self, from: u64, count: usize) -> Vec<u32> {
        let mut to = vec![0u32; count];
        let bytes = 4 * count as u64;
        self.cuda.call("cuMemcpyDtoHAsync_v2", &[to.as_mut_ptr() as u64, from, bytes, self.stream]);
        self.cuda.call("cuStreamSynchronize", &[self.stream]);
        to
    }

    pub(crate) fn function(&self, name: &str) -> u64 {
        let name = CString::new(name).expect("a name");
        self.cuda.make("cuModuleGetFunction", &[self.module, name.as_ptr() as u64])
    }

    /// The status of a launch with parameters of 8 bytes.
    pub(crate) fn launch_status(&self, function: u64, shape: Shape, params: &[u64]) -> i32 {
        let addresses: Vec<u64> = params.iter().map(|param| param as *const u64 as u64).collect();
        // CUlaunchAttribute: id, 4 bytes, a value of 64 bytes. CUlaunchConfig: 7 numbers, then as below.
        let mut attribute = [0u32; 18];
        (attribute[0], attribute[2]) = (shape.attribute, 1);
        let mut config = [0u64; 7];
        let numbers = [shape.blocks, 1, 1, shape.threads, 1, 1, shape.shared_bytes, 0];
        for (word, pair) in config.iter_mut().zip(numbers.chunks(2)) {
            *word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        }
        config[4..].copy_from_slice(&[self.stream, attribute.as_ptr() as u64, u64::from(shape.attribute != 0)]);
        self.cuda.status("cuLaunchKernelEx", &[config.as_ptr() as u64, function, addresses.as_ptr() as u64, 0])
    }

    /// A launch that is taken.
    pub(crate) fn launch(&self, kernel: &str, blocks: u32, threads: u32, attribute: u32, params: &[u64]) {
        let shape = Shape { blocks, threads, shared_bytes: 0, attribute };
        let status = self.launch_status(self.function(kernel), shape, params);
        assert_eq!(status, 0, "{kernel}: {}", self.cuda.name_of(status));
    }

    /// A graph of what `body` puts on the stream: the graph and its executable.
    pub(crate) fn capture(&self, body: impl FnOnce()) -> (u64, u64) {
        self.cuda.call("cuStreamBeginCapture_v2", &[self.stream, 1]);
        body();
        let mut graph = 0u64;
        self.cuda.call("cuStreamEndCapture", &[self.stream, &raw mut graph as u64]);
        let executable = self.cuda.make("cuGraphInstantiateWithFlags", &[graph, 0]);
        (graph, executable)
    }

    pub(crate) fn destroy(&self, (graph, executable): (u64, u64)) {
        self.cuda.call("cuGraphExecDestroy", &[executable]);
        self.cuda.call("cuGraphDestroy", &[graph]);
    }
}
