//! Models of the Hugging Face hub, called `owner/name`: found in the cache that the hub's own tools share, or fetched.
//!
//! The crate hf-hub moves bytes: it asks for a file's etag, follows redirects, goes on with a file that was cut off,
//! and uses the proxy that `ALL_PROXY`, `HTTPS_PROXY` or `HTTP_PROXY` names. What it does not do is done here: which
//! files make a model, one commit for all of them, `HF_HUB_OFFLINE`, waiting for another process, hashes, and words for
//! what went wrong. A branch's name is written into the cache only when all files of its commit are there.

mod cache;
mod error;
mod files;
mod names;
mod remote;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use self::cache::ModelCache;
pub use self::error::{HuggingFaceError, ModelAt};
use self::files::{RemoteFile, Selection};
pub use self::names::{ModelId, Revision};
use self::remote::{Listing, Remote};
use super::lock::Lock;
use crate::console;

const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, and what is known of it on this machine.
#[derive(Clone, Debug)]
pub struct HubEnvironment {
    /// The cache: folders `models--owner--name`.
    pub cache_dir: PathBuf,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<Token>,
    /// Nothing is asked for: what is in the cache is all that there is.
    pub is_offline: bool,
}

/// An access token; it is not printed.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token as the hub gives it.
    pub fn new(text: impl Into<String>) -> Token {
        Token(text.into())
    }
}

impl HubEnvironment {
    /// Reads the variables that the hub's own tools read: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. A token that no variable gives is in the file that signing in
    /// writes.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>, home: &Path) -> HubEnvironment {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_owned());
        let user_cache = || path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
        let cache_dir = path("HF_HUB_CACHE").unwrap_or_else(|| hf_home.join("hub"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let stored = || fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned());
        let is_true = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        HubEnvironment {
            // Links of the cache are relative to it, and errors name it.
            cache_dir: std::path::absolute(&cache_dir).unwrap_or(cache_dir),
            endpoint: text("HF_ENDPOINT").map_or(ENDPOINT.into(), |url| url.trim_end_matches('/').to_owned()),
            token: text("HF_TOKEN").or_else(stored).filter(|token| !token.is_empty()).map(Token),
            is_offline: text("HF_HUB_OFFLINE").is_some_and(is_true),
        }
    }
}

/// The folder of a model's files at a revision. A network is asked once which commit the revision is; files that the
/// cache has are not fetched again. Without a network, a model that is whole in the cache is taken from there.
pub(super) fn snapshot(
    model: &ModelId,
    revision: &Revision,
    environment: &HubEnvironment,
) -> Result<PathBuf, HuggingFaceError> {
    let cache = ModelCache::new(&environment.cache_dir, model);
    let cached = cache.whole_snapshot(revision);
    let at = ModelAt { id: model.to_string(), revision: revision.to_string() };
    if environment.is_offline {
        let cache = environment.cache_dir.clone();
        return cached.map_err(|missing| HuggingFaceError::Offline { at, cache, missing });
    }
    match cached {
        // A commit's files never change.
        Ok(folder) if revision.is_commit() => Ok(folder),
        cached => match (fetch(at, revision, &cache, environment), cached) {
            (Err(error), Ok(folder)) if error.is_of_the_network() => {
                console::note(&format!("{error}; what the cache has is used: {}", folder.display()));
                Ok(folder)
            }
            (fetched, _) => fetched,
        },
    }
}

/// Fetches what the cache does not have.
fn fetch(
    at: ModelAt,
    revision: &Revision,
    cache: &ModelCache,
    environment: &HubEnvironment,
) -> Result<PathBuf, HuggingFaceError> {
    let remote = Remote::new(at, environment)?;
    let Listing { commit, files } = remote.list()?;
    let selection = Selection::of(&files, remote.at())?;
    let folder = cache.snapshot(&commit);
    if !has_all(&selection, &files, &folder) {
        let io = |path: &Path, source| remote.io_error(path, source);
        let lock_file = cache.lock_file();
        let lock_folder = lock_file.parent().unwrap_or(&lock_file);
        fs::create_dir_all(lock_folder).map_err(|source| io(lock_folder, source))?;
        let _lock = Lock::take(&lock_file, cache.folder()).map_err(|source| io(&lock_file, source))?;
        console::note(&format!("fetching {} (commit {commit}) into {}", remote.at(), cache.folder().display()));
        for file in &selection.small {
            fetch_one(&remote, cache, &commit, file)?;
        }
        for shard in weights(&selection, &files, &folder, remote.at())? {
            fetch_one(&remote, cache, &commit, shard)?;
        }
    }
    match cache.note_commit(revision, &commit) {
        // A cache that others fill may be read-only: then it is looked up next time, too.
        Err(error) if !matches!(error.kind(), std::io::ErrorKind::StorageFull) => {
            tracing::debug!("{revision} is not noted in {}: {error}", cache.folder().display());
            Ok(folder)
        }
        Err(error) => Err(remote.io_error(cache.folder(), error)),
        Ok(()) => Ok(folder),
    }
}

/// Whether nothing is to be fetched.
fn has_all(selection: &Selection<'_>, files: &[RemoteFile], folder: &Path) -> bool {
    let at = ModelAt::default(); // its errors are not seen
    selection.small.iter().all(|file| file.is_in(folder))
        && weights(selection, files, folder, &at).is_ok_and(|files| files.iter().all(|file| file.is_in(folder)))
}

/// The files with weights; an index that names them is in the folder already.
fn weights<'a>(
    selection: &Selection<'a>,
    files: &'a [RemoteFile],
    folder: &Path,
    at: &ModelAt,
) -> Result<Vec<&'a RemoteFile>, HuggingFaceError> {
    if let Some(file) = selection.weights {
        return Ok(vec![file]);
    }
    let index = folder.join(files::INDEX);
    let bad = |reason| HuggingFaceError::BadFile { at: at.clone(), file: files::INDEX.into(), reason };
    let text = fs::read(&index).map_err(|source| HuggingFaceError::Io { path: index.clone(), source })?;
    let find = |name: String| {
        let file = files.iter().find(|file| file.name == name);
        file.ok_or_else(|| bad(format!("it names {name}, which the repository does not have")))
    };
    files::shards(&text).map_err(bad)?.into_iter().map(find).collect()
}

/// Fetches a file unless the snapshot has it. Its content may be there under another commit.
fn fetch_one(remote: &Remote<'_>, cache: &ModelCache, commit: &str, file: &RemoteFile) -> Result<(), HuggingFaceError> {
    let folder = cache.snapshot(commit);
    if file.is_in(&folder) || cache.link_known(&folder, file) {
        return Ok(());
    }
    cache.drop_useless_part(file);
    remote.download(commit, file)?;
    let path = folder.join(&file.name);
    if let Err(reason) = file.check(&path) {
        // The next run must not take it for whole.
        let content = fs::canonicalize(&path);
        let _ = fs::remove_file(&path);
        let _ = content.map(fs::remove_file);
        return Err(HuggingFaceError::BadFile { at: remote.at().clone(), file: file.name.clone(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> HubEnvironment {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        HubEnvironment::from_variables(find, Path::new("/home/me"))
    }

    #[test]
    fn variables_are_those_of_the_hubs_tools() {
        let usual = read(&[]);
        assert_eq!(usual.cache_dir, Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!((usual.endpoint.as_str(), usual.is_offline), (ENDPOINT, false));
        assert!(usual.token.is_none());
        let cache_dir = |variables| read(variables).cache_dir;
        assert_eq!(cache_dir(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache_dir(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hub"));
        assert_eq!(cache_dir(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), Path::new("/c"));
        let told = read(&[("HF_ENDPOINT", "http://mirror:1/"), ("HF_HUB_OFFLINE", "yes"), ("HF_TOKEN", "secret\n")]);
        assert_eq!((told.endpoint.as_str(), told.is_offline), ("http://mirror:1", true));
        assert_eq!(told.token.as_ref().map(|token| token.0.as_str()), Some("secret"));
        assert!(!format!("{told:?}").contains("secret"));
        assert!(!read(&[("HF_HUB_OFFLINE", "0")]).is_offline);
    }
}
