//! What is asked of the hub, and its answers in this program's words.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;
use serde::Deserialize;

use super::HubEnvironment;
use super::error::{HuggingFaceError, ModelAt};
use super::files::RemoteFile;
use super::names::is_commit;
use crate::weights::hub::progress::progress_bar;

/// More than the description of any repository takes.
const LISTING_BYTES_MAX: u64 = 64 << 20;
/// What an error calls the description of a repository.
const LISTING: &str = "the list of its files";

/// A model on the hub.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    at: ModelAt,
    environment: &'a HubEnvironment,
    api: Api,
}

/// What the hub has of a model at a revision.
#[derive(Debug)]
pub(super) struct Listing {
    /// Which commit the revision is.
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// The hub's description of a repository.
#[derive(Deserialize)]
struct Description {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

impl<'a> Remote<'a> {
    pub(super) fn new(at: ModelAt, environment: &'a HubEnvironment) -> Result<Remote<'a>, HuggingFaceError> {
        let api = ApiBuilder::from_cache(Cache::new(environment.cache_dir.clone()))
            .with_endpoint(environment.endpoint.clone())
            .with_token(environment.token.as_ref().map(|token| token.0.clone()))
            .with_user_agent("vitrum", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build();
        match api {
            Ok(api) => Ok(Remote { at, environment, api }),
            Err(error) => {
                let endpoint = environment.endpoint.clone();
                Err(HuggingFaceError::NoHub { at, endpoint, reason: error.to_string() })
            }
        }
    }

    /// What is asked for.
    pub(super) fn at(&self) -> &ModelAt {
        &self.at
    }

    /// Which commit the revision is, and which files it has.
    pub(super) fn list(&self) -> Result<Listing, HuggingFaceError> {
        let request = self.repo(&self.at.revision).info_request().query("blobs", "true");
        let response = request.call().map_err(|error| self.failure(Box::new(error).into(), LISTING))?;
        let mut text = Vec::new();
        let read = response.into_reader().take(LISTING_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|error| self.failure(error.into(), LISTING))?;
        let no_hub = |reason| {
            let (at, endpoint) = (self.at.clone(), self.environment.endpoint.clone());
            HuggingFaceError::NoHub { at, endpoint, reason }
        };
        let description: Description = serde_json::from_slice(&text).map_err(|error| no_hub(error.to_string()))?;
        if !is_commit(&description.sha) {
            return Err(no_hub(format!("{:?} is no commit", description.sha)));
        }
        let file = |sibling: Sibling| {
            let (sha256, bytes) = sibling.lfs.map_or((None, None), |large| (large.sha256, large.size));
            RemoteFile::new(sibling.rfilename, bytes.or(sibling.size), sibling.blob_id, sha256)
        };
        Ok(Listing { commit: description.sha, files: description.siblings.into_iter().map(file).collect() })
    }

    /// Fetches a file into the cache and links it into the commit's snapshot. What an earlier run left of it is gone on
    /// with.
    pub(super) fn download(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, HuggingFaceError> {
        let bar = progress_bar(file.bytes.unwrap_or(0), format!("downloading {}", file.name));
        let fetched = self.repo(commit).download_with_progress(&file.name, FileProgress(bar));
        fetched.map_err(|error| self.failure(error, &file.name))
    }

    fn repo(&self, revision: &str) -> ApiRepo {
        self.api.repo(Repo::with_revision(self.at.id.clone(), RepoType::Model, revision.to_owned()))
    }

    /// What the operating system refused.
    pub(super) fn io_error(&self, path: &Path, source: io::Error) -> HuggingFaceError {
        self.io_failure(path, source, "it")
    }

    /// A full disk is told apart from other failures.
    fn io_failure(&self, path: &Path, source: io::Error, file: &str) -> HuggingFaceError {
        let (at, path) = (self.at.clone(), path.to_owned());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                HuggingFaceError::NoSpace { at, path, file: file.to_owned() }
            }
            _ => HuggingFaceError::Io { path, source },
        }
    }

    /// What went wrong while a file was asked for.
    fn failure(&self, error: ApiError, file: &str) -> HuggingFaceError {
        use io::ErrorKind as Kind;
        let (at, endpoint, file) = (self.at.clone(), self.environment.endpoint.clone(), file.to_owned());
        match error {
            ApiError::RequestError(error) => {
                let reason = error.to_string();
                match error.into_response() {
                    Some(response) => self.refusal(response.status(), response.header("x-error-code"), file),
                    None => HuggingFaceError::Unreachable { at, endpoint, file, reason },
                }
            }
            ApiError::IoError(source) => match source.kind() {
                Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                    self.io_failure(&self.environment.cache_dir, source, &file)
                }
                Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotFound | Kind::NotADirectory => {
                    HuggingFaceError::Io { path: self.environment.cache_dir.clone(), source }
                }
                _ => HuggingFaceError::Interrupted { at, file, reason: source.to_string() },
            },
            ApiError::LockAcquisition(lock) => HuggingFaceError::Busy { at, file, lock },
            ApiError::InvalidResume => {
                let reason = "an earlier run left more of it than there is: remove its .part file".into();
                HuggingFaceError::BadFile { at, file, reason }
            }
            error => HuggingFaceError::NoHub { at, endpoint, reason: format!("{file}: {error}") },
        }
    }

    /// An answer that is no file. The hub says in a header what is missing; a name without one is asked for by number.
    fn refusal(&self, status: u16, code: Option<&str>, file: String) -> HuggingFaceError {
        let (at, endpoint) = (self.at.clone(), self.environment.endpoint.clone());
        match (status, code) {
            (_, Some("RevisionNotFound")) => HuggingFaceError::UnknownRevision { at, endpoint },
            (401 | 403, _) if self.environment.token.is_none() => {
                HuggingFaceError::NeedsToken { at, endpoint, file, status }
            }
            (401 | 403, _) => HuggingFaceError::Denied { at, endpoint, file, status },
            (404, _) if file == LISTING => HuggingFaceError::NotFound { at, endpoint },
            (404, _) => HuggingFaceError::NoFile { at, endpoint, file },
            _ => HuggingFaceError::Status { at, endpoint, file, status },
        }
    }
}

/// The bar of one file, gone when the file has come or has failed.
struct FileProgress(ProgressBar);

impl Progress for FileProgress {
    // Called again when the answer begins, with the bytes that an earlier run left as the first update.
    fn init(&mut self, bytes: usize, _: &str) {
        self.0.set_length(bytes as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, bytes: usize) {
        self.0.inc(bytes as u64);
    }

    fn finish(&mut self) {}
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_locked_file_are_told_apart_from_a_cut_connection() {
        let environment = HubEnvironment::from_variables(|_| None, Path::new("/home/me"));
        let at = ModelAt { id: "a/b".into(), revision: "main".into() };
        let remote = Remote::new(at, &environment).unwrap();
        let says = |error: ApiError, words: &str| {
            let said = remote.failure(error, "model.safetensors").to_string();
            assert!(said.contains("model.safetensors") && said.contains(words), "{said}");
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            says(io::Error::from(kind).into(), "/home/me/.cache/huggingface/hub has no room for model.safetensors");
        }
        says(io::Error::from(io::ErrorKind::UnexpectedEof).into(), "run it again");
        says(ApiError::LockAcquisition("/x.lock".into()), "another program fetches");
        says(ApiError::MissingHeader("etag"), "does not answer as the Hugging Face hub does");
    }
}
