//! Memory of blocks between two recordings: the second one has no page to fault in, which takes milliseconds.

use std::sync::{Mutex, PoisonError};

use super::BLOCK_BYTES;

/// The most blocks whose memory is kept: 24 MiB, as many as a recording has.
pub const SPARE_BLOCKS_MAX: usize = 384;

/// The process's.
pub(super) static SPARE: Spare = Spare::new();

/// Memory of blocks that are no more.
#[derive(Debug)]
pub(super) struct Spare(Mutex<Vec<Box<[u8]>>>);

impl Spare {
    const fn new() -> Spare {
        Spare(Mutex::new(Vec::new()))
    }

    /// Memory for a block, its pages there; its content is arbitrary.
    pub(super) fn take(&self) -> Box<[u8]> {
        let spare = self.with(Vec::pop);
        spare.unwrap_or_else(|| {
            let mut bytes = vec![0; BLOCK_BYTES].into_boxed_slice();
            bytes.fill(0xff);
            bytes
        })
    }

    /// Keeps a block's memory.
    pub(super) fn give(&self, bytes: Box<[u8]>) {
        self.with(|spare| {
            if spare.len() < SPARE_BLOCKS_MAX {
                spare.push(bytes);
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Box<[u8]>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)) // a list is whole after every change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_has_a_limit() {
        let spare = Spare::new();
        let (one, other) = (spare.take(), spare.take());
        assert_eq!((one.len(), other.len()), (BLOCK_BYTES, BLOCK_BYTES));
        let places = [one.as_ptr(), other.as_ptr()];
        spare.give(one);
        spare.give(other);
        let again = [spare.take(), spare.take(), spare.take()];
        let places_again = again.each_ref().map(|bytes| bytes.as_ptr());
        assert!(places.iter().all(|place| places_again[..2].contains(place)) && !places.contains(&places_again[2]));
        (0..SPARE_BLOCKS_MAX + 10).for_each(|_| spare.give(Box::default()));
        assert_eq!(spare.with(|spare| spare.len()), SPARE_BLOCKS_MAX);
    }
}
