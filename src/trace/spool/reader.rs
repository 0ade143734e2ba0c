//! The reading side: from any bytes to records or an error.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::file::open_regular;
use super::head::Head;
use super::ring::{Placed, Seam, in_order};
use super::wire::{Decoder, NAME_TAG, RUN_TAG, Wire, take_stamp};
use super::{
    BLOCK_HEADER_BYTES, BlockKind, Damage, FILE_PREFIX_BYTES, JSON_BYTES_MAX, MAGIC, SpoolError, SpoolHeader, VERSION,
    crc32,
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

/// Where a block of records stands, for [`Reader::revisit`].
#[derive(Clone, Copy, Debug)]
pub struct Place {
    at: u64,
    head: Head,
}

/// What surrounds a record.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The record's block, unless it is JSON.
    pub place: Option<Place>,
    /// What was recorded before the first record that a ring has.
    pub seam: Option<Seam>,
}

impl Place {
    /// Whether both are the same block.
    pub fn is(&self, other: &Place) -> bool {
        self.at == other.at
    }
}

/// Reads a spool record by record, holding one block, and of a ring each block's header.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    header: SpoolHeader,
    /// Where the current block begins, and where the next one will.
    block_at: u64,
    next_at: u64,
    sequence: u32,
    /// Of the current block, if it holds records.
    place: Option<Place>,
    /// The blocks of a ring that are still to be read.
    ring: Option<std::vec::IntoIter<Placed>>,
    /// The seam of the first block of records.
    seam: Option<Seam>,
    /// It was closed: all that was begun in it was ended.
    is_ring_closed: bool,
    /// JSON that goes on in the next block.
    json: Vec<u8>,
    /// The current block's records, and how many of their bytes were read.
    payload: Vec<u8>,
    read: usize,
    stamps: Vec<NodeStamp>,
    ended: bool,
    closed: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a regular file and reads its header.
    pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, SpoolError> {
        Reader::new(BufReader::new(open_regular(path)?))
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the header, and of a ring which blocks there are. The file begins where the source does.
    pub fn new(mut source: R) -> Result<Reader<R>, SpoolError> {
        let mut bytes = Vec::new();
        read_up_to(&mut source, 0, FILE_PREFIX_BYTES, &mut bytes)?;
        if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) || bytes.is_empty() {
            return Err(SpoolError::NotASpool);
        }
        let mut prefix = Decoder::new(bytes.get(MAGIC.len()..).unwrap_or_default());
        if let Some(found) = prefix.take_u32().filter(|found| *found != VERSION) {
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
        let header: SpoolHeader = serde_json::from_slice(&bytes).map_err(|_| SpoolError::HeaderDamaged)?;
        let ring = header.ring.map(|places| in_order(&mut source, next_at, places)).transpose()?;
        let last = ring.as_ref().and_then(|blocks| blocks.last());
        let is_ring_closed = last.is_some_and(|block| block.head.kind == BlockKind::Closing);
        bytes.clear();
        Ok(Reader {
            source,
            header,
            block_at: next_at,
            next_at,
            sequence: 0,
            place: None,
            ring: ring.map(Vec::into_iter),
            seam: None,
            is_ring_closed,
            json: Vec::new(),
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

    /// What was recorded before the first record that a ring has; known once there was one.
    pub fn seam(&self) -> Option<&Seam> {
        self.seam.as_ref()
    }

    /// The next record; `None` at the end of the last whole block.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, SpoolError> {
        Ok(self.read_in_context()?.map(|(record, _)| record))
    }

    /// The same, with where it stands.
    pub fn read_in_context(&mut self) -> Result<Option<(Record<'_>, Context)>, SpoolError> {
        while self.read == self.payload.len() {
            let Some(kind) = self.read_block()? else {
                self.ended = true;
                return Ok(None);
            };
            if kind == BlockKind::Records {
                self.take_seam()?;
                continue;
            }
            self.read = self.payload.len();
            self.json.extend_from_slice(&self.payload);
            if kind == BlockKind::Part {
                continue;
            }
            self.closed = kind == BlockKind::Closing;
            let json = match kind {
                BlockKind::Closing => {
                    serde_json::from_slice(&self.json).map(|closing| Record::Closing(Box::new(closing)))
                }
                _ => serde_json::from_slice(&self.json).map(Record::Graph),
            };
            self.json.clear();
            let context = Context { place: None, seam: self.seam };
            return json.map(|record| Some((record, context))).map_err(|_| self.damaged(Damage::Content));
        }
        let context = Context { place: self.place, seam: self.seam };
        let mut from = Decoder::new(&self.payload[self.read..]);
        let record = take_record(&mut from, &mut self.stamps);
        self.read = self.payload.len() - from.left();
        match record {
            // Written so because the borrow checker does not let `stamps` leave from within the take.
            Some(Taken::Nodes { replay, first }) => {
                Ok(Some((Record::Nodes { replay, first, stamps: &self.stamps }, context)))
            }
            Some(Taken::Fixed(record)) => Ok(Some((record, context))),
            None => Err(self.damaged(Damage::Content)),
        }
    }

    /// Gives each record of a block that was read before. Where [`Reader::read`] goes on is not known afterwards.
    pub fn revisit(&mut self, place: &Place, mut each: impl FnMut(Record<'_>)) -> Result<(), SpoolError> {
        let Place { at, head } = *place;
        let damaged = |damage| SpoolError::Damaged { offset: at, damage };
        let payload_at = at.saturating_add(BLOCK_HEADER_BYTES as u64);
        let seek = self.source.seek(SeekFrom::Start(payload_at));
        seek.map_err(|source| SpoolError::Read { offset: payload_at, source })?;
        read_up_to(&mut self.source, payload_at, head.bytes, &mut self.payload)?;
        if self.payload.len() < head.bytes {
            return Err(damaged(Damage::Short));
        }
        if crc32(&self.payload) != head.checksum {
            return Err(damaged(Damage::Checksum));
        }
        let begin = if self.header.ring.is_some() { Seam::BYTES } else { 0 };
        let mut from = Decoder::new(self.payload.get(begin..).unwrap_or_default());
        while from.left() > 0 {
            match take_record(&mut from, &mut self.stamps).ok_or_else(|| damaged(Damage::Content))? {
                Taken::Nodes { replay, first } => each(Record::Nodes { replay, first, stamps: &self.stamps }),
                Taken::Fixed(record) => each(record),
            }
        }
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> SpoolError {
        SpoolError::Damaged { offset: self.block_at, damage }
    }

    /// A ring's block of records begins with its seam.
    fn take_seam(&mut self) -> Result<(), SpoolError> {
        if self.ring.is_some() {
            let seam = Seam::take(&mut Decoder::new(&self.payload));
            let seam = seam.ok_or_else(|| self.damaged(Damage::Content))?;
            self.read = Seam::BYTES;
            self.seam.get_or_insert(seam);
        }
        Ok(())
    }

    /// Reads a block into `payload`. `None` where the file ends, in a block or between two.
    fn read_block(&mut self) -> Result<Option<BlockKind>, SpoolError> {
        self.payload.clear();
        self.read = 0;
        if self.ended {
            return Ok(None);
        }
        let kind = if self.ring.is_some() { self.read_placed()? } else { self.read_next()? };
        if kind.is_none() {
            self.payload.clear();
        }
        // A graph that its writer did not finish is none.
        let goes_on = matches!(kind, Some(BlockKind::Part | BlockKind::Graph));
        if !self.json.is_empty() && !goes_on {
            self.json.clear();
            if self.is_ring_closed {
                return Err(self.damaged(Damage::Content));
            }
        }
        if self.json.len() > JSON_BYTES_MAX {
            return Err(self.damaged(Damage::Length { bytes: self.json.len() as u32 }));
        }
        Ok(kind)
    }

    /// The block that follows in the file.
    fn read_next(&mut self) -> Result<Option<BlockKind>, SpoolError> {
        self.block_at = self.next_at;
        read_up_to(&mut self.source, self.block_at, BLOCK_HEADER_BYTES, &mut self.payload)?;
        if self.closed && !self.payload.is_empty() {
            return Err(self.damaged(Damage::Trailing));
        }
        let Some(header) = self.payload.first_chunk::<BLOCK_HEADER_BYTES>().copied() else { return Ok(None) };
        let head = Head::parse(&header, false).map_err(|damage| self.damaged(damage))?;
        if head.sequence != self.sequence {
            return Err(self.damaged(Damage::Sequence { expected: self.sequence, found: head.sequence }));
        }
        let payload_at = self.block_at + BLOCK_HEADER_BYTES as u64;
        read_up_to(&mut self.source, payload_at, head.bytes, &mut self.payload)?;
        if self.payload.len() < head.bytes {
            return Ok(None);
        }
        if crc32(&self.payload) != head.checksum {
            return Err(self.damaged(Damage::Checksum));
        }
        self.place = Some(Place { at: self.block_at, head });
        self.next_at = payload_at + head.bytes as u64;
        self.sequence += 1;
        Ok(Some(head.kind))
    }

    /// The whole block that follows in a ring.
    fn read_placed(&mut self) -> Result<Option<BlockKind>, SpoolError> {
        while let Some(block) = self.ring.as_mut().and_then(Iterator::next) {
            let Placed { at, head, zeros, may_be_cut, may_be_torn } = block;
            self.block_at = at;
            let payload_at = at.saturating_add(BLOCK_HEADER_BYTES as u64);
            let seek = self.source.seek(SeekFrom::Start(payload_at));
            seek.map_err(|source| SpoolError::Read { offset: payload_at, source })?;
            read_up_to(&mut self.source, payload_at, head.bytes, &mut self.payload)?;
            let damage = match self.payload.len() < head.bytes {
                true if may_be_cut => continue,
                true => Some(Damage::Short),
                false if crc32(&self.payload) == head.checksum => None,
                false if may_be_torn => continue,
                false => Some(Damage::Checksum),
            };
            if let Some(damage) = damage {
                return Err(self.damaged(damage));
            }
            self.place = Some(Place { at, head });
            self.next_at = payload_at.saturating_add(head.bytes as u64);
            let mut padding = Vec::new();
            read_up_to(&mut self.source, self.next_at, zeros, &mut padding)?;
            if !may_be_torn && padding.iter().any(|byte| *byte != 0) {
                return Err(self.damaged(Damage::Padding));
            }
            return Ok(Some(head.kind));
        }
        self.payload.clear();
        self.read_end()
    }

    /// Nothing comes behind the closing block.
    fn read_end(&mut self) -> Result<Option<BlockKind>, SpoolError> {
        if self.closed {
            self.block_at = self.next_at;
            read_up_to(&mut self.source, self.block_at, 1, &mut self.payload)?;
            if !self.payload.is_empty() {
                return Err(self.damaged(Damage::Trailing));
            }
        }
        Ok(None)
    }
}

/// Gives each record of a block's content; what is no record ends it.
pub fn read_records(content: &[u8], mut each: impl FnMut(Record<'_>)) {
    let (mut from, mut stamps) = (Decoder::new(content), Vec::new());
    while let Some(taken) = take_record(&mut from, &mut stamps) {
        each(match taken {
            Taken::Nodes { replay, first } => Record::Nodes { replay, first, stamps: &stamps },
            Taken::Fixed(record) => record,
        });
    }
}

/// Replaces `bytes` by the next `count` bytes, or by as many as there are. Memory grows with what was read, not with
/// what a header claims.
pub(super) fn read_up_to(
    source: &mut impl Read,
    offset: u64,
    count: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), SpoolError> {
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
