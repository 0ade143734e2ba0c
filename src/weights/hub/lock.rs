//! One process at a time fetches into a place, and the others wait for it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::console;

/// Keeps other processes from fetching until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Some file systems have no locks. Moving into place is atomic there too, only that two may fetch at once.
    pub(super) held: bool,
    _file: File,
}

impl Lock {
    /// Waits for whoever has it, and says so; `into` is the folder that is fetched into.
    pub(super) fn take(path: &Path, into: &Path) -> io::Result<Lock> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let held = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                let into = into.display();
                console::note(&format!("waiting for another process that fetches a model into {into}"));
                file.lock().is_ok()
            }
            Err(TryLockError::Error(_)) => false,
        };
        Ok(Lock { held, _file: file })
    }
}
