//! A CUDA device in software, for tests on machines without one. Never shipped: a dev-dependency of `vitrum`.
//!
//! - `emulate` runs the kernels of csrc on the host. The same `.cu` files are compiled with g++ through the headers in
//!   `simt/`, which give the keywords, intrinsics and PTX functions their meaning in C++.
//! - `driver` is a software libcuda: this crate is also a library with the driver's C ABI, which a process finds by
//!   [`library_dir`].
//! - `cupti` is a software libcupti, in the same library.
//!
//! What passes here is right in what it computes, in its barriers and its waits, as far as the emulation sees (see
//! `emulate`). Nothing here says how fast a device is.

mod cupti;
mod driver;
pub mod emulate;

use std::path::PathBuf;
use std::sync::OnceLock;

const DRIVER: [&str; 2] = ["libcuda.so", "libcuda.so.1"];
const CUPTI: [&str; 2] = ["libcupti.so", "libcupti.so.13"];

/// A folder with the software libcuda and libcupti under the names by which programs look for them. Put first on the
/// LD_LIBRARY_PATH of a process, they are that process's. All names are of one file: a process that opens several has
/// one library with one state.
pub fn library_dir() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| link_library("softcuda-library", &[DRIVER, CUPTI].concat())).clone()
}

/// A folder with the software libcuda alone, for processes that are to find no CUPTI.
pub fn driver_dir() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| link_library("softcuda-driver", &DRIVER)).clone()
}

fn link_library(folder: &str, names: &[&str]) -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let folders: Vec<PathBuf> = program.ancestors().skip(1).take(2).map(PathBuf::from).collect();
    let library = folders.iter().map(|folder| folder.join("libsoftcuda.so")).find(|path| path.exists());
    let library = library.unwrap_or_else(|| panic!("no libsoftcuda.so in {folders:?}"));
    let folder = library.with_file_name(folder);
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    // Others that an earlier build may have left there.
    for other in [DRIVER, CUPTI].as_flattened().iter().filter(|name| !names.contains(name)) {
        let _ = std::fs::remove_file(folder.join(other));
    }
    for name in names {
        let link = folder.join(name);
        if std::fs::read_link(&link).is_ok_and(|target| target == library) {
            continue;
        }
        // Programs run side by side: a link of its own, moved into place.
        let own = folder.join(format!("{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&own);
        std::os::unix::fs::symlink(&library, &own).unwrap_or_else(|error| panic!("{}: {error}", own.display()));
        std::fs::rename(&own, &link).unwrap_or_else(|error| panic!("{}: {error}", link.display()));
    }
    folder
}
