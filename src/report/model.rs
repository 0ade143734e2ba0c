//! A recording in memory: records by kind, sorted, with what refers to what resolved.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::report::ReportError;
use crate::trace::schema::{
    CopyStamp, GraphTable, HostSpan, MemberRecord, NodeInfo, NodeStamp, ReplayRecord, RequestRecord, StepRecord,
};
use crate::trace::session::Closing;
use crate::trace::spool::{Reader, Record, SpoolError, SpoolHeader};

/// The most node times of a report: their numbers are u32, and each takes about 80 bytes while a spool is read.
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
    /// By number.
    pub replays: Vec<Replay>,
    /// Valid node times; those of one replay stand together, by begin.
    pub nodes: Vec<NodeTime>,
    /// Indices of `nodes`, by begin over the whole recording.
    pub nodes_by_start: Vec<u32>,
    /// The counts at its end; `None` if it was cut off before.
    pub closing: Option<Closing>,
    /// Records that refer to a graph or replay which is not there. They are in no other field.
    pub orphans: u64,
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
    /// Time that workers waited for each other at its end, summed over workers.
    pub wait_ns: u64,
}

impl Recording {
    /// Reads a spool.
    pub fn load(path: &Path) -> Result<Recording, ReportError> {
        let in_spool = |source| ReportError::Spool { path: path.into(), source };
        let mut reader = Reader::open(path).map_err(in_spool)?;
        let recording = Recording::read(&mut reader).map_err(in_spool)?;
        if recording.nodes.len() > NODES_MAX {
            return Err(ReportError::TooLarge { path: path.into(), what: "node times", limit: NODES_MAX as u64 });
        }
        Ok(recording)
    }

    /// Reads the records of an opened spool, and stops behind [`NODES_MAX`] node times.
    pub fn read<R: Read>(reader: &mut Reader<R>) -> Result<Recording, SpoolError> {
        let mut raw = Raw::default();
        let mut recording = Recording {
            header: reader.header().clone(),
            graphs: reader.header().graphs.clone(),
            steps: Vec::new(),
            members: Vec::new(),
            spans: Vec::new(),
            requests: Vec::new(),
            replays: Vec::new(),
            nodes: Vec::new(),
            nodes_by_start: Vec::new(),
            closing: None,
            orphans: 0,
        };
        while raw.stamps.len() <= NODES_MAX
            && let Some(record) = reader.read()?
        {
            match record {
                Record::Graph(table) => recording.graphs.push(table),
                Record::Step(step) => recording.steps.push(step),
                Record::Member(member) => recording.members.push(member),
                Record::Span(span) => recording.spans.push(span),
                Record::Request(request) => recording.requests.push(request),
                Record::Replay(replay) => raw.push_replay(replay),
                Record::Nodes { replay, first, stamps } => recording.orphans += raw.push_stamps(replay, first, stamps),
                Record::Activity(_) => {}
                Record::Closing(closing) => recording.closing = Some(closing),
            }
        }
        recording.sort();
        recording.resolve(raw);
        recording.fill_exclusive();
        Ok(recording)
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

    /// First and last moment that any record names; `None` if there is none.
    pub fn window(&self) -> Option<(u64, u64)> {
        let steps = self.steps.iter().map(|step| (step.start_ns, step.end_ns.max(step.done_ns)));
        let spans = self.spans.iter().map(|span| (span.start_ns, span.end_ns));
        let requests = self.requests.iter().map(|request| (request.at_ns, request.at_ns));
        let launches = self.replays.iter().map(|replay| (replay.record.launch_start_ns, replay.record.launch_end_ns));
        let nodes = self.nodes.iter().map(|node| (node.start_ns, node.end_ns));
        let copies = self.steps.iter().flat_map(|step| [step.copies.upload, step.copies.download]);
        let copies = copies.filter(CopyStamp::is_valid).map(|copy| (copy.start_ns, copy.end_ns));
        let all = steps.chain(spans).chain(requests).chain(launches).chain(nodes).chain(copies);
        all.map(|(start, end)| (start, end.max(start))).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn sort(&mut self) {
        self.graphs.sort_by_key(|graph| graph.id);
        self.graphs.dedup_by_key(|graph| graph.id);
        self.steps.sort_by_key(|step| step.step);
        self.members.sort_by_key(|member| member.step);
        self.spans.sort_by_key(|span| (span.start_ns, std::cmp::Reverse(span.end_ns)));
        self.requests.sort_by_key(|request| request.at_ns);
    }

    fn resolve(&mut self, mut raw: Raw) {
        raw.replays.sort_by_key(|replay| replay.record.replay);
        self.nodes.reserve(raw.stamps.len());
        for replay in raw.replays {
            let Ok(graph) = self.graphs.binary_search_by_key(&replay.record.graph, |graph| graph.id) else {
                self.orphans += 1 + replay.stamps.len() as u64;
                continue;
            };
            let index = self.replays.len() as u32;
            let from = self.nodes.len();
            let known = self.graphs[graph].nodes.len() as u32;
            let mut invalid = 0;
            for (ordinal, stamp) in &raw.stamps[replay.stamps] {
                match (*ordinal < known, stamp.is_valid()) {
                    (true, true) => self.nodes.push(NodeTime {
                        replay: index,
                        ordinal: *ordinal,
                        start_ns: stamp.start_ns,
                        end_ns: stamp.end_ns,
                        excl_ns: 0,
                        wait_ns: stamp.wait_ns,
                    }),
                    (true, false) => invalid += 1,
                    (false, _) => self.orphans += 1,
                }
            }
            self.nodes[from..].sort_by_key(|node| (node.start_ns, node.ordinal));
            self.replays.push(Replay { record: replay.record, graph, nodes: from..self.nodes.len(), invalid });
        }
    }

    fn fill_exclusive(&mut self) {
        self.nodes_by_start = (0..self.nodes.len() as u32).collect();
        let nodes = &mut self.nodes;
        self.nodes_by_start.sort_by_key(|at| (nodes[*at as usize].start_ns, *at));
        let mut latest_end_ns = 0;
        for at in &self.nodes_by_start {
            let node = &mut nodes[*at as usize];
            node.excl_ns = node.end_ns.saturating_sub(node.start_ns.max(latest_end_ns));
            latest_end_ns = latest_end_ns.max(node.end_ns);
        }
    }
}

/// Replays and node times as they come, before anything is known of their graphs.
#[derive(Default)]
struct Raw {
    replays: Vec<RawReplay>,
    stamps: Vec<(u32, NodeStamp)>,
}

struct RawReplay {
    record: ReplayRecord,
    stamps: Range<usize>,
}

impl Raw {
    fn push_replay(&mut self, record: ReplayRecord) {
        let at = self.stamps.len();
        self.replays.push(RawReplay { record, stamps: at..at });
    }

    /// Node times follow their replay's record. Returns how many did not.
    fn push_stamps(&mut self, replay: u64, first: u32, stamps: &[NodeStamp]) -> u64 {
        let Some(last) = self.replays.last_mut().filter(|last| last.record.replay == replay) else {
            return stamps.len() as u64;
        };
        self.stamps.extend((first..).zip(stamps.iter().copied()));
        last.stamps.end = self.stamps.len();
        0
    }
}
