//! The frame of a recording: what was asked for, what recorded it, what was counted. Pure data, always compiled.

use std::ops::AddAssign;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::activity::ActivityCounts;
use super::schema::NodeSources;
use super::window::Window;

/// What to record, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// An existing folder.
    pub dir: PathBuf,
    /// First part of the file's name: letters, digits, `-`, `_` and `.`.
    pub prefix: String,
    /// The file's limit.
    pub max_bytes: u64,
    /// What is kept of a recording that the limit is too small for.
    pub keep: Keep,
    /// Record the nodes of each step with probability 1/2, so that the recording's own cost can be measured.
    pub toggle: bool,
    /// What is to time the nodes.
    pub source: TraceSource,
    /// What a record is of.
    pub granularity: Granularity,
    /// Which steps.
    pub window: Window,
}

/// Whether a recording's files may begin so: 1 to 100 letters, digits, `-`, `_` and `.`, the first no `.`. Nothing in
/// it leads out of the folder.
pub fn is_prefix(prefix: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=100).contains(&prefix.len()) && !prefix.starts_with('.') && prefix.bytes().all(is_allowed)
}

impl SessionOptions {
    /// The usual ones: every node of every step by its stamp, up to 2 GiB: as many node times as a
    /// report holds.
    pub fn new(dir: impl Into<PathBuf>) -> SessionOptions {
        SessionOptions {
            dir: dir.into(),
            prefix: "vitrum".into(),
            max_bytes: 2 << 30,
            keep: Keep::default(),
            toggle: false,
            source: TraceSource::default(),
            granularity: Granularity::default(),
            window: Window::default(),
        }
    }
}

/// What is kept of a recording that its file's limit is too small for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// What comes first; the rest is dropped, and the recording is incomplete.
    #[default]
    First,
    /// What comes last: blocks of records go over the oldest ones, which were asked to go.
    Last,
}

/// What a record of the device's work is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// One node of one replay.
    #[default]
    Node,
    /// A whole replay: its graph is described as one node. The smallest recording.
    Graph,
}

/// What times the nodes of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceSource {
    /// The graphs themselves, by stamps.
    #[default]
    Stamps,
    /// The driver's profiling library, by its records of activity.
    Activity,
    /// Both; tables and traces are made of the stamps, and compared with the activity.
    Both,
}

impl TraceSource {
    /// Whether the driver's profiling library is one of the sources.
    pub fn has_activity(self) -> bool {
        self != TraceSource::Stamps
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            TraceSource::Stamps => "stamps",
            TraceSource::Activity => "the driver's profiling library",
            TraceSource::Both => "stamps and the driver's profiling library",
        }
    }

    /// What it is for one step.
    pub fn of_step(self) -> NodeSources {
        NodeSources { stamps: self != TraceSource::Activity, activity: self.has_activity() }
    }
}

/// What was asked to time the nodes, and what does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSources {
    /// Asked for.
    pub asked: TraceSource,
    /// In use.
    pub used: TraceSource,
    /// The profiling library's name and version, if it is in use.
    pub library: Option<String>,
    /// Why it is not in use, if it was asked for.
    pub absent: Option<String>,
}

/// What is known when a recording starts. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionHeader {
    /// vitrum's version.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// The device.
    pub device: SessionDevice,
    /// Its measured roofs, if they were measured.
    pub peaks: Option<SessionPeaks>,
    /// The process.
    pub pid: u32,
    /// The engine's thread, as the operating system numbers it.
    pub engine_tid: u32,
    /// One moment on both clocks.
    pub clock: ClockAnchor,
    /// What times the nodes.
    pub sources: SessionSources,
}

/// The device, in the words of its info.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDevice {
    /// The processor's name.
    pub name: String,
    /// `cpu`, `cuda` or `null`.
    pub kind: String,
    /// The instruction set in use.
    pub isa: String,
    /// Worker threads.
    pub workers: u32,
}

/// The roofs of a roofline, as the device measured them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionPeaks {
    /// Reading memory, GB/s (10⁹ bytes).
    pub memory_gb_s: f64,
    /// Reading the last-level cache, GB/s.
    pub cache_gb_s: f64,
    /// Bytes up to which a working set counts as fitting the last-level cache.
    pub cache_bytes: u64,
    /// Multiply-adds of floating-point numbers, counted as two, 10⁹ per second: of a CPU f32, of a GPU products of bf16
    /// matrices.
    pub float_gflop_s: f64,
    /// int8 multiply-adds, counted as two, 10⁹ per second.
    pub int8_gop_s: f64,
}

impl SessionPeaks {
    /// Whether what a step reads is in the last-level cache. A node's weights are read again one step later, when
    /// everything that the step moves went through the caches: that, and not the node's own size, is the working set.
    pub fn is_cached(&self, step_bytes: f64) -> bool {
        step_bytes <= self.cache_bytes as f64
    }

    /// Reading the level that holds what a step of so many bytes reads, GB/s.
    pub fn read_gb_s(&self, step_bytes: f64) -> f64 {
        if self.is_cached(step_bytes) { self.cache_gb_s } else { self.memory_gb_s }
    }

    /// The faster arithmetic, 10⁹ per second: which one a kernel uses is its own choice, and nothing exceeds this one.
    pub fn arithmetic_gop_s(&self) -> f64 {
        self.float_gflop_s.max(self.int8_gop_s)
    }
}

/// The same moment on the wall clock and on the monotonic clock of the stamps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAnchor {
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    /// Nanoseconds of the monotonic clock.
    pub monotonic_ns: u64,
    /// How far the two may be from the same moment; `None` in recordings of builds that did not measure it.
    #[serde(default)]
    pub error_ns: Option<u64>,
    /// The run of the operating system that counts the monotonic clock: in recordings of one boot, its times are of one
    /// clock. `None` where the system has no such name.
    #[serde(default)]
    pub boot_id: Option<String>,
}

impl ClockAnchor {
    /// A moment of the monotonic clock, or one before its begin, on the wall clock: nanoseconds since 1970.
    pub fn unix_ns_at(&self, ns: impl Into<i128>) -> i128 {
        i128::from(self.unix_ns) - i128::from(self.monotonic_ns) + ns.into()
    }
}

/// Records of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Steps.
    pub steps: u64,
    /// Rows of batch compositions.
    pub members: u64,
    /// Host phases.
    pub spans: u64,
    /// Moments of requests, and their names.
    pub requests: u64,
    /// Replays.
    pub replays: u64,
    /// Node times.
    pub nodes: u64,
    /// Records of the driver's profiling library.
    pub activity: u64,
}

impl Counts {
    /// All kinds together, as far as a number goes: a file may say anything.
    pub fn total(&self) -> u64 {
        let Counts { steps, members, spans, requests, replays, nodes, activity } = *self;
        [steps, members, spans, requests, replays, nodes, activity].into_iter().fold(0, u64::saturating_add)
    }

    /// What is left without others; nothing is less than none.
    pub fn without(&self, other: &Counts) -> Counts {
        Counts {
            steps: self.steps.saturating_sub(other.steps),
            members: self.members.saturating_sub(other.members),
            spans: self.spans.saturating_sub(other.spans),
            requests: self.requests.saturating_sub(other.requests),
            replays: self.replays.saturating_sub(other.replays),
            nodes: self.nodes.saturating_sub(other.nodes),
            activity: self.activity.saturating_sub(other.activity),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.steps += other.steps;
        self.members += other.members;
        self.spans += other.spans;
        self.requests += other.requests;
        self.replays += other.replays;
        self.nodes += other.nodes;
        self.activity += other.activity;
    }
}

/// What a recording must hold, counted by the engine and not by the recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// One entry for every graph that was replayed.
    pub graphs: Vec<ExpectedGraph>,
}

impl Expected {
    /// Node times in all.
    pub fn nodes(&self) -> u64 {
        self.graphs.iter().map(|graph| graph.nodes).sum()
    }
}

/// The engine's count for one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedGraph {
    /// [`crate::trace::schema::GraphTable::id`].
    pub graph: u32,
    /// Its replays while the recording ran.
    pub replays: u64,
    /// Those among them whose nodes were to be timed.
    pub traced_replays: u64,
    /// The nodes that the traced replays ran: the graph's number of nodes, added once per traced replay.
    pub nodes: u64,
    /// Those among them that the driver's profiling library was to see.
    pub activity: u64,
    /// Those that it alone was to see: they have no stamps.
    pub activity_only: u64,
}

/// The recorder's count for one graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGraph {
    /// [`crate::trace::schema::GraphTable::id`].
    pub graph: u32,
    /// Valid node times that are in the spool.
    pub received: u64,
    /// Node times left out: the queue or the file was full.
    pub dropped: u64,
    /// Node times that the graph did not write, or not as times.
    pub invalid: u64,
    /// Nodes that the driver's profiling library saw, with times.
    pub activity: u64,
    /// Nodes that it saw, without.
    pub activity_invalid: u64,
    /// Node times, valid or not, that were in the spool until later ones went over them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub overwritten: u64,
    /// Replays that they were of.
    #[serde(default, skip_serializing_if = "is_none")]
    pub overwritten_replays: u64,
}

/// A linear spool says nothing of what only a ring has.
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The last block of a spool: both counts, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The engine's count.
    pub expected: Expected,
    /// The recorder's count, graph by graph.
    pub graphs: Vec<RecordedGraph>,
    /// Records in the spool.
    pub written: Counts,
    /// Records left out.
    pub dropped: Counts,
    /// Whether the file's limit was reached.
    pub limit_reached: bool,
    /// What became of the driver's profiling library's records, if it was a source.
    pub activity: Option<ActivityCounts>,
    /// What a ring has lost to later records, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwritten: Option<Overwritten>,
}

/// What a ring has lost to later records: it was asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overwritten {
    /// Records that are not in the spool any more, or belong to one that is not: node times without their replay.
    pub records: Counts,
    /// Of this step and of all later ones every record is there.
    pub whole_from_step: u64,
}

/// What a recording came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolSummary {
    /// The recording.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// Steps in it.
    pub steps: u64,
    /// Replays in it.
    pub replays: u64,
    /// Node times that the engine counted.
    pub expected: u64,
    /// Valid node times in the file: stamps, and of nodes without stamps the activity.
    pub received: u64,
    /// Node times left out.
    pub dropped: u64,
    /// Node times that were no times.
    pub invalid: u64,
    /// What timed the nodes.
    pub sources: SessionSources,
    /// Nodes that the driver's profiling library was to see.
    pub activity_expected: u64,
    /// What became of its records, if it was a source.
    pub activity: Option<ActivityCounts>,
    /// Records of every kind left out.
    pub dropped_records: Counts,
    /// What was to be kept.
    pub keep: Keep,
    /// What later records went over, if what comes last is kept.
    pub overwritten: Option<Overwritten>,
    /// Whether the file's limit was reached.
    pub limit_reached: bool,
    /// Why the file could not be written to its end, in the operating system's words.
    pub write_error: Option<String>,
}

impl SpoolSummary {
    /// Whether every expected node time is there, and no record of any kind was left out. What was asked to go because
    /// it was old is not missed.
    pub fn is_complete(&self) -> bool {
        let left_out = self.dropped + self.invalid + self.dropped_records.total();
        let found = self.received + self.overwritten.map_or(0, |overwritten| overwritten.records.nodes);
        self.write_error.is_none() && found == self.expected && left_out == 0
    }
}

/// Why a recording could not be started or ended.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Built without the feature.
    #[error("this build has no recorder: rebuild with --features profiling")]
    NotCompiledIn,
    /// A prefix that is no part of a file name.
    #[error("the prefix {prefix:?} has to be 1 to 100 letters, digits, '-', '_' or '.', and not begin with '.'")]
    Prefix {
        /// The prefix given.
        prefix: String,
    },
    /// A limit that does not hold the header and one block.
    #[error("a recording needs at least {least} bytes, and max_bytes is {max_bytes}")]
    LimitTooSmall {
        /// The limit given.
        max_bytes: u64,
        /// The least that works for this model.
        least: u64,
    },
    /// The file could not be made: missing folder, no permission, full disk.
    #[error("cannot write {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The header could not be put in words.
    #[error("cannot encode the recording's header: {source}")]
    Header {
        /// The encoder's word.
        source: serde_json::Error,
    },
    /// No thread to write with.
    #[error("could not start the recorder's thread: {source}")]
    Thread {
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The recorder's thread panicked: a bug of ours.
    #[error("the recorder's thread ended before its time")]
    WriterEnded,
}
