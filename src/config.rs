//! The process's command line and environment, read once and handed down as values. Nothing else reads either.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::weights::hub;

/// What the process was started with.
#[derive(Debug)]
pub struct Config {
    /// The command line.
    pub args: Vec<OsString>,
    /// Where fetched model files are kept: `VITRUM_CACHE_DIR`, else `vitrum` in the user's cache folder.
    pub cache_dir: PathBuf,
    /// Which log lines are printed: `VITRUM_LOG`, in the syntax of `tracing_subscriber::EnvFilter`; else `info`.
    pub log_filter: String,
    /// Where recordings go unless a flag says so: `VITRUM_PROFILE_DIR`.
    pub profile_dir: Option<PathBuf>,
}

impl Config {
    /// Reads the command line and the environment.
    pub fn from_process() -> Config {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let user_cache = || hub::cache_dir_below(&std::env::home_dir().unwrap_or_else(|| PathBuf::from(".")));
        Config {
            args: std::env::args_os().collect(),
            cache_dir: variable("VITRUM_CACHE_DIR").map_or_else(user_cache, PathBuf::from),
            log_filter: variable("VITRUM_LOG").map_or("info".into(), |filter| filter.to_string_lossy().into_owned()),
            profile_dir: variable("VITRUM_PROFILE_DIR").map(PathBuf::from),
        }
    }
}
