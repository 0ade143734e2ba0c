//! The recorder: takes records on the engine's thread, has them written by a thread of its own.
//!
//! The engine's thread encodes into a [`Sink`]'s blocks: after the start nothing there allocates, waits or fails. Where
//! the driver's profiling library is a source too, a third thread decodes its records into a sink of its own
//! ([`cupti`]). Which blocks go where in a file that keeps what comes last is the writer's matter ([`ring`]). Beside
//! recordings, the [`sampler`] has histograms of node times for as long as a server runs.

pub mod cupti;
mod ring;
pub mod sampler;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::cupti::{ACTIVITY_NAME, ActivityLibrary, KnownGraph, SOURCE_HELP, Watch, parse_source};
use self::cupti::{Decoded, Session};
use self::ring::{GraphRoom, Ring};
pub use self::sampler::{Sampler, Samples};
use self::sink::{Room, Sink};
use self::writer::{Message, Writer, WriterEnd};
use super::progress::Progress;
use super::schema::{
    GraphTable, HostSpan, MemberRecord, NodeSources, NodeStamp, ReplayRecord, RequestRecord, StepRecord,
};
use super::session::{
    Closing, Expected, Granularity, Keep, RecordError, RecordedGraph, SessionHeader, SessionOptions, SessionSources,
    SpoolSummary, TraceSource, is_prefix,
};
use super::spool::{self, BLOCK_BYTES, Block, SpoolHeader};
use crate::request::StepId;

/// Whether this build can record.
pub const ENABLED: bool = true;

/// Blocks in the ring: 8 MiB, seconds of node times at any model's rate.
const BLOCKS: usize = 128;

/// Blocks in the ring of the profiling library's records: 16 MiB, what it hands over at once.
const ACTIVITY_BLOCKS: usize = 256;

const _: () = assert!(BLOCKS + ACTIVITY_BLOCKS == spool::SPARE_BLOCKS_MAX, "all are kept for the next recording");

/// Graphs captured in one recording that may wait for the writer beside all blocks.
const GRAPHS_WAITING_MAX: usize = 64;

/// Bytes of `max_bytes` kept for the closing block: its counts, about 250 bytes for each of at most 100 graphs.
const CLOSING_BYTES: u64 = 32 << 10;

/// A recording under way. One thread has it at a time: from its begin on the engine's, at its end another.
#[derive(Debug)]
pub struct Recorder {
    id: String,
    path: PathBuf,
    toggle_seed: Option<u64>,
    granularity: Granularity,
    sources: SessionSources,
    progress: Arc<Progress>,
    /// The driver's profiling library, if it is a source.
    activity: Option<Session>,
    sink: Sink,
    full: SyncSender<Message>,
    writer: JoinHandle<WriterEnd>,
    room: Arc<Room>,
    /// Of a ring; in other files graphs take of the same room as records.
    graph_room: Option<GraphRoom>,
    /// By graph id.
    graphs: Vec<Option<GraphState>>,
}

#[derive(Clone, Copy, Debug)]
struct GraphState {
    nodes: usize,
    counts: RecordedGraph,
}

impl Recorder {
    /// Creates `DIR/PREFIX.ID.vtr`, writes its header with the graphs captured so far, and starts the writer. If
    /// `session` has a reason why a source is absent, there are stamps alone.
    pub fn start(
        options: &SessionOptions,
        session: &SessionHeader,
        graphs: &[&GraphTable],
    ) -> Result<Recorder, RecordError> {
        if !is_prefix(&options.prefix) {
            return Err(RecordError::Prefix { prefix: options.prefix.clone() });
        }
        let (id, path, file) = create_file(options)?;
        let (sources, activity) = choose_sources(options, &session.sources);
        let number: u64 = id.parse().unwrap_or_default();
        let toggle_seed = options.toggle.then(|| mix(number));
        let mut header = SpoolHeader {
            id,
            toggle_seed,
            ring: None,
            window: options.window.clone(),
            granularity: options.granularity,
            session: SessionHeader { sources, ..session.clone() },
            graphs: graphs.iter().map(|table| described(table, options.granularity)).collect(),
        };
        let started = encode(&mut header, options)
            .map_err(|source| RecordError::Header { source })
            .and_then(|bytes| Recorder::launch(&header, activity, path.clone(), file, &bytes, options.max_bytes));
        if started.is_err() {
            // The error that is returned matters more than one from clearing up.
            let _ = std::fs::remove_file(&path);
        }
        started
    }

    fn launch(
        header: &SpoolHeader,
        mut activity: Option<Session>,
        path: PathBuf,
        mut file: File,
        header_bytes: &[u8],
        max_bytes: u64,
    ) -> Result<Recorder, RecordError> {
        let bytes = header_bytes.len() as u64;
        // Each thread that records has a block of its own.
        let sinks = 1 + u64::from(activity.is_some());
        let blocks = if header.ring.is_some() { ring::PLACES_MIN } else { sinks };
        let least = bytes + CLOSING_BYTES + blocks * BLOCK_BYTES as u64;
        if max_bytes < least {
            return Err(RecordError::LimitTooSmall { max_bytes, least });
        }
        std::io::Write::write_all(&mut file, header_bytes)
            .map_err(|source| RecordError::Create { path: path.clone(), source })?;
        let blocks = BLOCKS + if activity.is_some() { ACTIVITY_BLOCKS } else { 0 };
        let (full, messages) = sync_channel(blocks + GRAPHS_WAITING_MAX + 1);
        // A ring has room for any block: it goes over an older one.
        let bytes_max = if header.ring.is_some() { u64::MAX } else { max_bytes - CLOSING_BYTES };
        let room = Arc::new(Room::new(bytes, bytes_max));
        let progress = Arc::new(Progress::default());
        let (own_room, own_progress) = (Arc::clone(&room), Arc::clone(&progress));
        let writer = Writer::new((file, &path), bytes, header.ring.map(Ring::new), own_room, own_progress);
        let no_thread = |source| RecordError::Thread { source };
        let thread = std::thread::Builder::new().name("vitrum-recorder".into());
        let writer = thread.spawn(move || writer.run(&messages)).map_err(no_thread)?;
        if let Some(activity) = &mut activity {
            let sink = Sink::new(ACTIVITY_BLOCKS, full.clone(), Arc::clone(&room));
            activity.decode_into(sink).map_err(no_thread)?;
        }
        let block = if header.ring.is_some() { Block::with_seam } else { Block::new };
        let sink = Sink::of(BLOCKS, block, full.clone(), Arc::clone(&room));
        let mut recorder = Recorder {
            id: header.id.clone(),
            path,
            toggle_seed: header.toggle_seed,
            granularity: header.granularity,
            sources: header.session.sources.clone(),
            progress,
            activity,
            sink,
            full,
            writer,
            room,
            graph_room: header.ring.map(GraphRoom::of),
            graphs: Vec::new(),
        };
        header.graphs.iter().for_each(|table| recorder.know(table.id, table.nodes.len()));
        Ok(recorder)
    }

    /// The recording's name: digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The recording's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What times the nodes, and why that is not what was asked for, if it is not.
    pub fn sources(&self) -> &SessionSources {
        &self.sources
    }

    /// How far it is. Of this the recorder knows the bytes alone; the engine tells the rest.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// From here on the profiling library records, if it is a source; with nothing under way. The error is a sentence,
    /// and what there is of the recording is good for nothing then.
    pub fn begin(&mut self) -> Result<(), String> {
        self.activity.as_mut().map_or(Ok(()), Session::switch_on)
    }

    /// What is to time a step's nodes: nothing, by the step's coin, if the recording is toggled. From where the
    /// profiling library was given up, stamps alone.
    pub fn wants_step(&mut self, step: StepId) -> NodeSources {
        if self.toggle_seed.is_some_and(|seed| mix(seed ^ step.0) & 1 == 0) {
            return NodeSources::NONE;
        }
        match &self.activity {
            Some(activity) if !activity.is_given_up() => self.sources.used.of_step(),
            _ => NodeSources::STAMPS,
        }
    }

    /// Whether the file has no room for more, or cannot be written.
    pub fn is_full(&self) -> bool {
        self.room.is_closed()
    }

    /// A graph that is going to be replayed. If it is not known yet it was captured while the recording runs; this
    /// allocates then, as the capture did.
    pub fn graph(&mut self, table: &GraphTable) {
        let is_refused = || self.is_full() || self.graph_room.as_ref().is_some_and(GraphRoom::is_reached);
        if self.nodes_of(table.id).is_some() || is_refused() {
            return;
        }
        let table = described(table, self.granularity);
        let has_room = match &mut self.graph_room {
            Some(room) => room.take(&table),
            None => self.room.take(spool::graph_block_bytes_max(&table)),
        };
        if has_room {
            let (id, nodes) = (table.id, table.nodes.len());
            if self.full.try_send(Message::Graph(Box::new(table))).is_ok() {
                self.know(id, nodes);
            }
        }
    }

    /// A step, when it is done.
    pub fn step(&mut self, step: &StepRecord) {
        self.sink.push(step);
    }

    /// A row of a batch's composition.
    pub fn member(&mut self, member: &MemberRecord) {
        self.sink.push(member);
    }

    /// A host phase.
    pub fn span(&mut self, span: &HostSpan) {
        self.sink.push(span);
    }

    /// A moment of a request.
    pub fn request(&mut self, request: &RequestRecord) {
        self.sink.push(request);
    }

    /// What a request's client calls it.
    pub fn name(&mut self, request: u64, name: &str) {
        if !name.is_empty() {
            self.sink.push_name(request, name);
        }
    }

    /// A replay, when it is done, and the times of its nodes in node order: none unless it was stamped.
    pub fn replay(&mut self, replay: &ReplayRecord, stamps: &[NodeStamp]) {
        let Some(nodes) = self.nodes_of(replay.graph) else {
            // Nothing could be said of the nodes of a graph that is not in the file.
            self.sink.dropped.replays += 1;
            self.sink.dropped.nodes += if replay.sources.stamps { stamps.len() as u64 } else { 0 };
            return;
        };
        let pushed = self.sink.push(replay);
        if !replay.sources.stamps {
            return;
        }
        if !pushed {
            self.drop_stamps(replay.graph, nodes);
        } else if stamps.len() != nodes {
            self.count(replay.graph, |counts| counts.invalid += nodes as u64);
        } else {
            self.push_stamps(replay, stamps);
        }
    }

    /// What is launched from now on is not seen, though the recording has not ended. With no step under way.
    pub fn quiesce(&mut self) {
        if let Some(activity) = &mut self.activity {
            activity.quiesce();
        }
    }

    /// Ends a recording that has not begun. Nothing is left of it.
    pub fn discard(self) {
        let path = self.path.clone();
        drop(self);
        // Whatever error made it end matters more than one from clearing up.
        let _ = std::fs::remove_file(path);
    }

    /// Ends the recording, with no step of it under way: writes what is left and the closing block, and waits for the
    /// writer.
    pub fn stop(self, expected: Expected) -> Result<SpoolSummary, RecordError> {
        let Recorder { id, path, sources, activity, mut sink, full, writer, room, graph_room, graphs, .. } = self;
        sink.hand_over();
        let decoded = activity.map(Session::stop);
        let mut graphs: Vec<RecordedGraph> = graphs.iter().flatten().map(|state| state.counts).collect();
        let (mut written, mut dropped) = (sink.written, sink.dropped);
        if let Some(decoded) = &decoded {
            decoded.add_to(&mut graphs);
            written += decoded.written;
            dropped += decoded.dropped;
        }
        let lost_nodes = decoded.as_ref().map_or(0, Decoded::lost_nodes);
        let counts = decoded.map(|Decoded { counts, .. }| counts);
        let limit_reached = room.reached() || graph_room.as_ref().is_some_and(GraphRoom::is_reached);
        let closing =
            Closing { expected, graphs, written, dropped, limit_reached, activity: counts, overwritten: None };
        let sent = full.send(Message::Close(Box::new(closing)));
        sent.map_err(|_| RecordError::WriterEnded)?;
        let end = writer.join().map_err(|_| RecordError::WriterEnded)?;
        let closing = end.closing.ok_or(RecordError::WriterEnded)?;
        let keep = if graph_room.is_some() { Keep::Last } else { Keep::First };
        let mut summary = summary_of(*closing, id, path, sources, keep);
        if summary.sources.used == TraceSource::Activity {
            summary.dropped += lost_nodes;
        }
        summary.bytes = end.bytes;
        let path = summary.path.clone();
        summary.write_error = end.error.map(|source| RecordError::Create { path, source }.to_string());
        summary.steps -= end.lost.steps;
        summary.replays -= end.lost.replays;
        // Of the activity not every record is a node: where nodes have no other times, rather too few are counted.
        let lost_activity = if summary.sources.used == TraceSource::Activity { end.lost.activity } else { 0 };
        summary.received = summary.received.saturating_sub(end.lost.nodes + lost_activity);
        summary.dropped += end.lost.nodes;
        summary.dropped_records += end.lost;
        Ok(summary)
    }

    fn know(&mut self, graph: u32, nodes: usize) {
        let at = graph as usize;
        if self.graphs.len() <= at {
            self.graphs.resize(at + 1, None);
        }
        self.graphs[at] = Some(GraphState { nodes, counts: RecordedGraph { graph, ..RecordedGraph::default() } });
    }

    fn nodes_of(&self, graph: u32) -> Option<usize> {
        self.graphs.get(graph as usize)?.map(|state| state.nodes)
    }

    fn count(&mut self, graph: u32, update: impl FnOnce(&mut RecordedGraph)) {
        if let Some(Some(state)) = self.graphs.get_mut(graph as usize) {
            update(&mut state.counts);
        }
    }

    fn push_stamps(&mut self, replay: &ReplayRecord, stamps: &[NodeStamp]) {
        let mut first = 0;
        while first < stamps.len() {
            let count = self.sink.push_stamps(replay.replay, first as u32, &stamps[first..]);
            if count == 0 {
                return self.drop_stamps(replay.graph, stamps.len() - first);
            }
            let valid = stamps[first..first + count].iter().filter(|stamp| stamp.is_valid()).count();
            self.count(replay.graph, |counts| {
                counts.received += valid as u64;
                counts.invalid += (count - valid) as u64;
            });
            first += count;
        }
    }

    fn drop_stamps(&mut self, graph: u32, count: usize) {
        self.sink.dropped.nodes += count as u64;
        self.count(graph, |counts| counts.dropped += count as u64);
    }
}

/// A graph as a recording has it.
fn described(table: &GraphTable, granularity: Granularity) -> GraphTable {
    match granularity {
        Granularity::Node => table.clone(),
        Granularity::Graph => table.as_one_node(),
    }
}

/// What times the nodes of a recording, with the profiling library ready to begin if it is a source. Where it cannot
/// be, or `known` has a reason against it, the stamps are there.
fn choose_sources(options: &SessionOptions, known: &SessionSources) -> (SessionSources, Option<Session>) {
    let asked = options.source;
    let stamps = |absent| SessionSources { asked, used: TraceSource::Stamps, library: None, absent };
    if !asked.has_activity() {
        return (stamps(None), None);
    }
    if known.absent.is_some() {
        return (stamps(known.absent.clone()), None);
    }
    let reason = match options {
        _ if options.toggle => {
            Some("a toggled recording compares steps with stamps and steps without, and has no other source")
        }
        _ if options.granularity == Granularity::Graph => Some("a recording of whole replays has no other source"),
        // Of a node's record, of its launch and of its replay any may be gone and the others not.
        _ if options.keep == Keep::Last => Some("a recording that keeps what comes last has no other source"),
        // The library sees every launch while it records.
        _ if !options.window.is_unbroken() => {
            Some("a recording that leaves steps out, at its begin or between others, has no other source")
        }
        _ => None,
    };
    if let Some(reason) = reason {
        return (stamps(Some(reason.into())), None);
    }
    match Session::open() {
        Ok(session) => {
            let library = Some(session.library().to_owned());
            (SessionSources { asked, used: asked, library, absent: None }, Some(session))
        }
        Err(reason) => {
            tracing::warn!("this recording has stamps alone: {reason}");
            (stamps(Some(reason)), None)
        }
    }
}

/// What is known before the writer has ended.
fn summary_of(closing: Closing, id: String, path: PathBuf, sources: SessionSources, keep: Keep) -> SpoolSummary {
    let sum = |count: fn(&RecordedGraph) -> u64| closing.graphs.iter().map(count).sum::<u64>();
    let is_activity_alone = sources.used == TraceSource::Activity;
    let (activity, activity_invalid) =
        if is_activity_alone { (sum(|graph| graph.activity), sum(|graph| graph.activity_invalid)) } else { (0, 0) };
    SpoolSummary {
        id,
        path,
        bytes: 0,
        steps: closing.written.steps,
        replays: closing.written.replays,
        expected: closing.expected.nodes(),
        received: sum(|graph| graph.received) + activity,
        dropped: closing.dropped.nodes,
        invalid: sum(|graph| graph.invalid) + activity_invalid,
        sources,
        activity_expected: closing.expected.graphs.iter().map(|graph| graph.activity).sum(),
        activity: closing.activity,
        dropped_records: closing.dropped,
        keep,
        overwritten: closing.overwritten,
        limit_reached: closing.limit_reached,
        write_error: None,
    }
}

/// The header's bytes; of a ring it says how many places the file has.
fn encode(header: &mut SpoolHeader, options: &SessionOptions) -> Result<Vec<u8>, serde_json::Error> {
    if options.keep == Keep::Last {
        // With the most places that there may be it is as long as it may be.
        header.ring = Some(ring::places(0, options.max_bytes));
        let header_bytes = spool::file_header(header)?.len() as u64;
        header.ring = Some(ring::places(header_bytes, options.max_bytes));
    }
    spool::file_header(header)
}

/// The id is the time in microseconds; a recording that was started in the same one makes it count on.
fn create_file(options: &SessionOptions) -> Result<(String, PathBuf, File), RecordError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = since_epoch.as_micros() as u64;
    loop {
        let id = number.to_string();
        let path = options.dir.join(format!("{}.{id}.vtr", options.prefix));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((id, path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(RecordError::Create { path, source }),
        }
    }
}

/// Splitmix64's output function: every bit of the result depends on every bit of the input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
