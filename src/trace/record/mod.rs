//! The recorder: takes records on the engine's thread, has them written by a thread of its own.
//!
//! The engine's thread encodes into a block of fixed size; a full block goes to the writer, an empty one comes back.
//! There are [`BLOCKS`] of them, allocated at the start: after it, nothing here allocates, waits or fails. No empty
//! block, or no room left in the file: the record is dropped whole and counted.

#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use self::writer::{Message, Writer, WriterEnd};
use super::schema::{GraphTable, HostSpan, MemberRecord, NodeStamp, ReplayRecord, RequestRecord, StepRecord};
use super::session::{
    Closing, Counts, Expected, RecordError, RecordedGraph, SessionHeader, SessionOptions, SpoolSummary,
};
use super::spool::{self, BLOCK_BYTES, Block, SpoolHeader, Wire};
use crate::request::StepId;

/// Whether this build can record.
pub const ENABLED: bool = true;

/// Blocks in the ring: 8 MiB, seconds of node times at any model's rate.
const BLOCKS: usize = 128;

/// Graphs captured in one recording that may wait for the writer beside all blocks.
const GRAPHS_WAITING_MAX: usize = 64;

/// Bytes of `max_bytes` kept for the closing block: its counts, about 250 bytes for each of at most 100 graphs.
const CLOSING_BYTES: u64 = 32 << 10;

/// A recording under way. Owned by the engine's thread; [`Recorder::stop`] may be called from any.
#[derive(Debug)]
pub struct Recorder {
    id: String,
    path: PathBuf,
    toggle_seed: Option<u64>,
    /// The block being filled.
    block: Option<Block>,
    empty: Receiver<Block>,
    full: SyncSender<Message>,
    writer: Option<JoinHandle<WriterEnd>>,
    /// Set by the writer when the file cannot be written any more.
    failed: Arc<AtomicBool>,
    bytes: u64,
    bytes_max: u64,
    limit_reached: bool,
    written: Counts,
    dropped: Counts,
    /// By graph id.
    graphs: Vec<Option<GraphState>>,
}

#[derive(Clone, Copy, Debug)]
struct GraphState {
    nodes: usize,
    counts: RecordedGraph,
}

impl Recorder {
    /// Creates `DIR/PREFIX.ID.vtr`, writes its header with the graphs captured so far, and starts the writer.
    pub fn start(
        options: &SessionOptions,
        session: &SessionHeader,
        graphs: &[&GraphTable],
    ) -> Result<Recorder, RecordError> {
        check_prefix(&options.prefix)?;
        let (id, path, file) = create_file(options)?;
        let number: u64 = id.parse().unwrap_or_default();
        let toggle_seed = options.toggle.then(|| mix(number));
        let header = SpoolHeader {
            id,
            toggle_seed,
            session: session.clone(),
            graphs: graphs.iter().map(|table| (*table).clone()).collect(),
        };
        let started = spool::file_header(&header)
            .map_err(|source| RecordError::Header { source })
            .and_then(|bytes| Recorder::launch(&header, path.clone(), file, &bytes, options.max_bytes));
        if started.is_err() {
            // The error that is returned matters more than one from clearing up.
            let _ = std::fs::remove_file(&path);
        }
        started
    }

    fn launch(
        header: &SpoolHeader,
        path: PathBuf,
        mut file: File,
        header_bytes: &[u8],
        max_bytes: u64,
    ) -> Result<Recorder, RecordError> {
        let bytes = header_bytes.len() as u64;
        let least = bytes + CLOSING_BYTES + BLOCK_BYTES as u64;
        if max_bytes < least {
            return Err(RecordError::LimitTooSmall { max_bytes, least });
        }
        std::io::Write::write_all(&mut file, header_bytes)
            .map_err(|source| RecordError::Create { path: path.clone(), source })?;
        let (full, messages) = sync_channel(BLOCKS + GRAPHS_WAITING_MAX + 1);
        let (give_back, empty) = sync_channel(BLOCKS);
        for _ in 0..BLOCKS {
            give_back.try_send(Block::new()).expect("the channel holds every block");
        }
        let failed = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(file, bytes, give_back, Arc::clone(&failed));
        let thread = std::thread::Builder::new().name("vitrum-recorder".into());
        let writer = thread.spawn(move || writer.run(&messages)).map_err(|source| RecordError::Thread { source })?;
        let mut recorder = Recorder {
            id: header.id.clone(),
            path,
            toggle_seed: header.toggle_seed,
            block: None,
            empty,
            full,
            writer: Some(writer),
            failed,
            bytes,
            bytes_max: max_bytes - CLOSING_BYTES,
            limit_reached: false,
            written: Counts::default(),
            dropped: Counts::default(),
            graphs: Vec::new(),
        };
        header.graphs.iter().for_each(|table| recorder.know(table));
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

    /// Whether to stamp a step's nodes: yes, or the step's coin if the recording is toggled.
    pub fn wants_step(&mut self, step: StepId) -> bool {
        self.toggle_seed.is_none_or(|seed| mix(seed ^ step.0) & 1 == 1)
    }

    /// A graph captured while the recording runs, before its first replay. Allocates, as the capture did.
    pub fn graph(&mut self, table: &GraphTable) {
        if self.nodes_of(table.id).is_some() || self.failed.load(Ordering::Relaxed) {
            return;
        }
        let bytes = spool::graph_block_bytes_max(table);
        if self.limit_reached || self.bytes + bytes > self.bytes_max {
            self.limit_reached = true;
            return;
        }
        if self.full.try_send(Message::Graph(Box::new(table.clone()))).is_ok() {
            self.bytes += bytes;
            self.know(table);
        }
    }

    /// A step, when it is done.
    pub fn step(&mut self, step: &StepRecord) {
        self.push(step);
    }

    /// A row of a batch's composition.
    pub fn member(&mut self, member: &MemberRecord) {
        self.push(member);
    }

    /// A host phase.
    pub fn span(&mut self, span: &HostSpan) {
        self.push(span);
    }

    /// A moment of a request.
    pub fn request(&mut self, request: &RequestRecord) {
        self.push(request);
    }

    /// A replay, when it is done, and the times of its nodes in node order: none unless it was traced.
    pub fn replay(&mut self, replay: &ReplayRecord, stamps: &[NodeStamp]) {
        let Some(nodes) = self.nodes_of(replay.graph) else {
            // Nothing could be said of the nodes of a graph that is not in the file.
            self.dropped.replays += 1;
            self.dropped.nodes += if replay.traced { stamps.len() as u64 } else { 0 };
            return;
        };
        let pushed = self.push(replay);
        if !replay.traced {
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

    /// Ends the recording: writes what is left and the closing block, and waits for the writer.
    pub fn stop(mut self, expected: Expected) -> Result<SpoolSummary, RecordError> {
        self.hand_over();
        let graphs: Vec<RecordedGraph> = self.graphs.iter().flatten().map(|state| state.counts).collect();
        let closing = Closing {
            expected,
            graphs,
            written: self.written,
            dropped: self.dropped,
            limit_reached: self.limit_reached,
        };
        let sum = |count: fn(&RecordedGraph) -> u64| closing.graphs.iter().map(count).sum::<u64>();
        let mut summary = SpoolSummary {
            id: self.id.clone(),
            path: self.path.clone(),
            bytes: 0,
            steps: self.written.steps,
            replays: self.written.replays,
            expected: closing.expected.nodes(),
            received: sum(|graph| graph.received),
            dropped: self.dropped.nodes,
            invalid: sum(|graph| graph.invalid),
            dropped_records: self.dropped,
            limit_reached: self.limit_reached,
            write_error: None,
        };
        let sent = self.full.send(Message::Close(Box::new(closing)));
        let writer = self.writer.take().expect("a recorder is stopped once");
        sent.map_err(|_| RecordError::WriterEnded)?;
        let end = writer.join().map_err(|_| RecordError::WriterEnded)?;
        summary.bytes = end.bytes;
        summary.write_error = end.error.map(|error| error.to_string());
        summary.steps -= end.lost.steps;
        summary.replays -= end.lost.replays;
        summary.received = summary.received.saturating_sub(end.lost.nodes);
        summary.dropped += end.lost.nodes;
        summary.dropped_records += end.lost;
        Ok(summary)
    }

    fn know(&mut self, table: &GraphTable) {
        let at = table.id as usize;
        if self.graphs.len() <= at {
            self.graphs.resize(at + 1, None);
        }
        let counts = RecordedGraph { graph: table.id, ..RecordedGraph::default() };
        self.graphs[at] = Some(GraphState { nodes: table.nodes.len(), counts });
    }

    fn nodes_of(&self, graph: u32) -> Option<usize> {
        self.graphs.get(graph as usize)?.map(|state| state.nodes)
    }

    fn count(&mut self, graph: u32, update: impl FnOnce(&mut RecordedGraph)) {
        if let Some(Some(state)) = self.graphs.get_mut(graph as usize) {
            update(&mut state.counts);
        }
    }

    fn push<T: Wire>(&mut self, record: &T) -> bool {
        let pushed = self.with_block(|block| block.push(record));
        *(if pushed { &mut self.written } else { &mut self.dropped }) += T::ONE;
        pushed
    }

    fn push_stamps(&mut self, replay: &ReplayRecord, stamps: &[NodeStamp]) {
        let mut first = 0;
        while first < stamps.len() {
            let mut count = 0;
            let pushed = self.with_block(|block| {
                count = block.push_stamps(replay.replay, first as u32, &stamps[first..]);
                count > 0
            });
            if !pushed {
                return self.drop_stamps(replay.graph, stamps.len() - first);
            }
            let valid = stamps[first..first + count].iter().filter(|stamp| stamp.is_valid()).count();
            self.written.nodes += count as u64;
            self.count(replay.graph, |counts| {
                counts.received += valid as u64;
                counts.invalid += (count - valid) as u64;
            });
            first += count;
        }
    }

    fn drop_stamps(&mut self, graph: u32, count: usize) {
        self.dropped.nodes += count as u64;
        self.count(graph, |counts| counts.dropped += count as u64);
    }

    /// Runs `push` on the block being filled, and on the next one if it does not fit. `false` if there is none.
    fn with_block(&mut self, mut push: impl FnMut(&mut Block) -> bool) -> bool {
        if self.block.as_mut().is_some_and(&mut push) {
            return true;
        }
        self.hand_over();
        if self.limit_reached || self.failed.load(Ordering::Relaxed) {
            return false;
        }
        if self.bytes + BLOCK_BYTES as u64 > self.bytes_max {
            self.limit_reached = true;
            return false;
        }
        self.block = self.empty.try_recv().ok();
        self.block.as_mut().is_some_and(push)
    }

    /// Sends the block being filled to the writer. The channel holds every block there is, so it takes it at once.
    fn hand_over(&mut self) {
        if let Some(block) = self.block.take().filter(|block| !block.is_empty()) {
            self.bytes += block.len() as u64;
            // Fails only when the writer has panicked, which `stop` reports.
            let _ = self.full.try_send(Message::Block(block));
        }
    }
}

/// A recorder that is dropped without a stop leaves a spool without a closing block: truncated, and readable.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_over();
    }
}

fn check_prefix(prefix: &str) -> Result<(), RecordError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = (1..=100).contains(&prefix.len()) && !prefix.starts_with('.') && prefix.bytes().all(allowed);
    if good { Ok(()) } else { Err(RecordError::Prefix { prefix: prefix.into() }) }
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
