//! Where things are: the tree's root, its target folder, its files.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the tree").to_owned()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The release binary.
pub(crate) fn vitrum() -> PathBuf {
    target().join("release").join("vitrum")
}

/// This program again. Its file may have been replaced since it was started: by a build of the whole workspace, in
/// which its dependencies have other features.
pub(crate) fn this_program() -> io::Result<Command> {
    let path = env::current_exe()?;
    Ok(Command::new(if path.exists() { path } else { PathBuf::from("/proc/self/exe") }))
}

/// Cargo, in the tree's root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    // What `cargo run` sets for this process would make every build of a script look changed.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).args(args);
    command
}

/// The tree's files, relative to its root, without what git and cargo keep there.
pub(crate) fn files() -> io::Result<Vec<PathBuf>> {
    let root = root();
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if name == ".git" || (folder == root && name == "target") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(&root).expect("inside").to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
