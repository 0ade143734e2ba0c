//! Opening a recording: a regular file, and nothing that could keep its reader waiting.

use std::fs::{self, File, FileType};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::SpoolError;

/// Opens a regular file. What stands there is looked at before it is opened, because opening a device may do something,
/// and again when it is open, because it may have been another one; the open itself waits for no one.
pub(super) fn open_regular(path: &Path) -> Result<File, SpoolError> {
    let failed = |source| SpoolError::Open { path: path.into(), source };
    check(fs::metadata(path).map_err(failed)?.file_type())?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    check(file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

fn check(found: FileType) -> Result<(), SpoolError> {
    let kind = match found {
        _ if found.is_file() => return Ok(()),
        _ if found.is_dir() => "it is a folder",
        _ if found.is_fifo() => "it is a pipe",
        _ if found.is_socket() => "it is a socket",
        _ => "it is a device",
    };
    Err(SpoolError::NotAFile { kind })
}
