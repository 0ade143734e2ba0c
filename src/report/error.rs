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
