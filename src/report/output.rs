//! Files that are there whole, and on the disk, or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::ReportError;
use super::error::Fault;

const BUFFER_BYTES: usize = 1 << 20;
const FOLDER_UNSYNCED: [io::ErrorKind; 3] =
    [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied];

/// Has a file written beside `path` and renames it when it is whole and on the disk: what was at `path` stays until
/// then. What is no regular file (a pipe, /dev/null) is written as it is.
pub(super) fn whole<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, Fault>,
) -> Result<T, ReportError> {
    let buffered = |file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let made = write(&mut out)?;
        out.flush()?;
        Ok(made)
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            File::options().write(true).open(path).map_err(Fault::Write).and_then(buffered).map_err(|f| f.at(path))
        }
        _ => whole_at(path, |temporary| {
            File::create(temporary).map_err(Fault::Write).and_then(buffered).map_err(|fault| fault.at(path))
        }),
    }
}

/// The same of a file that is gzipped if `path` ends in `.gz`.
pub(super) fn maybe_gzipped<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Fault>,
) -> Result<T, ReportError> {
    let is_zipped = path.extension().is_some_and(|extension| extension == "gz");
    whole(path, |out| {
        if !is_zipped {
            return write(out);
        }
        let mut gzip = GzEncoder::new(out, Compression::new(1));
        let made = write(&mut gzip)?;
        gzip.finish()?;
        Ok(made)
    })
}

/// The same of a regular file that `write` makes by itself, under the name that it is given.
pub(super) fn whole_at<T>(path: &Path, write: impl FnOnce(&Path) -> Result<T, ReportError>) -> Result<T, ReportError> {
    let temporary = temporary(path);
    let moved = |made| match sync(&temporary).and_then(|()| fs::rename(&temporary, path)).and_then(|()| settle(path)) {
        Ok(()) => Ok(made),
        Err(source) => Err(ReportError::Write { path: path.into(), source }),
    };
    // The error that is returned matters more than one from clearing up.
    write(&temporary).and_then(moved).inspect_err(|_| _ = fs::remove_file(&temporary))
}

/// Waits until a file is on the disk.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Waits until a file's name is on the disk. Some file systems do not know of that for folders, and some folders may be
/// written and not read.
fn settle(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match sync(folder) {
        Err(error) if FOLDER_UNSYNCED.contains(&error.kind()) => Ok(()),
        synced => synced,
    }
}

/// Where a file is written before it is whole.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id())); // another process may render the same recording
    name.into()
}

/// An error if something is there that is no regular file.
pub(super) fn check_regular(output: &Path) -> Result<(), ReportError> {
    match fs::metadata(output) {
        Ok(found) if !found.is_file() => {
            let source = io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no regular file");
            Err(ReportError::Write { path: output.into(), source })
        }
        _ => Ok(()),
    }
}

/// An error if two paths are one file: a recording is not to be overwritten by what is made of it.
pub(super) fn check_apart(recording: &Path, output: &Path) -> Result<(), ReportError> {
    let is_same = match (recording.canonicalize(), output.canonicalize()) {
        (Ok(recording), Ok(output)) => recording == output,
        _ => false,
    };
    if is_same { Err(ReportError::OverRecording { path: output.into() }) } else { Ok(()) }
}
