//! The quota of the folder that recordings go into. What is there is never deleted: a recording that has no room is
//! refused.

use std::io;
use std::path::Path;

use super::error::ApiError;

/// What a folder may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderQuota {
    /// Files.
    pub files_max: u64,
    /// Bytes of them.
    pub bytes_max: u64,
}

/// Files that a recording comes to, with its trace.
const FILES_OF_RECORDING: u64 = 2;

/// How many bytes a recording may have that begins now: `asked`, or as many of `usual` as there is room for.
pub(super) fn room(dir: &Path, quota: FolderQuota, asked: Option<u64>, usual: u64) -> Result<u64, ApiError> {
    // What cannot be looked at is said by whoever creates the file.
    let (files, bytes) = held(dir).unwrap_or_default();
    if files + FILES_OF_RECORDING > quota.files_max {
        let (what, flag) = ("files", "--profile-max-files");
        return Err(ApiError::FolderFull { dir: dir.into(), what, held: files, limit: quota.files_max, flag });
    }
    let left = quota.bytes_max.saturating_sub(bytes);
    if left == 0 || asked.is_some_and(|asked| asked > left) {
        return Err(full_of_bytes(dir, quota, bytes));
    }
    Ok(asked.unwrap_or(usual.min(left)))
}

/// The folder holds so many bytes, and has no room for one more recording.
pub(super) fn full_of_bytes(dir: &Path, quota: FolderQuota, held: u64) -> ApiError {
    let (what, flag) = ("bytes", "--profile-dir-max-bytes");
    ApiError::FolderFull { dir: dir.into(), what, held, limit: quota.bytes_max, flag }
}

/// Recordings, and what was made of them, beside anything else that lies there: how many files, and their bytes.
fn held(dir: &Path) -> io::Result<(u64, u64)> {
    const ENDINGS: [&str; 7] = [".vtr", ".gz", ".json", ".html", ".sqlite", ".csv", ".tmp"];
    let mut held = (0, 0);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if ENDINGS.iter().any(|ending| name.to_string_lossy().ends_with(ending))
            && let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            held = (held.0 + 1, held.1 + metadata.len());
        }
    }
    Ok(held)
}
