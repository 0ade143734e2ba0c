//! Files that are there whole, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::ReportError;

/// Has a file written beside `path` and renames it when it is whole: what was at `path` stays until then. What is no
/// regular file (a pipe, /dev/null) is written as it is.
pub(super) fn whole(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> Result<(), ReportError> {
    let written = match fs::metadata(path) {
        Ok(found) if !found.is_file() => File::options().write(true).open(path).and_then(write),
        _ => {
            let temporary = temporary(path);
            let written = File::create(&temporary).and_then(write).and_then(|()| fs::rename(&temporary, path));
            // The error that is returned matters more than one from clearing up.
            written.inspect_err(|_| _ = fs::remove_file(&temporary))
        }
    };
    written.map_err(|source| ReportError::Write { path: path.into(), source })
}

/// Where a file is written before it is whole.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id())); // another process may render the same recording
    name.into()
}

/// An error if two paths are one file: a recording is not to be overwritten by what is made of it.
pub(super) fn check_apart(recording: &Path, output: &Path) -> Result<(), ReportError> {
    let is_same = match (recording.canonicalize(), output.canonicalize()) {
        (Ok(recording), Ok(output)) => recording == output,
        _ => false,
    };
    if is_same { Err(ReportError::OverRecording { path: output.into() }) } else { Ok(()) }
}
