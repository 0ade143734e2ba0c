//! `cargo xtask cuda-toolchain`: NVIDIA's compiler, from Python packages, in an environment under the target folder.
//!
//! It needs no driver and no GPU. Its place is written to a file that build.rs reads and watches (build/nvcc.rs), so
//! that the next build embeds the kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::nvcc;
use crate::process::output;
use crate::tools;
use crate::tree::target;

/// Every package with its version, so that pip takes nothing else: 120 MB to fetch, 340 MB on disk. Of the two
/// disassemblers there is no 13.0; they read its images.
const PACKAGES: &[&str] = &[
    "--no-deps",
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-cupti==13.0.85",
    "nvidia-cuda-nvdisasm==13.2.78",
    "nvidia-cuda-cuobjdump==13.2.78",
];

/// The root of the toolchain (`bin/nvcc`, `include/cuda.h`), installed if it is not there yet.
pub(crate) fn install() -> Result<PathBuf, String> {
    let python = tools::python("cuda", PACKAGES)?;
    tools::gxx()?; // nvcc preprocesses with it
    let mut ask = Command::new(python);
    ask.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
    let root = Path::new(output("python", &mut ask)?.trim()).join("nvidia/cu13");
    let nvcc = root.join("bin/nvcc");
    if !nvcc.is_file() {
        return Err(format!("the packages are installed, but {} is not there", nvcc.display()));
    }
    // Written only if it changes: build.rs watches it.
    let (note, text) = (nvcc::toolchain_note(&target()), nvcc.display().to_string());
    if fs::read_to_string(&note).ok().is_none_or(|old| old != text) {
        fs::write(&note, text).map_err(|error| format!("{}: {error}", note.display()))?;
    }
    Ok(root)
}

/// Installs, and prints where nvcc is.
pub(crate) fn run() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", install()?.join("bin/nvcc").display());
    Ok(())
}
