//! Tools that tasks need beside Rust: Python packages in environments under the target folder, Node,
//! Chromium, g++, libclang. Each is looked for first and installed only if it is missing.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::process::{output, run};
use crate::tree::target;

/// The Python of an environment that has these packages. What begins with a dash is a flag for pip.
pub(crate) fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    // Whoever else installs the same environment is waited for.
    static ENVIRONMENTS: Mutex<BTreeMap<String, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    let environment =
        ENVIRONMENTS.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone();
    let _mine = environment.lock().unwrap_or_else(PoisonError::into_inner);
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
        run_patiently("pip install", || {
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
            pip
        })?;
    }
    fs::write(&marker, wanted).map_err(|error| format!("{}: {error}", marker.display()))?;
    Ok(python)
}

/// Runs a command that downloads: what breaks off is begun again, twice.
fn run_patiently(what: &str, command: impl Fn() -> Command) -> Result<(), String> {
    for pause in [Duration::from_secs(5), Duration::from_secs(20)] {
        match run(what, command(), io::sink()) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("{error}\nonce more in {} s", pause.as_secs()),
        }
        thread::sleep(pause);
    }
    run(what, command(), io::sink())
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

/// Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<(), String> {
    eprintln!("installing {}", packages.join(", "));
    run_patiently("apt-get update", || apt_get(&["update", "--quiet"]))?;
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    run_patiently("apt-get install", || apt_get(&[&install, packages].concat()))
}

/// apt-get, which waits for another one that runs.
fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
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
