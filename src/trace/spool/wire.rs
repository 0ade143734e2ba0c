//! Each record's bytes: what is put and what is taken, side by side.

use crate::trace::activity::{
    CallActivity, CopyActivity, CopyKind, DriverCall, NodeActivity, OverheadActivity, OverheadKind,
};
use crate::trace::schema::{
    CopyStamp, HostSpan, MemberRecord, NodeSources, NodeStamp, Phase, ReplayRecord, RequestMoment, RequestRecord,
    StepCopies, StepRecord, StepSizes,
};
use crate::trace::session::Counts;

/// A record of fixed length.
pub trait Wire: Sized {
    /// Its first byte.
    const TAG: u8;
    /// Its length without the tag.
    const BYTES: usize;
    /// One of its kind, counted.
    const ONE: Counts;

    /// Writes [`Wire::BYTES`] bytes.
    fn put(&self, out: &mut Encoder<'_>);
    /// Reads what [`Wire::put`] wrote; `None` if the bytes say no such record.
    fn take(from: &mut Decoder<'_>) -> Option<Self>;
}

const NONE: Counts = Counts { steps: 0, members: 0, spans: 0, requests: 0, replays: 0, nodes: 0, activity: 0 };

impl Wire for StepRecord {
    const TAG: u8 = 1;
    const BYTES: usize = 10 * 8 + 1 + 2 * 3 * 8;
    const ONE: Counts = Counts { steps: 1, ..NONE };

    fn put(&self, out: &mut Encoder<'_>) {
        let sizes = &self.sizes;
        for value in [self.step, self.start_ns, self.end_ns, self.done_ns] {
            out.put_u64(value);
        }
        for value in [sizes.tokens, sizes.seqs, sizes.logit_rows, sizes.kv_tokens, sizes.qk_pairs] {
            out.put_u64(value);
        }
        out.put_u64(self.prefill_tokens);
        out.put_u8(self.traced.into());
        for copy in [self.copies.upload, self.copies.download] {
            [copy.start_ns, copy.end_ns, copy.bytes].into_iter().for_each(|value| out.put_u64(value));
        }
    }

    fn take(from: &mut Decoder<'_>) -> Option<StepRecord> {
        Some(StepRecord {
            step: from.take_u64()?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
            done_ns: from.take_u64()?,
            sizes: StepSizes {
                tokens: from.take_u64()?,
                seqs: from.take_u64()?,
                logit_rows: from.take_u64()?,
                kv_tokens: from.take_u64()?,
                qk_pairs: from.take_u64()?,
            },
            prefill_tokens: from.take_u64()?,
            traced: from.take_bool()?,
            copies: StepCopies { upload: take_copy(from)?, download: take_copy(from)? },
        })
    }
}

fn take_copy(from: &mut Decoder<'_>) -> Option<CopyStamp> {
    Some(CopyStamp { start_ns: from.take_u64()?, end_ns: from.take_u64()?, bytes: from.take_u64()? })
}

impl Wire for MemberRecord {
    const TAG: u8 = 2;
    const BYTES: usize = 2 * 8 + 3 * 4;
    const ONE: Counts = Counts { members: 1, ..NONE };

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u64(self.step);
        out.put_u64(self.request);
        out.put_u32(self.tokens);
        out.put_u32(self.prefill_tokens);
        out.put_u32(self.kv_len);
    }

    fn take(from: &mut Decoder<'_>) -> Option<MemberRecord> {
        Some(MemberRecord {
            step: from.take_u64()?,
            request: from.take_u64()?,
            tokens: from.take_u32()?,
            prefill_tokens: from.take_u32()?,
            kv_len: from.take_u32()?,
        })
    }
}

impl Wire for HostSpan {
    const TAG: u8 = 3;
    const BYTES: usize = 1 + 3 * 8;
    const ONE: Counts = Counts { spans: 1, ..NONE };

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u8(self.phase as u8);
        out.put_u64(self.step);
        out.put_u64(self.start_ns);
        out.put_u64(self.end_ns);
    }

    fn take(from: &mut Decoder<'_>) -> Option<HostSpan> {
        Some(HostSpan {
            phase: *Phase::ALL.get(usize::from(from.take_u8()?))?,
            step: from.take_u64()?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
        })
    }
}

impl Wire for RequestRecord {
    const TAG: u8 = 4;
    const BYTES: usize = 1 + 2 * 8 + 4;
    const ONE: Counts = Counts { requests: 1, ..NONE };

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u8(self.moment as u8);
        out.put_u64(self.request);
        out.put_u64(self.at_ns);
        out.put_u32(self.tokens);
    }

    fn take(from: &mut Decoder<'_>) -> Option<RequestRecord> {
        Some(RequestRecord {
            moment: *RequestMoment::ALL.get(usize::from(from.take_u8()?))?,
            request: from.take_u64()?,
            at_ns: from.take_u64()?,
            tokens: from.take_u32()?,
        })
    }
}

impl Wire for ReplayRecord {
    const TAG: u8 = 5;
    const BYTES: usize = 4 * 8 + 4 + 1;
    const ONE: Counts = Counts { replays: 1, ..NONE };

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u64(self.replay);
        out.put_u64(self.step);
        out.put_u32(self.graph);
        out.put_u8(u8::from(self.sources.stamps) | u8::from(self.sources.activity) << 1);
        out.put_u64(self.launch_start_ns);
        out.put_u64(self.launch_end_ns);
    }

    fn take(from: &mut Decoder<'_>) -> Option<ReplayRecord> {
        Some(ReplayRecord {
            replay: from.take_u64()?,
            step: from.take_u64()?,
            graph: from.take_u32()?,
            sources: match from.take_u8()? {
                bits @ 0..4 => NodeSources { stamps: bits & 1 != 0, activity: bits & 2 != 0 },
                _ => return None,
            },
            launch_start_ns: from.take_u64()?,
            launch_end_ns: from.take_u64()?,
        })
    }
}

const ACTIVITY: Counts = Counts { activity: 1, ..NONE };

impl Wire for NodeActivity {
    const TAG: u8 = 7;
    const BYTES: usize = 3 * 4 + 2 * 8;
    const ONE: Counts = ACTIVITY;

    #[inline]
    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u32(self.correlation);
        out.put_u32(self.graph);
        out.put_u32(self.ordinal);
        out.put_u64(self.start_ns);
        out.put_u64(self.end_ns);
    }

    fn take(from: &mut Decoder<'_>) -> Option<NodeActivity> {
        Some(NodeActivity {
            correlation: from.take_u32()?,
            graph: from.take_u32()?,
            ordinal: from.take_u32()?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
        })
    }
}

impl Wire for CopyActivity {
    const TAG: u8 = 8;
    const BYTES: usize = 1 + 4 + 3 * 8;
    const ONE: Counts = ACTIVITY;

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u8(self.kind as u8);
        out.put_u32(self.correlation);
        out.put_u64(self.start_ns);
        out.put_u64(self.end_ns);
        out.put_u64(self.bytes);
    }

    fn take(from: &mut Decoder<'_>) -> Option<CopyActivity> {
        Some(CopyActivity {
            kind: *CopyKind::ALL.get(usize::from(from.take_u8()?))?,
            correlation: from.take_u32()?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
            bytes: from.take_u64()?,
        })
    }
}

impl Wire for CallActivity {
    const TAG: u8 = 9;
    const BYTES: usize = 1 + 3 * 4 + 2 * 8;
    const ONE: Counts = ACTIVITY;

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u8(self.call as u8);
        out.put_u32(self.correlation);
        out.put_u32(self.thread);
        out.put_u32(self.status);
        out.put_u64(self.start_ns);
        out.put_u64(self.end_ns);
    }

    fn take(from: &mut Decoder<'_>) -> Option<CallActivity> {
        Some(CallActivity {
            call: *DriverCall::ALL.get(usize::from(from.take_u8()?))?,
            correlation: from.take_u32()?,
            thread: from.take_u32()?,
            status: from.take_u32()?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
        })
    }
}

impl Wire for OverheadActivity {
    const TAG: u8 = 10;
    const BYTES: usize = 1 + 2 * 8;
    const ONE: Counts = ACTIVITY;

    fn put(&self, out: &mut Encoder<'_>) {
        out.put_u8(self.kind as u8);
        out.put_u64(self.start_ns);
        out.put_u64(self.end_ns);
    }

    fn take(from: &mut Decoder<'_>) -> Option<OverheadActivity> {
        Some(OverheadActivity {
            kind: *OverheadKind::ALL.get(usize::from(from.take_u8()?))?,
            start_ns: from.take_u64()?,
            end_ns: from.take_u64()?,
        })
    }
}

/// Node times stand in runs: replay u64 · ordinal of the first u32 · count u32 · the times.
pub(super) const RUN_TAG: u8 = 6;
/// Bytes of a run before its times, without the tag.
pub(super) const RUN_HEADER_BYTES: usize = 8 + 4 + 4;
/// Bytes of one node's times.
pub(super) const STAMP_BYTES: usize = 3 * 8;

pub(super) fn put_stamp(stamp: &NodeStamp, out: &mut Encoder<'_>) {
    out.put_u64(stamp.start_ns);
    out.put_u64(stamp.end_ns);
    out.put_u64(stamp.wait_ns);
}

pub(super) fn take_stamp(from: &mut Decoder<'_>) -> Option<NodeStamp> {
    Some(NodeStamp { start_ns: from.take_u64()?, end_ns: from.take_u64()?, wait_ns: from.take_u64()? })
}

/// What a request's client calls it: request u64 · length u8 · UTF-8.
pub(super) const NAME_TAG: u8 = 11;
/// The longest name; of longer ones the begin is kept.
pub(super) const NAME_BYTES_MAX: usize = 255;

// The decoders index `ALL` by what the encoders cast.
const _: () = {
    let mut at = 0;
    while at < Phase::ALL.len() {
        assert!(Phase::ALL[at] as usize == at, "Phase::ALL is in the order of declaration");
        at += 1;
    }
    at = 0;
    while at < RequestMoment::ALL.len() {
        assert!(RequestMoment::ALL[at] as usize == at, "RequestMoment::ALL is in the order of declaration");
        at += 1;
    }
};

/// Writes fields into bytes that are known to hold them.
#[derive(Debug)]
pub struct Encoder<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Encoder<'a> {
        Encoder { bytes, at: 0 }
    }

    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }

    pub(super) fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }

    pub(super) fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }
}

/// Takes fields from bytes that may be anything: `None` where they end, or say what no field says.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take_bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(bytes)
    }

    fn take_chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*chunk)
    }

    pub(super) fn take_u8(&mut self) -> Option<u8> {
        self.take_chunk::<1>().map(|[byte]| byte)
    }

    pub(super) fn take_u32(&mut self) -> Option<u32> {
        self.take_chunk().map(u32::from_le_bytes)
    }

    pub(super) fn take_u64(&mut self) -> Option<u64> {
        self.take_chunk().map(u64::from_le_bytes)
    }

    fn take_bool(&mut self) -> Option<bool> {
        match self.take_u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}
