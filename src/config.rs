//! The process's command line and environment, read once and handed down as values. Nothing else reads either.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::weights::hub;

/// What the process was started with.
#[derive(Debug)]
pub struct Config {
    /// The command line.
    pub args: Vec<OsString>,
    /// Where models come from that are called by a name. Fetched files are kept in `VITRUM_CACHE_DIR`, else in `vitrum`
    /// in the user's cache folder; those of the Hugging Face hub where its own tools keep them.
    pub models: hub::Sources,
    /// Which log lines are printed: `VITRUM_LOG`, in the syntax of `tracing_subscriber::EnvFilter`; else `info`.
    pub log_filter: String,
    /// Where recordings go unless a flag says so: `VITRUM_PROFILE_DIR`.
    pub profile_dir: Option<PathBuf>,
    /// CUDA toolkits, in which NVIDIA's profiling library may lie: `CUDA_HOME`, else what `cargo xtask cuda-toolchain`
    /// has put beside this program.
    pub toolkits: Vec<PathBuf>,
    /// The file of this program, by a name that is right also when another file takes its place.
    pub program: PathBuf,
}

impl Config {
    /// Reads the command line and the environment.
    pub fn from_process() -> Config {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
        let beside = || toolkit_beside(&std::env::current_exe().ok()?);
        let toolkit = variable("CUDA_HOME").map(PathBuf::from).or_else(beside);
        Config {
            args: std::env::args_os().collect(),
            models: hub::Sources {
                cache_dir: variable("VITRUM_CACHE_DIR").map_or_else(|| hub::cache_dir_below(&home), PathBuf::from),
                hugging_face: hub::HubEnvironment::from_variables(variable, &home),
            },
            log_filter: variable("VITRUM_LOG").map_or("info".into(), |filter| filter.to_string_lossy().into_owned()),
            profile_dir: variable("VITRUM_PROFILE_DIR").map(PathBuf::from),
            toolkits: toolkit.into_iter().collect(),
            program: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// The toolkit of cargo's target folder, for a program that lies in a folder of it: the note names its compiler.
fn toolkit_beside(program: &Path) -> Option<PathBuf> {
    let note = std::fs::read_to_string(program.ancestors().nth(2)?.join("cuda-toolchain.txt")).ok()?;
    Some(Path::new(note.trim()).ancestors().nth(2)?.to_owned()).filter(|root| root.is_dir())
}
