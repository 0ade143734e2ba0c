//! The hub's cache on this machine: `models--owner--name/` with `refs/` (which commit a branch is), `snapshots/` (a
//! folder of links per commit) and `blobs/` (contents, by their etag).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::files::{self, RemoteFile};
use super::names::{ModelId, Revision, is_commit};

/// The part of the cache that is one model's.
#[derive(Debug)]
pub(super) struct ModelCache {
    cache: Cache,
    id: String,
    folder: PathBuf,
    lock_file: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache_dir: &Path, model: &ModelId) -> ModelCache {
        let name = Repo::model(model.to_string()).folder_name();
        ModelCache {
            cache: Cache::new(cache_dir.to_owned()),
            id: model.to_string(),
            folder: cache_dir.join(&name),
            lock_file: cache_dir.join(".locks").join(&name).join("vitrum.lock"),
        }
    }

    /// The model's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Taken by this program alone: the hub's tools lock each content.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.lock_file.clone()
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The folder of a revision's files, if the model is whole; else what is missing of it, as a path below the
    /// model's folder. Weights are fetched last, so that where they are, all the rest is.
    pub(super) fn whole_snapshot(&self, revision: &Revision) -> Result<PathBuf, String> {
        let note = self.folder.join("refs").join(revision.as_str());
        let noted = fs::read_to_string(note).map(|commit| commit.trim().to_owned()).ok();
        let commit = match noted.filter(|commit| is_commit(commit)) {
            Some(commit) => commit,
            None if revision.is_commit() => revision.to_string(),
            None => return Err(format!("refs/{revision}")),
        };
        let folder = self.snapshot(&commit);
        let missing = |name: &str| format!("snapshots/{commit}/{name}");
        let has = |name: &str| folder.join(name).is_file();
        if !has(files::CONFIG) {
            return Err(missing(files::CONFIG));
        }
        if has(files::WEIGHTS) {
            return Ok(folder);
        }
        let Ok(index) = fs::read(folder.join(files::INDEX)) else {
            return Err(missing(files::WEIGHTS));
        };
        let shards = files::shards(&index).map_err(|_| missing(files::INDEX))?;
        match shards.iter().find(|shard| !has(shard)) {
            Some(shard) => Err(missing(shard)),
            None => Ok(folder),
        }
    }

    /// Notes which commit a revision is, unless that is noted already.
    pub(super) fn note_commit(&self, revision: &Revision, commit: &str) -> io::Result<()> {
        let noted = fs::read_to_string(self.folder.join("refs").join(revision.as_str()));
        if noted.is_ok_and(|noted| noted.trim() == commit) || revision.as_str() == commit {
            return Ok(());
        }
        let repo = Repo::with_revision(self.id.clone(), RepoType::Model, revision.to_string());
        self.cache.repo(repo).create_ref(commit)
    }

    /// Links a content into a snapshot, if another commit brought it. Says whether it did.
    pub(super) fn link_known(&self, snapshot: &Path, file: &RemoteFile) -> bool {
        let (Some(etag), Some(bytes)) = (&file.etag, file.bytes) else { return false };
        let is_whole = fs::metadata(self.blob(etag)).is_ok_and(|blob| blob.is_file() && blob.len() == bytes);
        let target = Path::new("../../blobs").join(etag); // as the hub's tools link
        is_whole
            && fs::create_dir_all(snapshot).is_ok()
            && std::os::unix::fs::symlink(target, snapshot.join(&file.name)).is_ok()
    }

    /// Drops what was fetched of a content if there is nothing behind it to go on with: the hub refuses to be asked for
    /// what follows the last byte.
    pub(super) fn drop_useless_part(&self, file: &RemoteFile) {
        let (Some(etag), Some(bytes)) = (&file.etag, file.bytes) else { return };
        let part = self.blob(etag).with_extension("part");
        if fs::metadata(&part).is_ok_and(|metadata| metadata.len() >= bytes) {
            let _ = fs::remove_file(part);
        }
    }

    fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }
}
