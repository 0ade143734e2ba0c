//! Files that are there whole, or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::ReportError;

const BUFFER_BYTES: usize = 1 << 20;

/// Has a file written beside `path` and renames it when it is whole: what was at `path` stays until then. What is no
/// regular file (a pipe, /dev/null) is written as it is.
pub(super) fn whole<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> Result<T, ReportError> {
    let no_file = |source| ReportError::Write { path: path.into(), source };
    let buffered = |file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let made = write(&mut out)?;
        out.flush()?;
        Ok(made)
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => File::options().write(true).open(path).and_then(buffered).map_err(no_file),
        _ => whole_at(path, |temporary| File::create(temporary).and_then(buffered).map_err(no_file)),
    }
}

/// The same of a file that is gzipped if `path` ends in `.gz`.
pub(super) fn maybe_gzipped<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
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
    let renamed = |made| match fs::rename(&temporary, path) {
        Ok(()) => Ok(made),
        Err(source) => Err(ReportError::Write { path: path.into(), source }),
    };
    // The error that is returned matters more than one from clearing up.
    write(&temporary).and_then(renamed).inspect_err(|_| _ = fs::remove_file(&temporary))
}

/// Where a file is written before it is whole.
fn temporary(path: &Path) -> PathBuf {
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
