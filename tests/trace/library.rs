//! The driver's profiling library, simulated: a recording of stamps is read, and written again with the records that
//! the library would have made beside them, or in their place.

use std::path::{Path, PathBuf};

use vitrum::trace::activity::{
    Activity, ActivityCounts, CallActivity, CopyActivity, CopyKind, DriverCall, NodeActivity, OverheadActivity,
    OverheadKind,
};
use vitrum::trace::schema::{
    HostSpan, LaunchFacts, MemberRecord, NodeSources, NodeStamp, ReplayRecord, RequestRecord, StepCopies, StepRecord,
};
use vitrum::trace::session::{Closing, SessionSources, TraceSource};
use vitrum::trace::spool::{Block, Reader, Record, SpoolHeader, Wire, closing_block, file_header};

use super::synthetic::{PHASES_NS, Plan};
use super::{folder, record};

/// The library's name.
pub(crate) const LIBRARY: &str = "A LIBRARY 13.0";
/// A thread that is not the engine's.
pub(crate) const OTHER_THREAD: u32 = 4999;
/// The facts of every node's launch.
pub(crate) const FACTS: LaunchFacts = LaunchFacts {
    grid: [66, 2, 1],
    block: [128, 1, 1],
    registers: 40,
    static_shared_bytes: 1024,
    dynamic_shared_bytes: 4096,
    blocks_held: 8,
    multiprocessors: 132,
    threads_max: 2048,
};

/// How the library sees what happens.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    /// What times the nodes.
    pub(crate) source: TraceSource,
    /// By how much its times lie behind the stamps'.
    pub(crate) offset_ns: u64,
    /// Whether a node begins for it at the earliest when the node before has ended.
    pub(crate) hides_overlap: bool,
}

/// What a test may change before it is written.
pub(crate) struct Said {
    pub(crate) activity: Vec<Activity>,
    pub(crate) counts: ActivityCounts,
    pub(crate) sources: SessionSources,
}

/// A recording in memory.
struct Parts {
    header: SpoolHeader,
    steps: Vec<StepRecord>,
    members: Vec<MemberRecord>,
    spans: Vec<HostSpan>,
    requests: Vec<RequestRecord>,
    replays: Vec<(ReplayRecord, Vec<NodeStamp>)>,
    closing: Closing,
}

/// The correlation of a replay's launch.
pub(crate) fn correlation(replay: u64) -> u32 {
    1000 + 10 * replay as u32
}

/// Records a plan into a test's folder, as the library sees it and `edit` leaves it.
pub(crate) fn record_seen(name: &str, plan: &Plan, library: Library, edit: impl FnOnce(&mut Said)) -> PathBuf {
    let mut parts = read(&record(name, plan).path);
    let (asked, used, name_of) = (library.source, library.source, Some(LIBRARY.into()));
    let mut said = Said {
        activity: see(&parts, library),
        counts: ActivityCounts::default(),
        sources: SessionSources { asked, used, library: name_of, absent: None },
    };
    edit(&mut said);
    let sources = NodeSources { stamps: library.source == TraceSource::Both, activity: true };
    parts.header.session.sources = said.sources;
    for node in parts.header.graphs.iter_mut().flat_map(|graph| &mut graph.nodes) {
        node.launch = Some(FACTS);
    }
    for (replay, stamps) in &mut parts.replays {
        replay.sources = sources;
        stamps.retain(|_| sources.stamps);
    }
    for step in parts.steps.iter_mut().filter(|_| !sources.stamps) {
        step.copies = StepCopies::default();
    }
    for graph in &mut parts.closing.expected.graphs {
        graph.activity = graph.nodes;
        graph.activity_only = if sources.stamps { 0 } else { graph.nodes };
    }
    for graph in parts.closing.graphs.iter_mut().filter(|_| !sources.stamps) {
        graph.received = 0;
    }
    parts.closing.dropped.activity = said.counts.lost;
    parts.closing.activity = Some(said.counts);
    let path = folder(&format!("{name}-seen")).join("seen.1.vtr");
    write(&path, &parts, &said.activity);
    path
}

fn read(path: &Path) -> Parts {
    let mut reader = Reader::open(path).expect("a spool");
    let mut parts = Parts {
        header: reader.header().clone(),
        steps: Vec::new(),
        members: Vec::new(),
        spans: Vec::new(),
        requests: Vec::new(),
        replays: Vec::new(),
        closing: Closing::default(),
    };
    while let Some(record) = reader.read().expect("a record") {
        match record {
            Record::Step(step) => parts.steps.push(step),
            Record::Member(member) => parts.members.push(member),
            Record::Span(span) => parts.spans.push(span),
            Record::Request(request) => parts.requests.push(request),
            Record::Replay(replay) => parts.replays.push((replay, Vec::new())),
            Record::Nodes { stamps, .. } => parts.replays.last_mut().expect("a replay").1.extend_from_slice(stamps),
            Record::Closing(closing) => parts.closing = *closing,
            Record::Graph(_) | Record::Name { .. } | Record::Activity(_) => panic!("not in a plan: {record:?}"),
        }
    }
    parts
}

/// What the library makes of it: the records of nodes come before those of the calls.
fn see(parts: &Parts, library: Library) -> Vec<Activity> {
    let engine_tid = parts.header.session.engine_tid;
    let call = |call, correlation, thread, (start_ns, end_ns)| {
        Activity::Call(CallActivity { call, correlation, thread, status: 0, start_ns, end_ns })
    };
    let mut seen = Vec::new();
    let mut calls = Vec::new();
    for (replay, stamps) in &parts.replays {
        let mut before_ns = 0;
        for (ordinal, stamp) in stamps.iter().enumerate() {
            let (start_ns, end_ns) = (stamp.start_ns + library.offset_ns, stamp.end_ns + library.offset_ns);
            let start_ns = if library.hides_overlap { start_ns.max(before_ns) } else { start_ns };
            let (correlation, ordinal) = (correlation(replay.replay), ordinal as u32);
            seen.push(Activity::Node(NodeActivity { correlation, graph: replay.graph, ordinal, start_ns, end_ns }));
            before_ns = end_ns;
        }
        let times = (replay.launch_start_ns + 100, replay.launch_end_ns - 900);
        calls.push(call(DriverCall::GraphLaunch, correlation(replay.replay), engine_tid, times));
    }
    for step in &parts.steps {
        let StepCopies { upload, download } = step.copies;
        // The step's second replay is an even one: its number, and four more for the copies and the wait.
        let base = correlation(2 * (step.step - parts.steps[0].step + 1));
        let upload_ns = step.start_ns + PHASES_NS[..2].iter().map(|(_, ns)| ns).sum::<u64>();
        let launched_ns = step.start_ns + PHASES_NS.iter().map(|(_, ns)| ns).sum::<u64>();
        let middle_ns = upload.start_ns.midpoint(upload.end_ns);
        let copies = [
            (CopyKind::HtoD, base + 1, upload.start_ns, middle_ns, 600),
            (CopyKind::HtoD, base + 1, middle_ns, upload.end_ns, upload.bytes - 600),
            (CopyKind::Fill, base + 2, upload.start_ns - 60, upload.start_ns - 10, 64),
            (CopyKind::DtoH, base + 3, download.start_ns, download.end_ns, download.bytes),
        ];
        for (kind, correlation, start_ns, end_ns, bytes) in copies {
            let (start_ns, end_ns) = (start_ns + library.offset_ns, end_ns + library.offset_ns);
            seen.push(Activity::Copy(CopyActivity { kind, correlation, start_ns, end_ns, bytes }));
        }
        calls.extend([
            call(DriverCall::MemcpyHtoDAsync, base + 1, engine_tid, (upload_ns + 50, upload_ns + 900)),
            call(DriverCall::MemsetD8Async, base + 2, engine_tid, (upload_ns + 1000, upload_ns + 1900)),
            call(DriverCall::MemcpyDtoHAsync, base + 3, engine_tid, (launched_ns - 800, launched_ns - 700)),
            call(DriverCall::EventSynchronize, base + 4, engine_tid, (launched_ns + 10, step.done_ns - 10)),
        ]);
    }
    let first_ns = parts.steps[0].start_ns;
    calls.push(call(DriverCall::StreamSynchronize, 7, OTHER_THREAD, (first_ns + 5, first_ns + 50_000)));
    seen.extend(calls);
    let overhead = |kind, start_ns, end_ns| Activity::Overhead(OverheadActivity { kind, start_ns, end_ns });
    seen.push(overhead(OverheadKind::BufferFlush, first_ns + 100, first_ns + 5_000));
    seen.push(overhead(OverheadKind::Resource, first_ns + 4_000, first_ns + 9_000));
    seen
}

/// Blocks of records, one after the other.
struct Blocks {
    bytes: Vec<u8>,
    block: Block,
    sequence: u32,
}

impl Blocks {
    fn push<T: Wire>(&mut self, record: &T) {
        if !self.block.push(record) {
            self.seal();
            assert!(self.block.push(record), "an empty block holds a record");
        }
    }

    fn push_stamps(&mut self, replay: u64, stamps: &[NodeStamp]) {
        let mut first = 0;
        while first < stamps.len() {
            first += self.block.push_stamps(replay, first as u32, &stamps[first..]);
            if first < stamps.len() {
                self.seal();
            }
        }
    }

    fn seal(&mut self) {
        self.bytes.extend_from_slice(self.block.seal(self.sequence));
        self.block.clear();
        self.sequence += 1;
    }
}

fn write(path: &Path, parts: &Parts, activity: &[Activity]) {
    let bytes = file_header(&parts.header).expect("a header");
    let mut blocks = Blocks { bytes, block: Block::new(), sequence: 0 };
    parts.steps.iter().for_each(|step| blocks.push(step));
    parts.members.iter().for_each(|member| blocks.push(member));
    parts.spans.iter().for_each(|span| blocks.push(span));
    parts.requests.iter().for_each(|request| blocks.push(request));
    for (replay, stamps) in &parts.replays {
        blocks.push(replay);
        blocks.push_stamps(replay.replay, stamps);
    }
    for record in activity {
        match record {
            Activity::Node(node) => blocks.push(node),
            Activity::Copy(copy) => blocks.push(copy),
            Activity::Call(call) => blocks.push(call),
            Activity::Overhead(overhead) => blocks.push(overhead),
        }
    }
    blocks.seal();
    let closing = closing_block(blocks.sequence, &parts.closing).expect("the counts");
    blocks.bytes.extend_from_slice(&closing);
    std::fs::write(path, blocks.bytes).expect("a spool");
}
