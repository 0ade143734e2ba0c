//! Tools that tasks need beside Rust: Python packages in environments under the target folder, Node,
//! Chromium, g++, libclang. Each is looked for first and installed only if it is missing.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{output, run};
use crate::tree::target;

/// The Python of an environment that has these packages. What begins with a dash is a flag for pip.
pub(crate) fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = target().join("xtask-venv").join(name);
    let (python, marker) = (folder.join("bin/python"), folder.join("installed.txt"));
    let wanted = packages.join("\n");
    if python.exists() && fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing {} into {}", packages.join(", "), folder.display());
    fs::remove_dir_all(&folder).ok();
    if create_environment(&folder).is_err() {
        // Debian keeps venv in a package of its own.
        install(&["python3", "python3-venv"])?;
        create_environment(&folder)?;
    }
    if !packages.is_empty() {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        run("pip install", pip, io::sink())?;
    }
    fs::write(&marker, wanted).map_err(|error| format!("{}: {error}", marker.display()))?;
    Ok(python)
}

fn create_environment(folder: &Path) -> Result<(), String> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    run("python3 -m venv", venv, io::sink())
}

/// Node, installed if it is missing.
pub(crate) fn node() -> Result<&'static str, String> {
    program("node", "nodejs")
}

/// The browser, installed if it is missing.
pub(crate) fn chromium() -> Result<&'static str, String> {
    program("chromium", "chromium")
}

/// The GNU C++ compiler, installed if it is missing.
pub(crate) fn gxx() -> Result<&'static str, String> {
    program("g++", "g++")
}

fn program(name: &'static str, package: &str) -> Result<&'static str, String> {
    if output(name, Command::new(name).arg("--version")).is_err() {
        install(&[package])?;
    }
    Ok(name)
}

/// The list of Debian packages that there are.
pub(crate) fn update_packages() -> Result<(), String> {
    let mut update = Command::new("apt-get");
    update.args(["update", "--quiet"]);
    run("apt-get update", update, io::sink())
}

/// Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    eprintln!("installing {}", packages.join(", "));
    update_packages()?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run("apt-get install", install, io::sink())
}

/// The folder of a libclang, installed from the Python package if the machine has none; `None` if the loader finds it
/// by itself.
pub(crate) fn libclang() -> Result<Option<PathBuf>, String> {
    if env::var_os("LIBCLANG_PATH").is_some() || system_has_libclang() {
        return Ok(None);
    }
    let python = python("libclang", &["libclang==18.1.1"])?;
    let mut ask = Command::new(python);
    let folder = output("libclang", ask.args(["-c", "import clang, os; print(os.path.dirname(clang.__file__))"]))?;
    Ok(Some(Path::new(folder.trim()).join("native")))
}

fn system_has_libclang() -> bool {
    let is_library =
        |name: &str| name.starts_with("libclang.so") || name.starts_with("libclang-1") && name.contains(".so");
    let versions = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let llvm = versions.filter(|path| path.to_string_lossy().contains("/llvm")).map(|path| path.join("lib"));
    let fixed = ["/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"];
    let mut folders = fixed.iter().map(PathBuf::from).chain(llvm);
    folders.any(|folder| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_str().is_some_and(is_library))
    })
}
