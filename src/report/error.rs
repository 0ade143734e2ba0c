//! Why a recording could not be rendered.

use std::path::PathBuf;

use thiserror::Error;

use crate::trace::spool::SpoolError;

/// Why a recording could not be rendered.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The spool could not be read.
    #[error("{}: {source}", path.display())]
    Spool {
        /// The spool.
        path: PathBuf,
        /// What is wrong with it.
        source: SpoolError,
    },
    /// Somebody did not want it any more.
    #[error("{}: rendering was ended before it was done", path.display())]
    Cancelled {
        /// The spool.
        path: PathBuf,
    },
    /// The spool holds more than a report does.
    #[error("{}: more than {limit} {what}", path.display())]
    TooLarge {
        /// The spool.
        path: PathBuf,
        /// Of what there are too many.
        what: &'static str,
        /// The most that a report holds.
        limit: u64,
    },
    /// A rendered file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// A rendered file would take the place of the recording.
    #[error("{} is the recording itself: what is made of it needs another name", path.display())]
    OverRecording {
        /// The file.
        path: PathBuf,
    },
    /// An SQLite file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
}

/// Why a file was not written to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// It could not be written.
    Write(std::io::Error),
    /// What it is made of could not be read.
    Read(ReportError),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault::Write(error)
    }
}

impl From<ReportError> for Fault {
    fn from(error: ReportError) -> Fault {
        Fault::Read(error)
    }
}

impl Fault {
    /// Of the file at `path`.
    pub(super) fn at(self, path: &std::path::Path) -> ReportError {
        match self {
            Fault::Write(source) => ReportError::Write { path: path.into(), source },
            Fault::Read(error) => error,
        }
    }
}
