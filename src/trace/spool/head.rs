//! A block's header: what it must be before its content is read.

use super::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockKind, Damage, crc32};

/// A header that is right by its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: BlockKind,
    pub(super) sequence: u32,
    /// Bytes of the content, and its checksum.
    pub(super) bytes: usize,
    pub(super) checksum: u32,
}

impl Head {
    /// Whatever its number is.
    pub(super) fn parse(header: &[u8; BLOCK_HEADER_BYTES], is_ring: bool) -> Result<Head, Damage> {
        let words: [u32; BLOCK_HEADER_BYTES / 4] =
            std::array::from_fn(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[4 * at + byte])));
        let [magic, kind, sequence, bytes, checksum, header_checksum] = words;
        if header.iter().all(|byte| *byte == 0) {
            return Err(Damage::Empty);
        }
        if magic.to_le_bytes() != BLOCK_MAGIC {
            return Err(Damage::Magic);
        }
        if crc32(&header[..BLOCK_HEADER_BYTES - 4]) != header_checksum {
            return Err(Damage::HeaderChecksum);
        }
        let known = BlockKind::from_u32(kind).filter(|kind| is_ring || *kind != BlockKind::Part);
        let kind = known.ok_or(Damage::Kind { kind })?;
        if bytes as usize > kind.payload_bytes_max(is_ring) || bytes == 0 {
            return Err(Damage::Length { bytes });
        }
        Ok(Head { kind, sequence, bytes: bytes as usize, checksum })
    }

    /// Whether it is JSON of a graph, or part of it: what a ring never writes over.
    pub(super) fn is_graph(&self) -> bool {
        matches!(self.kind, BlockKind::Graph | BlockKind::Part)
    }
}
