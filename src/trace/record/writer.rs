//! The recorder's thread: seals blocks, writes them, gives them back.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::sink::Room;
use crate::trace::progress::Progress;
use crate::trace::schema::GraphTable;
use crate::trace::session::{Closing, Counts};
use crate::trace::spool::{self, Block};

/// What the engine's thread sends.
#[derive(Debug)]
pub(super) enum Message {
    /// Records, and where their block is given back.
    Block(Block, SyncSender<Block>),
    /// A graph captured while recording.
    Graph(Box<GraphTable>),
    /// The end.
    Close(Box<Closing>),
}

/// What became of the file.
#[derive(Debug)]
pub(super) struct WriterEnd {
    /// Its length.
    pub(super) bytes: u64,
    /// Records that were taken and could not be written.
    pub(super) lost: Counts,
    /// Why.
    pub(super) error: Option<io::Error>,
}

pub(super) struct Writer {
    file: File,
    /// Length of the file up to its last whole block.
    bytes: u64,
    sequence: u32,
    room: Arc<Room>,
    progress: Arc<Progress>,
    lost: Counts,
    error: Option<io::Error>,
}

impl Writer {
    pub(super) fn new(file: File, bytes: u64, room: Arc<Room>, progress: Arc<Progress>) -> Writer {
        progress.set_bytes(bytes);
        Writer { file, bytes, sequence: 0, room, progress, lost: Counts::default(), error: None }
    }

    /// Writes until the recording is closed, or its recorder is gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> WriterEnd {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Block(mut block, home) => {
                    let counts = block.counts();
                    if !self.append(block.seal(self.sequence)) {
                        self.lost += counts;
                    }
                    block.clear();
                    // Fails only when the sink is gone, and with it the need for blocks.
                    let _ = home.try_send(block);
                }
                Message::Graph(table) => {
                    let block = spool::graph_block(self.sequence, &table);
                    self.append_json(block);
                }
                Message::Close(closing) => {
                    let block = spool::closing_block(self.sequence, &closing);
                    self.append_json(block);
                    break;
                }
            }
        }
        WriterEnd { bytes: self.bytes, lost: self.lost, error: self.error }
    }

    fn append_json(&mut self, block: Result<Vec<u8>, serde_json::Error>) {
        match block {
            Ok(block) => {
                self.append(&block);
            }
            Err(error) => self.fail(error.into()),
        }
    }

    fn append(&mut self, block: &[u8]) -> bool {
        if self.error.is_some() {
            return false;
        }
        if let Err(error) = self.file.write_all(block) {
            self.fail(error);
            return false;
        }
        self.bytes += block.len() as u64;
        self.progress.set_bytes(self.bytes);
        self.sequence += 1;
        true
    }

    /// Ends the file after its last whole block and tells the engine's thread to send no more.
    fn fail(&mut self, error: io::Error) {
        self.room.fail();
        self.error = Some(error);
        // If this fails too, the file ends in part of a block, which its reader takes for its end.
        let _ = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
    }
}
