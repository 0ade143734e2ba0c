//! Where one thread's records go: blocks of fixed size, filled in turn and written by the recorder's thread.
//!
//! A full block goes to the writer, an empty one comes back. The sink has all of them from its beginning; after that
//! nothing here allocates, waits or fails. No empty block, or no room left in the file: the record is dropped and
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::writer::Message;
use crate::trace::schema::NodeStamp;
use crate::trace::session::Counts;
use crate::trace::spool::{BLOCK_BYTES, Block, Wire};

/// The room that a file has, for all who write into it.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicU64,
    max: u64,
    reached: AtomicBool,
    /// Set by the writer when the file cannot be written any more.
    failed: AtomicBool,
}

impl Room {
    pub(super) fn new(taken: u64, max: u64) -> Room {
        Room { taken: taken.into(), max, reached: false.into(), failed: false.into() }
    }

    /// Takes bytes of the file; `false` if there are not so many. Once there were not, there are none at all: what
    /// comes first is kept, and nothing behind a hole.
    pub(super) fn take(&self, bytes: u64) -> bool {
        if self.reached() || self.failed.load(Ordering::Relaxed) {
            return false;
        }
        let sum = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.max);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok();
        if !taken {
            self.reached.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the file's limit was reached.
    pub(super) fn reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Whether nothing is taken any more: the limit was reached, or the file cannot be written.
    pub(super) fn is_closed(&self) -> bool {
        self.reached() || self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// One thread's way into the file.
#[derive(Debug)]
pub(super) struct Sink {
    /// The block being filled.
    block: Option<Block>,
    empty: Receiver<Block>,
    /// Where the writer gives blocks back.
    home: SyncSender<Block>,
    full: SyncSender<Message>,
    room: Arc<Room>,
    pub(super) written: Counts,
    pub(super) dropped: Counts,
}

impl Sink {
    /// A sink with so many blocks. The channel to the writer has room for all of them.
    pub(super) fn new(blocks: usize, full: SyncSender<Message>, room: Arc<Room>) -> Sink {
        Sink::of(blocks, Block::new, full, room)
    }

    /// A sink with so many of such blocks.
    pub(super) fn of(blocks: usize, block: fn() -> Block, full: SyncSender<Message>, room: Arc<Room>) -> Sink {
        let (home, empty) = sync_channel(blocks);
        for _ in 0..blocks {
            home.try_send(block()).expect("the channel holds every block");
        }
        Sink { block: None, empty, home, full, room, written: Counts::default(), dropped: Counts::default() }
    }

    /// Appends a record; `false` if it was dropped.
    #[inline]
    pub(super) fn push<T: Wire>(&mut self, record: &T) -> bool {
        let pushed = self.with_block(|block| block.push(record));
        *(if pushed { &mut self.written } else { &mut self.dropped }) += T::ONE;
        pushed
    }

    /// Appends what a request's client calls it.
    pub(super) fn push_name(&mut self, request: u64, name: &str) {
        let pushed = self.with_block(|block| block.push_name(request, name));
        (if pushed { &mut self.written } else { &mut self.dropped }).requests += 1;
    }

    /// Appends the times of a replay's nodes from ordinal `first` on, as many as fit the block, and returns how many
    /// did: none if they are to be dropped.
    pub(super) fn push_stamps(&mut self, replay: u64, first: u32, stamps: &[NodeStamp]) -> usize {
        let mut count = 0;
        self.with_block(|block| {
            count = block.push_stamps(replay, first, stamps);
            count > 0
        });
        self.written.nodes += count as u64;
        count
    }

    /// Runs `push` on the block being filled, and on the next one if it does not fit. `false` if there is none.
    #[inline]
    fn with_block(&mut self, mut push: impl FnMut(&mut Block) -> bool) -> bool {
        if self.block.as_mut().is_some_and(&mut push) {
            return true;
        }
        self.hand_over();
        if !self.room.take(BLOCK_BYTES as u64) {
            return false;
        }
        self.block = self.empty.try_recv().ok();
        if self.block.is_none() {
            self.room.give_back(BLOCK_BYTES as u64);
        }
        self.block.as_mut().is_some_and(push)
    }

    /// Sends the block being filled to the writer, which takes it at once.
    pub(super) fn hand_over(&mut self) {
        if let Some(block) = self.block.take() {
            self.room.give_back((BLOCK_BYTES - if block.is_empty() { 0 } else { block.len() }) as u64);
            if block.is_empty() {
                let _ = self.home.try_send(block); // its own place in the ring
            } else {
                // Fails only when the writer has panicked, which is reported when the recording is stopped.
                let _ = self.full.try_send(Message::Block(block, self.home.clone()));
            }
        }
    }
}

/// What was taken is written, whatever ends its thread.
impl Drop for Sink {
    fn drop(&mut self) {
        self.hand_over();
    }
}
