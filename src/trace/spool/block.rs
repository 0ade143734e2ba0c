//! The writing side: blocks of fixed size that records are encoded into, and the file's JSON parts.

use std::io;

use super::spare::SPARE;
use super::wire::{Encoder, NAME_BYTES_MAX, NAME_TAG, RUN_HEADER_BYTES, RUN_TAG, STAMP_BYTES, Wire, put_stamp};
use super::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockKind, FILE_PREFIX_BYTES, MAGIC, PLACE_JSON_BYTES, Packing, Seam,
    SpoolHeader, VERSION, crc32,
};
use crate::trace::schema::{GraphTable, NodeStamp};
use crate::trace::session::{Closing, Counts};

/// A block of records that is being filled. Its memory is a dropped block's, or new.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    /// Where its records begin: behind the header, and in a ring behind the seam.
    begin: usize,
    len: usize,
    counts: Counts,
}

impl Block {
    /// An empty block, its memory already touched, so that filling it faults no page in.
    pub fn new() -> Block {
        Block::beginning(BLOCK_HEADER_BYTES)
    }

    /// An empty block of a ring: it has room for its seam.
    pub fn with_seam() -> Block {
        Block::beginning(BLOCK_HEADER_BYTES + Seam::BYTES)
    }

    fn beginning(begin: usize) -> Block {
        Block { bytes: SPARE.take(), begin, len: begin, counts: Counts::default() }
    }

    /// Appends a record. `false` if it does not fit: seal this block and take the next.
    pub fn push<T: Wire>(&mut self, record: &T) -> bool {
        const { assert!(T::BYTES < 256, "a record is far smaller than a block") };
        let end = self.len + 1 + T::BYTES;
        let Some(room) = self.bytes.get_mut(self.len..end) else { return false };
        let mut out = Encoder::new(room);
        out.put_u8(T::TAG);
        record.put(&mut out);
        self.len = end;
        self.counts += T::ONE;
        true
    }

    /// Appends what a request's client calls it. `false` if it does not fit.
    pub fn push_name(&mut self, request: u64, name: &str) -> bool {
        let kept = name.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= NAME_BYTES_MAX);
        let name = &name.as_bytes()[..kept.last().unwrap_or(0)];
        let end = self.len + 1 + 8 + 1 + name.len();
        let Some(room) = self.bytes.get_mut(self.len..end) else { return false };
        let mut out = Encoder::new(room);
        out.put_u8(NAME_TAG);
        out.put_u64(request);
        out.put_u8(name.len() as u8);
        out.put_bytes(name);
        self.len = end;
        self.counts.requests += 1;
        true
    }

    /// Appends the times of a replay's nodes from ordinal `first` on, as many as fit, and returns how many did.
    pub fn push_stamps(&mut self, replay: u64, first: u32, stamps: &[NodeStamp]) -> usize {
        let room = (self.bytes.len() - self.len).saturating_sub(1 + RUN_HEADER_BYTES);
        let count = stamps.len().min(room / STAMP_BYTES);
        if count == 0 {
            return 0;
        }
        let end = self.len + 1 + RUN_HEADER_BYTES + count * STAMP_BYTES;
        let mut out = Encoder::new(&mut self.bytes[self.len..end]);
        out.put_u8(RUN_TAG);
        out.put_u64(replay);
        out.put_u32(first);
        out.put_u32(count as u32);
        for stamp in &stamps[..count] {
            put_stamp(stamp, &mut out);
        }
        self.len = end;
        self.counts.nodes += count as u64;
        count
    }

    /// What the block holds.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Its length in the file.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len == self.begin
    }

    /// Its records as bytes.
    pub fn records(&self) -> &[u8] {
        &self.bytes[self.begin..self.len]
    }

    /// Completes the header and returns the block as it stands in the file.
    pub fn seal(&mut self, sequence: u32) -> &[u8] {
        let (header, payload) = self.bytes[..self.len].split_at_mut(BLOCK_HEADER_BYTES);
        put_block_header(header, BlockKind::Records, sequence, payload);
        &self.bytes[..self.len]
    }

    /// Completes header and seam of a block that has one, and returns its whole place in the file.
    pub fn seal_in_place(&mut self, sequence: u32, seam: &Seam) -> &[u8] {
        seam.put(&mut Encoder::new(&mut self.bytes[BLOCK_HEADER_BYTES..self.begin]));
        self.bytes[self.len..].fill(0);
        self.seal(sequence);
        &self.bytes
    }

    /// Empties the block for its next use.
    pub fn clear(&mut self) {
        self.len = self.begin;
        self.counts = Counts::default();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        SPARE.give(std::mem::take(&mut self.bytes));
    }
}

impl Default for Block {
    fn default() -> Block {
        Block::new()
    }
}

fn put_block_header(header: &mut [u8], kind: BlockKind, sequence: u32, payload: &[u8]) {
    let mut out = Encoder::new(header);
    out.put_bytes(&BLOCK_MAGIC);
    out.put_u32(kind as u32);
    out.put_u32(sequence);
    out.put_u32(payload.len() as u32);
    out.put_u32(crc32(payload));
    let checksum = crc32(&header[..BLOCK_HEADER_BYTES - 4]);
    header[BLOCK_HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
}

fn json_block(kind: BlockKind, sequence: u32, json: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_HEADER_BYTES + json.len()];
    block[BLOCK_HEADER_BYTES..].copy_from_slice(json);
    put_block_header(&mut block[..BLOCK_HEADER_BYTES], kind, sequence, json);
    block
}

/// The block of a graph that was captured while recording.
pub fn graph_block(sequence: u32, table: &GraphTable) -> Result<Vec<u8>, serde_json::Error> {
    Ok(json_block(BlockKind::Graph, sequence, &serde_json::to_vec(table)?))
}

/// The same in a ring: one block that goes behind another graph, or whole places, each with a block.
pub fn graph_places(
    sequence: u32,
    table: &GraphTable,
    packing: &mut Packing,
) -> Result<Vec<Vec<u8>>, serde_json::Error> {
    let json = serde_json::to_vec(table)?;
    if packing.put(json.len()) == 0 {
        return Ok(vec![json_block(BlockKind::Graph, sequence, &json)]);
    }
    let parts: Vec<&[u8]> = json.chunks(PLACE_JSON_BYTES).collect();
    let place = |(at, part): (usize, &&[u8])| {
        let kind = if at + 1 == parts.len() { BlockKind::Graph } else { BlockKind::Part };
        let mut place = json_block(kind, sequence.wrapping_add(at as u32), part);
        place.resize(BLOCK_BYTES, 0);
        place
    };
    Ok(parts.iter().enumerate().map(place).collect())
}

/// The length of a graph's JSON, without its text.
pub fn graph_json_bytes(table: &GraphTable) -> Result<usize, serde_json::Error> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, table).map(|()| length.0)
}

struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No graph's block is longer, by an estimate that needs no encoding: 12 coefficients of at most 24 digits and their
/// names, and every byte of a name escaped.
pub fn graph_block_bytes_max(table: &GraphTable) -> u64 {
    let names: usize = table.nodes.iter().map(|node| node.kernel.len() + node.choice.len()).sum();
    (1024 + 1024 * table.nodes.len() + 6 * names) as u64
}

/// The last block.
pub fn closing_block(sequence: u32, closing: &Closing) -> Result<Vec<u8>, serde_json::Error> {
    Ok(json_block(BlockKind::Closing, sequence, &serde_json::to_vec(closing)?))
}

/// The beginning of the file.
pub fn file_header(header: &SpoolHeader) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(header)?;
    let mut bytes = vec![0; FILE_PREFIX_BYTES + json.len()];
    let mut out = Encoder::new(&mut bytes);
    out.put_bytes(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(json.len() as u32);
    out.put_u32(crc32(&json));
    out.put_bytes(&json);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_blocks_memory_is_used_again() {
        // Tests beside this one take and drop blocks, too.
        let is_used = (0..100).any(|_| {
            let mut block = Block::new();
            block.bytes[BLOCK_BYTES - 1] = 17;
            drop(block);
            Block::new().bytes[BLOCK_BYTES - 1] == 17
        });
        assert!(is_used, "new memory has another value there");
    }
}
