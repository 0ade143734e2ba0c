//! Model files in memory: mapped, read-only.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::WeightsError;

/// A file, mapped.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file, and has the kernel read it ahead.
    pub(super) fn open(path: &Path) -> Result<MappedFile, WeightsError> {
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private to this process's view; every access goes through slices of
        // it that lie within its length. A file that another process shortens while it is mapped ends this process
        // with SIGBUS, as for every reader of mapped files: model files are replaced by renaming, not rewritten.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        // Only a hint: reading works without.
        let _ = map.advise(Advice::WillNeed);
        Ok(MappedFile { path: path.to_owned(), map })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Lets go of memory that is not read again soon. Pages at the ends may hold other bytes, too: all of them come
    /// back unchanged when they are touched.
    pub(super) fn release(&self, range: Range<usize>) {
        // SAFETY: the mapping is of a file and read-only: what is dropped is read from the file again.
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}
