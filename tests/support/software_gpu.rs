//! The software driver of tests/softcuda for processes of their own: a process finds a driver by its LD_LIBRARY_PATH.
//!
//! A test named `child_…` is ignored, and run by the test that is named as it is without that, on the software driver.

use std::process::Command;
use std::time::Duration;

use vitrum::device::cuda::images::IMAGES;

use super::server::{Ended, run_within};

/// How long a command may take before it counts as hanging. Machines are shared.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Fails where vitrum was built without a compiler for its kernels: then there is nothing to test.
pub fn assert_kernels() {
    assert!(!IMAGES.is_empty(), "vitrum was built without CUDA kernels: run `cargo xtask cuda-toolchain`, then build");
}

/// The folders of LD_LIBRARY_PATH with the software driver first.
pub fn library_path() -> std::ffi::OsString {
    assert_kernels();
    let old = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(softcuda::library_dir()).chain(std::env::split_paths(&old));
    std::env::join_paths(folders).expect("no folder has a colon in its name")
}

/// With the software driver first on the loader's path.
pub fn on_softcuda(mut command: Command) -> Command {
    command.env("LD_LIBRARY_PATH", library_path());
    command
}

/// A `child_` test on the software driver, to be run.
pub fn child(name: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
    child.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    on_softcuda(child)
}

/// Runs a `child_` test on the software driver. It passes, and keeps the driver's rules.
pub fn in_child(name: &str) {
    let ended = finished(child(name));
    let text = ended.stdout + &ended.stderr;
    assert!(ended.code == Some(0) && text.contains("1 passed"), "{name}:\n{text}");
    let refused: Vec<&str> = text.lines().filter(|line| line.starts_with("softcuda:")).collect();
    assert!(refused.is_empty(), "{name} broke rules of the driver: {refused:#?}");
}

/// Runs a command to its end, which has to come.
pub fn finished(command: Command) -> Ended {
    let words = format!("{command:?}");
    let ended = run_within(command, TIMEOUT);
    assert!(ended.after < TIMEOUT, "{words} hangs:\n{}", ended.stderr);
    ended
}
