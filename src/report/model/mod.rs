//! A recording in memory: records by kind, sorted, with what refers to what resolved. All of it ([`Recording::load`]),
//! or one window of consecutive steps after the other ([`Windows`]), in memory that does not grow with the recording.

mod activity;
mod cuts;
mod index;
mod resolve;
mod ring;
mod survey;
mod windows;

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

use self::activity::KnownCalls;
use self::resolve::Raw;
pub use self::ring::Lost;
use self::ring::Sieve;
pub(super) use self::survey::Survey;
pub(super) use self::windows::Window;
pub use self::windows::{WINDOW_RECORDS, Windows};
use crate::report::ReportError;
use crate::trace::activity::{CallActivity, CopyActivity, CopyKind, OverheadActivity};
use crate::trace::schema::{
    CopyStamp, GraphKey, GraphTable, HostSpan, MemberRecord, NodeInfo, ReplayRecord, RequestRecord, StepRecord,
};
use crate::trace::session::Closing;
use crate::trace::spool::{Reader, Record, SpoolError, SpoolHeader};

/// The most node times of a report, and of a window that does not come apart, stamps and activity together: their
/// numbers are u32, and each takes about 80 bytes while a spool is read.
const NODES_MAX: usize = 100_000_000;

/// A recording in memory.
#[derive(Debug)]
pub struct Recording {
    /// What it begins with.
    pub header: SpoolHeader,
    /// Graphs, those captured while recording too. By id.
    pub graphs: Vec<GraphTable>,
    /// By number.
    pub steps: Vec<StepRecord>,
    /// By step.
    pub members: Vec<MemberRecord>,
    /// By begin.
    pub spans: Vec<HostSpan>,
    /// By time.
    pub requests: Vec<RequestRecord>,
    /// What clients call their requests, by request.
    pub names: BTreeMap<u64, String>,
    /// By number.
    pub replays: Vec<Replay>,
    /// Valid node times; those of one replay stand together, by begin.
    pub nodes: Vec<NodeTime>,
    /// Indices of `nodes`, by begin over the whole recording.
    pub nodes_by_start: Vec<u32>,
    /// The counts at its end; `None` if it was cut off before.
    pub closing: Option<Closing>,
    /// What a ring has lost to later records, if it has.
    pub lost: Option<Lost>,
    /// Records that refer to a graph or replay which is not there. They are in no other field. Without those of the
    /// activity, which [`Seen`] counts.
    pub orphans: u64,
    /// What the driver's profiling library saw.
    pub seen: Seen,
    /// First and last moment that any record names; `None` if there is none.
    moments: Option<(u64, u64)>,
}

/// A replay.
#[derive(Clone, Debug)]
pub struct Replay {
    /// As recorded.
    pub record: ReplayRecord,
    /// Its graph, as an index of [`Recording::graphs`].
    pub graph: usize,
    /// Its nodes, as indices of [`Recording::nodes`].
    pub nodes: Range<usize>,
    /// Node times that it has and that are no times.
    pub invalid: u64,
    /// The same nodes as the activity has them, as indices of [`Seen::nodes`]; empty unless both sources timed it.
    pub seen: Range<usize>,
    /// Nodes of the activity that have no times; those of a replay without stamps are in `invalid`, too.
    pub seen_invalid: u64,
}

impl Replay {
    /// Whether the activity alone timed its nodes: its node times are made of it.
    pub fn is_activity_alone(&self) -> bool {
        self.record.sources.activity && !self.record.sources.stamps
    }

    /// Nodes of it that the activity has, with times.
    pub fn seen_nodes(&self) -> u64 {
        (if self.is_activity_alone() { self.nodes.len() } else { self.seen.len() }) as u64
    }

    /// Whether both sources timed its nodes.
    pub fn has_both(&self) -> bool {
        self.record.sources.activity && self.record.sources.stamps
    }
}

/// A valid node time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTime {
    /// The replay, as an index of [`Recording::replays`].
    pub replay: u32,
    /// The node, as an index of its graph's nodes.
    pub ordinal: u32,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// The part of it during which no node that began before was still running.
    pub excl_ns: u64,
    /// Time that workers waited for each other at its end, summed over workers; 0 where the activity alone timed it.
    pub wait_ns: u64,
}

/// What the driver's profiling library saw: its records, resolved.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls of the driver, by begin.
    pub calls: Vec<Call>,
    /// Valid copies and fills, by begin.
    pub copies: Vec<DeviceCopy>,
    /// What the library took for itself, by begin.
    pub overheads: Vec<OverheadActivity>,
    /// Valid nodes of replays that have stamps too, by replay and ordinal. Those of other replays are in
    /// [`Recording::nodes`].
    pub nodes: Vec<SeenNode>,
    /// The steps that it was to see, ascending.
    pub steps: Vec<u64>,
    /// The engine's thread, in the words of its calls.
    pub engine_thread: u32,
    /// Nodes of no replay here: their launch is not in the recording, or is one of another graph.
    pub unresolved: u64,
    /// Second times of nodes, by replays that have stamps too, and by those that have not.
    pub surplus: [u64; 2],
    /// Copies whose call is not in the recording.
    pub unlaunched_copies: u64,
}

/// A call of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// As recorded.
    pub record: CallActivity,
    /// The replay that it launched, as an index of [`Recording::replays`].
    pub replay: Option<u32>,
}

/// A copy or fill that the device made.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCopy {
    /// As recorded.
    pub record: CopyActivity,
    /// The call that asked for it, as an index of [`Seen::calls`].
    pub call: Option<u32>,
}

/// A node that ran, by the activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenNode {
    /// The replay, as an index of [`Recording::replays`].
    pub replay: u32,
    /// The node, as an index of its graph's nodes.
    pub ordinal: u32,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

impl Recording {
    /// Reads a spool.
    pub fn load(path: &Path) -> Result<Recording, ReportError> {
        let in_spool = |source| ReportError::Spool { path: path.into(), source };
        let mut reader = Reader::open(path).map_err(in_spool)?;
        match Recording::read_up_to(&mut reader, NODES_MAX).map_err(in_spool)? {
            (recording, true) => Ok(recording),
            (_, false) => Err(ReportError::TooLarge { path: path.into(), what: "node times", limit: NODES_MAX as u64 }),
        }
    }

    /// Reads the records of an opened spool, and stops behind [`NODES_MAX`] node times.
    pub fn read<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Recording, SpoolError> {
        Recording::read_up_to(reader, NODES_MAX).map(|(recording, _)| recording)
    }

    /// Whether that is all, too.
    fn read_up_to<R: Read + Seek>(reader: &mut Reader<R>, nodes_max: usize) -> Result<(Recording, bool), SpoolError> {
        let (mut raw, mut sieve) = (Raw::default(), Sieve::default());
        let mut recording = Recording::empty(reader.header().clone());
        while raw.nodes() <= nodes_max
            && let Some((record, context)) = reader.read_in_context()?
        {
            if sieve.keeps(&record, context.seam) {
                recording.take(record, &mut raw);
            }
        }
        let is_whole = raw.nodes() <= nodes_max;
        (recording.lost, recording.orphans) = sieve.end();
        recording.resolve(raw, &KnownCalls::default());
        recording.moments = recording.first_and_last_moment();
        Ok((recording, is_whole))
    }

    fn empty(header: SpoolHeader) -> Recording {
        Recording {
            graphs: header.graphs.clone(),
            header,
            steps: Vec::new(),
            members: Vec::new(),
            spans: Vec::new(),
            requests: Vec::new(),
            names: BTreeMap::new(),
            replays: Vec::new(),
            nodes: Vec::new(),
            nodes_by_start: Vec::new(),
            closing: None,
            lost: None,
            orphans: 0,
            seen: Seen::default(),
            moments: None,
        }
    }

    /// Adds a record that is part of the recording.
    fn take(&mut self, record: Record<'_>, raw: &mut Raw) {
        match record {
            Record::Graph(table) => self.graphs.push(table),
            Record::Step(step) => self.steps.push(step),
            Record::Member(member) => self.members.push(member),
            Record::Span(span) => self.spans.push(span),
            Record::Request(request) => self.requests.push(request),
            Record::Name { request, name } => drop(self.names.insert(request, name)),
            Record::Replay(replay) => raw.push_replay(replay),
            Record::Nodes { first, stamps, .. } => raw.push_stamps(first, stamps),
            Record::Activity(activity) => raw.activity.push(activity),
            Record::Closing(closing) => self.closing = Some(*closing),
        }
    }

    /// A node's description.
    pub fn info(&self, node: &NodeTime) -> &NodeInfo {
        &self.graphs[self.replays[node.replay as usize].graph].nodes[node.ordinal as usize]
    }

    /// A step by its number.
    pub fn step(&self, step: u64) -> Option<&StepRecord> {
        self.steps.binary_search_by_key(&step, |record| record.step).ok().map(|at| &self.steps[at])
    }

    /// The rows of a step's batch.
    pub fn members_of(&self, step: u64) -> &[MemberRecord] {
        let from = self.members.partition_point(|member| member.step < step);
        let to = self.members.partition_point(|member| member.step <= step);
        &self.members[from..to]
    }

    /// For each step that has replays the graphs that it replayed, in order.
    pub(super) fn graphs_by_step(&self) -> BTreeMap<u64, Vec<GraphKey>> {
        let mut graphs: BTreeMap<u64, Vec<GraphKey>> = BTreeMap::new();
        for replay in &self.replays {
            graphs.entry(replay.record.step).or_default().push(self.graphs[replay.graph].key);
        }
        graphs
    }

    /// Replays whose launch the driver's profiling library did not see.
    pub(super) fn unseen_launches(&self) -> impl Iterator<Item = &ReplayRecord> {
        let mut is_seen = vec![false; self.replays.len()];
        self.seen.calls.iter().filter_map(|call| call.replay).for_each(|replay| is_seen[replay as usize] = true);
        self.replays.iter().zip(is_seen).filter(|(_, is_seen)| !is_seen).map(|(replay, _)| &replay.record)
    }

    /// Copies that the device stamped, with their step: of steps that no activity was to see.
    pub fn stamped_copies(&self) -> impl Iterator<Item = (&StepRecord, CopyKind, CopyStamp)> {
        let steps = self.steps.iter().filter(|step| self.seen.steps.binary_search(&step.step).is_err());
        let copies = steps.flat_map(|step| {
            [(step, CopyKind::HtoD, step.copies.upload), (step, CopyKind::DtoH, step.copies.download)]
        });
        copies.filter(|(_, _, copy)| copy.is_valid())
    }

    /// First and last moment that any record names; both the clock anchor's if there is none.
    pub fn span(&self) -> (u64, u64) {
        let anchor_ns = self.header.session.clock.monotonic_ns;
        self.moments.unwrap_or((anchor_ns, anchor_ns))
    }

    fn first_and_last_moment(&self) -> Option<(u64, u64)> {
        let steps = self.steps.iter().map(|step| (step.start_ns, step.end_ns.max(step.done_ns)));
        let spans = self.spans.iter().map(|span| (span.start_ns, span.end_ns));
        let requests = self.requests.iter().map(|request| (request.at_ns, request.at_ns));
        let launches = self.replays.iter().map(|replay| (replay.record.launch_start_ns, replay.record.launch_end_ns));
        let nodes = self.nodes.iter().map(|node| (node.start_ns, node.end_ns));
        let copies = self.steps.iter().flat_map(|step| [step.copies.upload, step.copies.download]);
        let copies = copies.filter(CopyStamp::is_valid).map(|copy| (copy.start_ns, copy.end_ns));
        let all =
            steps.chain(spans).chain(requests).chain(launches).chain(nodes).chain(copies).chain(self.seen.times());
        all.map(|(start, end)| (start, end.max(start))).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// What a step is named by: `forward.decode.8 + sample.plain.8`.
pub(super) fn names(graphs: &[GraphKey]) -> String {
    graphs.iter().map(GraphKey::to_string).collect::<Vec<_>>().join(" + ")
}

impl Seen {
    /// Begin and end of every record.
    fn times(&self) -> impl Iterator<Item = (u64, u64)> {
        let calls = self.calls.iter().map(|call| (call.record.start_ns, call.record.end_ns));
        let copies = self.copies.iter().map(|copy| (copy.record.start_ns, copy.record.end_ns));
        let overheads = self.overheads.iter().map(|overhead| (overhead.start_ns, overhead.end_ns));
        let nodes = self.nodes.iter().map(|node| (node.start_ns, node.end_ns));
        calls.chain(copies).chain(overheads).chain(nodes)
    }

    /// Whether a call was made by the engine's thread.
    pub fn is_engine(&self, call: &Call) -> bool {
        call.record.thread == self.engine_thread
    }

    /// A node as the activity has it; `None` if it has not.
    pub fn node(&self, replay: &Replay, ordinal: u32) -> Option<&SeenNode> {
        let nodes = self.nodes.get(replay.seen.clone())?;
        // All of them are there but in a recording with a shortfall.
        if let Some(node) = nodes.get(ordinal as usize).filter(|node| node.ordinal == ordinal) {
            return Some(node);
        }
        nodes.binary_search_by_key(&ordinal, |node| node.ordinal).ok().map(|at| &nodes[at])
    }
}
