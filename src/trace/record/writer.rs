//! The recorder's thread: seals blocks, writes them, gives them back.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::ring::Ring;
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
    /// The counts as they are in the file, or would be, if it was closed.
    pub(super) closing: Option<Box<Closing>>,
}

pub(super) struct Writer {
    file: File,
    /// The folder that it is in.
    folder: PathBuf,
    /// Length of the file up to its last whole block.
    bytes: u64,
    /// Where the first block begins.
    begin: u64,
    sequence: u32,
    /// Where blocks go, if what comes last is kept.
    ring: Option<Ring>,
    room: Arc<Room>,
    progress: Arc<Progress>,
    lost: Counts,
    error: Option<io::Error>,
}

impl Writer {
    /// A writer behind the header of so many bytes.
    pub(super) fn new(
        (file, path): (File, &Path),
        bytes: u64,
        ring: Option<Ring>,
        room: Arc<Room>,
        progress: Arc<Progress>,
    ) -> Writer {
        progress.set_bytes(bytes);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).into();
        let (lost, error) = (Counts::default(), None);
        Writer { file, folder, bytes, begin: bytes, sequence: 0, ring, room, progress, lost, error }
    }

    /// Writes until the recording is closed, or its recorder is gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> WriterEnd {
        let mut closed = None;
        while let Ok(message) = messages.recv() {
            match message {
                Message::Block(mut block, home) => {
                    if !self.write_records(&mut block) {
                        self.lost += block.counts();
                    }
                    block.clear();
                    // Fails only when the sink is gone, and with it the need for blocks.
                    let _ = home.try_send(block);
                }
                Message::Graph(table) => self.write_graph(&table),
                Message::Close(mut closing) => {
                    if let Some(ring) = &mut self.ring {
                        ring.settle(&mut closing);
                    }
                    match spool::closing_block(self.sequence, &closing) {
                        Ok(block) => _ = self.write(&block, None),
                        Err(error) => self.fail(error.into()),
                    }
                    self.settle();
                    closed = Some(closing);
                    break;
                }
            }
        }
        WriterEnd { bytes: self.bytes, lost: self.lost, error: self.error, closing: closed }
    }

    fn write_records(&mut self, block: &mut Block) -> bool {
        if self.sequence == u32::MAX {
            self.fail(io::Error::other("the file has had 2³² blocks"));
        }
        let is_written = match &mut self.ring {
            None => self.write(block.seal(self.sequence), None),
            Some(_) if self.error.is_some() => false,
            Some(ring) => {
                let (at, seam) = ring.take(block);
                self.write(block.seal_in_place(self.sequence, &seam), Some(at))
            }
        };
        self.sequence += u32::from(is_written);
        is_written
    }

    fn write_graph(&mut self, table: &GraphTable) {
        let ring = self.ring.as_mut().filter(|_| self.error.is_none());
        let blocks = match ring {
            None => spool::graph_block(self.sequence, table).map(|block| vec![(None, block)]),
            Some(ring) => ring.take_for_graph(table).map(|blocks| {
                let placed = blocks.into_iter().map(|(at, block)| (Some(at), block));
                placed.collect()
            }),
        };
        match blocks {
            Ok(blocks) => {
                for (at, block) in &blocks {
                    let is_written = self.write(block, *at);
                    // In a ring graphs have numbers of their own.
                    self.sequence += u32::from(is_written && at.is_none());
                }
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// Writes a block at the file's end, or in a place behind its header.
    fn write(&mut self, block: &[u8], place: Option<u64>) -> bool {
        if self.error.is_some() {
            return false;
        }
        let begin = self.begin;
        let written = match (place, &self.ring) {
            (Some(at), _) => self.file.write_all_at(block, begin + at),
            // Behind all places.
            (None, Some(_)) => self.file.write_all_at(block, self.bytes),
            (None, None) => self.file.write_all(block),
        };
        if let Err(error) = written {
            self.fail(error);
            return false;
        }
        self.bytes = match (place, &self.ring) {
            (Some(_), Some(ring)) => begin + ring.bytes(),
            _ => self.bytes + block.len() as u64,
        };
        self.progress.set_bytes(self.bytes);
        true
    }

    /// Waits until the file and its name are on the disk: only then is it said to be there. A folder that cannot be
    /// opened, or that a file system does not write by itself, has its names written when it likes.
    fn settle(&mut self) {
        if self.error.is_none()
            && let Err(error) = self.file.sync_all()
            && error.kind() != io::ErrorKind::InvalidInput
        {
            self.room.fail();
            self.error = Some(error);
        }
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
    }

    /// Ends the file after its last whole block and tells the engine's thread to send no more.
    fn fail(&mut self, error: io::Error) {
        self.room.fail();
        self.error = Some(error);
        // If this fails too, the file ends in part of a block, which its reader takes for its end.
        let _ = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
    }
}
