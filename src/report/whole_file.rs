//! Rendered files: there when they are whole, or not at all.

use std::fs::File;
use std::io;
use std::path::Path;

use super::ReportError;

/// Writes to a temporary file beside `path`, and renames it when it is whole.
pub(super) fn write(path: &Path, content: impl FnOnce(File) -> io::Result<()>) -> Result<(), ReportError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = File::create(temporary).and_then(content).and_then(|()| std::fs::rename(temporary, path));
    written.map_err(|source| {
        // The error that is returned matters more than one from clearing up.
        let _ = std::fs::remove_file(temporary);
        ReportError::Write { path: path.into(), source }
    })
}
