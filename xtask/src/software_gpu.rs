//! The GPU in software, tests/softcuda: processes that get its libcuda and libcupti by their LD_LIBRARY_PATH.

use std::env;
use std::fs;
use std::io::Write;
use std::iter;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::{process, tree};

/// The memory of the GPU in bytes: it is this machine's.
const MEMORY_BYTES: u64 = 128 << 20;

/// A folder with the library under the names of libcuda and libcupti.
fn folder() -> PathBuf {
    tree::target().join("release").join("softcuda-library")
}

/// Builds the library.
pub(crate) fn build(log: impl Write + Send + 'static) -> Result<(), String> {
    process::run("cargo build", tree::cargo(&["build", "--release", "-p", "softcuda", "--lib"]), log)?;
    let library = tree::target().join("release").join("libsoftcuda.so");
    let failed = |error| format!("{}: {error}", folder().display());
    fs::create_dir_all(folder()).map_err(failed)?;
    for name in ["libcuda.so", "libcuda.so.1", "libcupti.so", "libcupti.so.13"] {
        let link = folder().join(name);
        fs::remove_file(&link).ok(); // it may be an old one
        symlink(&library, link).map_err(failed)?;
    }
    Ok(())
}

/// Has a command find it in place of a driver.
pub(crate) fn on(command: &mut Command) -> Result<(), String> {
    let old = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let path =
        env::join_paths(iter::once(folder()).chain(env::split_paths(&old))).map_err(|error| error.to_string())?;
    command.env("LD_LIBRARY_PATH", path).env("SOFTCUDA_MEMORY_BYTES", MEMORY_BYTES.to_string());
    Ok(())
}
