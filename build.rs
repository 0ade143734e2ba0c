//! Embeds the CUDA kernels: images of csrc/*.cu, for src/device/cuda/images.rs.
//!
//! Without nvcc the build succeeds and has none, unless feature `cuda` asks for them. VITRUM_CUDA_ARCHS says for what
//! they are built: `all`, a list like `sm_80,compute_90`, or `none`. Without it, that is one architecture, and in a
//! release build also PTX.

#[path = "build/nvcc.rs"]
mod nvcc;

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use self::nvcc::{ARCH_DEFAULT, ARCH_PTX, Image, Nvcc};

const ARCHS_VARIABLE: &str = "VITRUM_CUDA_ARCHS";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let target = target(&out);
    watch(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let images = images(&target)?;
    write(&out, &images).map_err(|error| format!("{}: {error}", out.display()))
}

/// The images that this build is to have.
fn images(target: &Path) -> Result<Vec<Image>, String> {
    let is_wanted = env::var_os("CARGO_FEATURE_CUDA").is_some();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let default = if is_release { format!("{ARCH_DEFAULT},{ARCH_PTX}") } else { ARCH_DEFAULT.to_owned() };
    let list = env::var(ARCHS_VARIABLE).unwrap_or(default);
    if list == "none" && is_wanted {
        return Err(format!("feature `cuda` needs kernels, but {ARCHS_VARIABLE} is none"));
    } else if list == "none" {
        return Ok(Vec::new());
    }
    let nvcc = match find(target) {
        Ok(nvcc) => nvcc,
        Err(error) if is_wanted => return Err(format!("feature `cuda`: {error}")),
        Err(_) => return Ok(Vec::new()),
    };
    println!("cargo::rerun-if-changed={}", nvcc.path.display());
    let archs = nvcc::archs(&list).map_err(|error| format!("{ARCHS_VARIABLE}: {error}, none"))?;
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let cache = target.join("cuda-images");
    nvcc.images(Path::new("csrc"), &cache, &archs, jobs)
        .map_err(|error| format!("{error}\n(set {ARCHS_VARIABLE}=none to build without CUDA kernels)"))
}

/// Looks where CUDA_HOME says, where `cargo xtask cuda-toolchain` installed, and on PATH. The error says what was wrong
/// with what there is.
fn find(target: &Path) -> Result<Nvcc, String> {
    let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let note = fs::read_to_string(nvcc::toolchain_note(target)).ok().filter(|path| !path.is_empty());
    let search = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&search).map(|folder| folder.join("nvcc"));
    let places = home.into_iter().chain(note.map(PathBuf::from)).chain(on_path);
    let mut wrong = String::new();
    for path in places.filter(|path| path.is_file()) {
        match Nvcc::at(path) {
            Ok(nvcc) => return Ok(nvcc),
            Err(error) => wrong += &format!(" ({error})"),
        }
    }
    Err(format!("no nvcc was found{wrong}: run `cargo xtask cuda-toolchain`, or set CUDA_HOME to a CUDA toolkit"))
}

/// Has cargo run this again when the kernels, the compiler or what is asked for change; not for PATH, which is another
/// under every tool. The compiler's note has to be there, or cargo would run this every time; it is old, or cargo would
/// run this once more.
fn watch(target: &Path) -> io::Result<()> {
    let note = nvcc::toolchain_note(target);
    if let Ok(file) = File::create_new(&note) {
        file.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    println!("cargo::rerun-if-changed=csrc");
    println!("cargo::rerun-if-changed={}", note.display());
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed={ARCHS_VARIABLE}");
    Ok(())
}

/// Cargo's target folder: `OUT_DIR` is TARGET/[TRIPLE/]PROFILE/build/PACKAGE/out.
fn target(out: &Path) -> PathBuf {
    let triple = env::var_os("TARGET");
    let above = out.ancestors().skip(4).find(|folder| folder.file_name() != triple.as_deref());
    above.unwrap_or(out).to_owned()
}

/// Copies the images to `out`, where they stay as long as this build, and lists them in images.rs.
fn write(out: &Path, images: &[Image]) -> io::Result<()> {
    let mut list = "&[\n".to_owned();
    for Image { file, arch, path, .. } in images {
        let name = format!("{file}.{arch}");
        fs::copy(path, out.join(&name))?;
        list +=
            &format!("    Image {{ file: {file:?}, arch: {arch:?}, bytes: &Aligned(*include_bytes!({name:?})).0 }},\n");
    }
    fs::write(out.join("images.rs"), list + "]\n")
}
