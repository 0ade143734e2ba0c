//! The spool: a recording as bytes, `.vtr`.
//!
//! ```text
//! file    magic (8) · version u32 · length u32 · crc32 u32 · header: JSON of SpoolHeader
//!         then blocks, the last of them a closing block
//! block   "VBLK" · kind u32 · sequence u32 · length u32 · crc32 of the payload u32 · crc32 of these 20 bytes u32
//!         payload: records one after the other, or JSON of a GraphTable, or JSON of Closing
//! record  tag u8 · fields, little endian, each kind of a fixed length; node times as a run of one replay's nodes, a
//!         request's name with its length
//! ```
//!
//! The engine's thread encodes into [`Block`]s of fixed size; a writer's thread seals and writes them. The [`Reader`]
//! is pure and holds one block: a file that ends early reads up to its last whole block and says so, a damaged block is
//! an error with its offset, and no bytes make it panic.

mod block;
mod reader;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::block::{Block, closing_block, file_header, graph_block, graph_block_bytes_max};
pub use self::reader::{Reader, Record};
pub use self::wire::{Decoder, Encoder, Wire};
use super::schema::GraphTable;
use super::session::SessionHeader;

/// First bytes of a spool. The line ending is broken by a transfer as text, which is then noticed at once.
pub const MAGIC: [u8; 8] = *b"VITRUM\r\n";

/// The format that this build writes and reads.
pub const VERSION: u32 = 4;

/// Size of a block of records, its header included.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The longest JSON: the file's header, a node table, the closing block.
const JSON_BYTES_MAX: usize = 64 << 20;

const FILE_PREFIX_BYTES: usize = 20;
const BLOCK_MAGIC: [u8; 4] = *b"VBLK";
const BLOCK_HEADER_BYTES: usize = 24;

/// What a spool begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpoolHeader {
    /// The recording: digits, unique in its folder.
    pub id: String,
    /// Set if each step's nodes were recorded with probability 1/2: the seed of that coin.
    pub toggle_seed: Option<u64>,
    /// Who records what.
    pub session: SessionHeader,
    /// The graphs that were captured before the recording; later ones stand in blocks of their own.
    pub graphs: Vec<GraphTable>,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    Records = 1,
    Graph = 2,
    Closing = 3,
}

impl BlockKind {
    fn from_u32(kind: u32) -> Option<BlockKind> {
        [BlockKind::Records, BlockKind::Graph, BlockKind::Closing].into_iter().find(|known| *known as u32 == kind)
    }

    fn payload_bytes_max(self) -> usize {
        match self {
            BlockKind::Records => BLOCK_BYTES - BLOCK_HEADER_BYTES,
            BlockKind::Graph | BlockKind::Closing => JSON_BYTES_MAX,
        }
    }
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as blocks begin.
    #[error("no block begins here")]
    Magic,
    /// Its header's checksum is wrong.
    #[error("the checksum of the block's header is wrong")]
    HeaderChecksum,
    /// Its payload's checksum is wrong.
    #[error("the checksum of the block's content is wrong")]
    Checksum,
    /// A kind of block that this version does not have.
    #[error("unknown kind of block {kind}")]
    Kind {
        /// The kind found.
        kind: u32,
    },
    /// A block is missing or stands twice.
    #[error("block {found} stands where block {expected} should")]
    Sequence {
        /// The number due.
        expected: u32,
        /// The number found.
        found: u32,
    },
    /// Longer than such a block can be.
    #[error("a block of {bytes} bytes is longer than its kind can be")]
    Length {
        /// The length found.
        bytes: u32,
    },
    /// Whole by its checksum, but not made of records.
    #[error("the block's content is not made of records")]
    Content,
    /// Bytes behind the closing block.
    #[error("the file goes on behind its closing block")]
    Trailing,
}

/// Why a spool could not be read.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The file could not be read.
    #[error("cannot read at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// Not a recording of vitrum.
    #[error("not a recording of vitrum: the file does not begin as one")]
    NotASpool,
    /// Another version's recording.
    #[error("the recording has format {found}, and this build reads format {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file ends inside its header: nothing was recorded.
    #[error("the file ends inside its header, after {bytes} bytes: it holds no records")]
    HeaderCut {
        /// The file's length.
        bytes: u64,
    },
    /// The header's checksum or JSON is wrong.
    #[error("the file's header is damaged")]
    HeaderDamaged,
    /// A block is damaged.
    #[error("damaged at byte {offset}: {damage}")]
    Damaged {
        /// Where the block begins.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
