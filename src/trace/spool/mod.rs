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
//!
//! # Rings
//!
//! A recording that keeps what comes last has a ring (`SpoolHeader::ring`) in place of the blocks:
//!
//! ```text
//! file    … · up to `ring` places of 64 KiB · the closing block
//! place   a block of records, or one graph or part of one, or several graphs one after the other; then zeros
//! block   kind 4 beside the others: JSON that goes on in the next block of a graph
//! payload of records: their seam (8 × u64: what was recorded before, Seam) · records
//! ```
//!
//! While there are fewer places than `ring`, a block gets a new one. From then on it goes over the oldest block of
//! records: the writer walks from place to place, and passes those by that hold graphs, which stay. Blocks of records
//! are numbered, and so are those of graphs. So the numbers say the order, and which block may be torn: the one that
//! was being written, and no other. The reader gives graphs first.

mod block;
mod file;
mod head;
mod reader;
mod ring;
mod spare;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::block::{
    Block, closing_block, file_header, graph_block, graph_block_bytes_max, graph_json_bytes, graph_places,
};
pub use self::reader::{Context, Place, Reader, Record, read_records};
pub use self::ring::{Packing, Seam};
pub use self::spare::SPARE_BLOCKS_MAX;
pub use self::wire::{Decoder, Encoder, Wire};
use super::schema::GraphTable;
use super::session::{Granularity, SessionHeader};
use super::window::Window;

/// First bytes of a spool. The line ending is broken by a transfer as text, which is then noticed at once.
pub const MAGIC: [u8; 8] = *b"VITRUM\r\n";

/// The format that this build writes, and the only one that it reads.
pub const VERSION: u32 = 6;

/// Size of a block of records, its header included.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The longest JSON: the file's header, a node table, the closing block.
const JSON_BYTES_MAX: usize = 64 << 20;

const FILE_PREFIX_BYTES: usize = 20;
const BLOCK_MAGIC: [u8; 4] = *b"VBLK";
const BLOCK_HEADER_BYTES: usize = 24;

/// The most bytes of JSON that a block in a ring has.
const PLACE_JSON_BYTES: usize = BLOCK_BYTES - BLOCK_HEADER_BYTES;

/// What a spool begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpoolHeader {
    /// The recording: digits, unique in its folder.
    pub id: String,
    /// Set if each step's nodes were recorded with probability 1/2: the seed of that coin.
    pub toggle_seed: Option<u64>,
    /// Set if the file is a ring: how many places for blocks it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<u64>,
    /// Which steps it has.
    pub window: Window,
    /// What a record is of.
    pub granularity: Granularity,
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
    /// JSON that goes on in the next block; in rings alone.
    Part = 4,
}

impl BlockKind {
    fn from_u32(kind: u32) -> Option<BlockKind> {
        let all = [BlockKind::Records, BlockKind::Graph, BlockKind::Closing, BlockKind::Part];
        all.into_iter().find(|known| *known as u32 == kind)
    }

    /// Whether a block of the kind fits a place of a ring by its length, or is no part of a ring.
    fn payload_bytes_max(self, is_ring: bool) -> usize {
        match self {
            BlockKind::Graph if is_ring => PLACE_JSON_BYTES,
            BlockKind::Records | BlockKind::Part => PLACE_JSON_BYTES,
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
    /// Zeros where a block should begin.
    #[error("nothing stands where a block should begin")]
    Empty,
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
    /// More blocks than a ring has places.
    #[error("a ring of {places} places has no block here")]
    Places {
        /// How many it has.
        places: u64,
    },
    /// Part of a ring is missing in which blocks were written over others, or a file has become shorter.
    #[error("the file ends before all of its blocks")]
    Short,
    /// A block in another's place.
    #[error("the block stands in the place of another one of the ring")]
    Place,
    /// Something behind a block, in the same place.
    #[error("the block's place holds more than the block")]
    Padding,
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
    /// A pipe, a folder, a device: reading it might wait for ever, or change it.
    #[error("{kind}, and a recording is a regular file")]
    NotAFile {
        /// What it is.
        kind: &'static str,
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
