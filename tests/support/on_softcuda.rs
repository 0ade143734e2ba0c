//! Commands that find the software driver of tests/softcuda, and their end.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use vitrum::device::cuda::images::IMAGES;

/// How long a command may take before it counts as hanging. Machines are shared.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Whether there is something to test.
pub fn has_kernels() -> bool {
    if IMAGES.is_empty() {
        eprintln!("NOT RUN: vitrum was built without nvcc, and has no CUDA kernels (cargo xtask cuda-toolchain)");
    }
    !IMAGES.is_empty()
}

/// With the software driver first on the loader's path.
pub fn on_softcuda(command: &mut Command) -> &mut Command {
    let old = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(softcuda::library_dir()).chain(std::env::split_paths(&old));
    let path = std::env::join_paths(folders).expect("no folder has a colon in its name");
    command.env("LD_LIBRARY_PATH", path)
}

/// Runs a command to its end, which has to come.
pub fn finished(command: &mut Command) -> Output {
    use std::process::Stdio;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let read = |from: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let (out, err) = (scope.spawn(move || read(&mut out)), scope.spawn(move || read(&mut err)));
        let status = loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                break status;
            }
            if begin.elapsed() > TIMEOUT {
                let _ = child.kill();
                panic!("{command:?} hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [stdout, stderr] = [out, err].map(|thread| thread.join().expect("the pipe was read"));
        Output { status, stdout, stderr }
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
