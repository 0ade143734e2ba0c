//! The reading side: from any bytes to records or an error.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::wire::{Decoder, NAME_TAG, RUN_TAG, Wire, take_stamp};
use super::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockKind, Damage, FILE_PREFIX_BYTES, JSON_BYTES_MAX, MAGIC, SpoolError,
    SpoolHeader, VERSION, crc32,
};
use crate::trace::activity::{Activity, CallActivity, CopyActivity, NodeActivity, OverheadActivity};
use crate::trace::schema::{GraphTable, HostSpan, MemberRecord, NodeStamp, ReplayRecord, RequestRecord, StepRecord};
use crate::trace::session::Closing;

/// What a spool holds, in the order of recording.
#[derive(Debug)]
pub enum Record<'a> {
    /// A graph was captured.
    Graph(GraphTable),
    /// A step was done.
    Step(StepRecord),
    /// A row of a step's batch composition.
    Member(MemberRecord),
    /// A host phase.
    Span(HostSpan),
    /// A moment of a request.
    Request(RequestRecord),
    /// What a request's client calls it.
    Name {
        /// The request.
        request: u64,
        /// Its name, up to 255 bytes.
        name: String,
    },
    /// A replay; its node times follow.
    Replay(ReplayRecord),
    /// Times of the last replay's nodes, from ordinal `first` on. They may be invalid.
    Nodes {
        /// The replay.
        replay: u64,
        /// The first node's ordinal.
        first: u32,
        /// One entry per node.
        stamps: &'a [NodeStamp],
    },
    /// The driver's profiling library saw this.
    Activity(Activity),
    /// The counts; nothing comes after.
    Closing(Box<Closing>),
}

/// Reads a spool record by record, holding one block.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    header: SpoolHeader,
    /// Where the current block begins, and where the next one will.
    block_at: u64,
    next_at: u64,
    sequence: u32,
    /// The current block's records, and how many of their bytes were read.
    payload: Vec<u8>,
    read: usize,
    stamps: Vec<NodeStamp>,
    ended: bool,
    closed: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, SpoolError> {
        let file = File::open(path).map_err(|source| SpoolError::Open { path: path.into(), source })?;
        Reader::new(BufReader::new(file))
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut source: R) -> Result<Reader<R>, SpoolError> {
        let mut bytes = Vec::new();
        read_up_to(&mut source, 0, FILE_PREFIX_BYTES, &mut bytes)?;
        if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) || bytes.is_empty() {
            return Err(SpoolError::NotASpool);
        }
        let mut prefix = Decoder::new(bytes.get(MAGIC.len()..).unwrap_or_default());
        let version = prefix.take_u32();
        if let Some(found) = version.filter(|found| *found != VERSION) {
            return Err(SpoolError::Version { found });
        }
        let (Some(json_bytes), Some(checksum)) = (prefix.take_u32(), prefix.take_u32()) else {
            return Err(SpoolError::HeaderCut { bytes: bytes.len() as u64 });
        };
        let json_bytes = json_bytes as usize;
        if json_bytes > JSON_BYTES_MAX {
            return Err(SpoolError::HeaderDamaged);
        }
        read_up_to(&mut source, FILE_PREFIX_BYTES as u64, json_bytes, &mut bytes)?;
        let next_at = (FILE_PREFIX_BYTES + json_bytes) as u64;
        if bytes.len() < json_bytes {
            return Err(SpoolError::HeaderCut { bytes: (FILE_PREFIX_BYTES + bytes.len()) as u64 });
        }
        if crc32(&bytes) != checksum {
            return Err(SpoolError::HeaderDamaged);
        }
        let header = serde_json::from_slice(&bytes).map_err(|_| SpoolError::HeaderDamaged)?;
        bytes.clear();
        Ok(Reader {
            source,
            header,
            block_at: next_at,
            next_at,
            sequence: 0,
            payload: bytes,
            read: 0,
            stamps: Vec::new(),
            ended: false,
            closed: false,
        })
    }

    /// What the recording begins with.
    pub fn header(&self) -> &SpoolHeader {
        &self.header
    }

    /// Whether the file ended without its closing block. Known once [`Reader::read`] has returned `None`.
    pub fn truncated(&self) -> bool {
        self.ended && !self.closed
    }

    /// The next record; `None` at the end of the last whole block.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, SpoolError> {
        while self.read == self.payload.len() {
            let Some(kind) = self.read_block()? else {
                self.ended = true;
                return Ok(None);
            };
            let json = match kind {
                BlockKind::Records => continue,
                BlockKind::Graph => serde_json::from_slice(&self.payload).map(Record::Graph),
                BlockKind::Closing => {
                    serde_json::from_slice(&self.payload).map(|closing| Record::Closing(Box::new(closing)))
                }
            };
            self.read = self.payload.len();
            self.closed = kind == BlockKind::Closing;
            return json.map(Some).map_err(|_| self.damaged(Damage::Content));
        }
        let mut from = Decoder::new(&self.payload[self.read..]);
        let record = take_record(&mut from, &mut self.stamps);
        self.read = self.payload.len() - from.left();
        match record {
            // Written so because the borrow checker does not let `stamps` leave from within the take.
            Some(Taken::Nodes { replay, first }) => Ok(Some(Record::Nodes { replay, first, stamps: &self.stamps })),
            Some(Taken::Fixed(record)) => Ok(Some(record)),
            None => Err(self.damaged(Damage::Content)),
        }
    }

    fn damaged(&self, damage: Damage) -> SpoolError {
        SpoolError::Damaged { offset: self.block_at, damage }
    }

    /// Reads a block into `payload`. `None` where the file ends, in a block or between two.
    fn read_block(&mut self) -> Result<Option<BlockKind>, SpoolError> {
        self.block_at = self.next_at;
        self.payload.clear();
        self.read = 0;
        if self.ended {
            return Ok(None);
        }
        read_up_to(&mut self.source, self.block_at, BLOCK_HEADER_BYTES, &mut self.payload)?;
        if self.closed && !self.payload.is_empty() {
            return Err(self.damaged(Damage::Trailing));
        }
        let Some(header) = self.payload.first_chunk::<BLOCK_HEADER_BYTES>().copied() else {
            self.payload.clear();
            return Ok(None);
        };
        let (kind, payload_bytes, checksum) = self.check_header(&header)?;
        let payload_at = self.block_at + BLOCK_HEADER_BYTES as u64;
        read_up_to(&mut self.source, payload_at, payload_bytes, &mut self.payload)?;
        if self.payload.len() < payload_bytes {
            self.payload.clear();
            return Ok(None);
        }
        if crc32(&self.payload) != checksum {
            return Err(self.damaged(Damage::Checksum));
        }
        self.next_at = payload_at + payload_bytes as u64;
        self.sequence += 1;
        Ok(Some(kind))
    }

    fn check_header(&self, header: &[u8; BLOCK_HEADER_BYTES]) -> Result<(BlockKind, usize, u32), SpoolError> {
        let words: [u32; BLOCK_HEADER_BYTES / 4] =
            std::array::from_fn(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[4 * at + byte])));
        let [magic, kind, sequence, bytes, checksum, header_checksum] = words;
        if magic.to_le_bytes() != BLOCK_MAGIC {
            return Err(self.damaged(Damage::Magic));
        }
        if crc32(&header[..BLOCK_HEADER_BYTES - 4]) != header_checksum {
            return Err(self.damaged(Damage::HeaderChecksum));
        }
        let kind = BlockKind::from_u32(kind).ok_or_else(|| self.damaged(Damage::Kind { kind }))?;
        if sequence != self.sequence {
            return Err(self.damaged(Damage::Sequence { expected: self.sequence, found: sequence }));
        }
        if bytes as usize > kind.payload_bytes_max() || bytes == 0 {
            return Err(self.damaged(Damage::Length { bytes }));
        }
        Ok((kind, bytes as usize, checksum))
    }
}

/// Replaces `bytes` by the next `count` bytes, or by as many as there are. Memory grows with what was read, not with
/// what a header claims.
fn read_up_to(source: &mut impl Read, offset: u64, count: usize, bytes: &mut Vec<u8>) -> Result<(), SpoolError> {
    bytes.clear();
    let read = source.by_ref().take(count as u64).read_to_end(bytes);
    read.map(|_| ()).map_err(|source| SpoolError::Read { offset, source })
}

enum Taken {
    Fixed(Record<'static>),
    Nodes { replay: u64, first: u32 },
}

fn take_record(from: &mut Decoder<'_>, stamps: &mut Vec<NodeStamp>) -> Option<Taken> {
    let fixed = match from.take_u8()? {
        StepRecord::TAG => Record::Step(StepRecord::take(from)?),
        MemberRecord::TAG => Record::Member(MemberRecord::take(from)?),
        HostSpan::TAG => Record::Span(HostSpan::take(from)?),
        RequestRecord::TAG => Record::Request(RequestRecord::take(from)?),
        ReplayRecord::TAG => Record::Replay(ReplayRecord::take(from)?),
        NodeActivity::TAG => Record::Activity(Activity::Node(NodeActivity::take(from)?)),
        CopyActivity::TAG => Record::Activity(Activity::Copy(CopyActivity::take(from)?)),
        CallActivity::TAG => Record::Activity(Activity::Call(CallActivity::take(from)?)),
        OverheadActivity::TAG => Record::Activity(Activity::Overhead(OverheadActivity::take(from)?)),
        NAME_TAG => {
            let (request, length) = (from.take_u64()?, from.take_u8()?);
            let name = str::from_utf8(from.take_bytes(length.into())?).ok()?.to_owned();
            Record::Name { request, name }
        }
        RUN_TAG => {
            let (replay, first, count) = (from.take_u64()?, from.take_u32()?, from.take_u32()?);
            first.checked_add(count)?;
            stamps.clear();
            for _ in 0..count {
                stamps.push(take_stamp(from)?);
            }
            return Some(Taken::Nodes { replay, first });
        }
        _ => return None,
    };
    Some(Taken::Fixed(fixed))
}
