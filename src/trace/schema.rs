//! The words of a recording: graphs, nodes, places, costs, steps, requests. Pure data, always compiled.
//!
//! Everything above the device speaks of nodes in these words, whether a recorder is compiled in or not: a node's place
//! and cost are the graph's own description. The spool's bytes are in [`crate::trace::spool`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Op {
    /// Token embedding.
    #[serde(rename = "embed")]
    Embed,
    /// Norm, query, key and value projections, rotary embedding, KV cache write.
    #[serde(rename = "attn.qkv")]
    AttnQkv,
    /// Attention over the cache.
    #[serde(rename = "attn.core")]
    AttnCore,
    /// Output projection and residual.
    #[serde(rename = "attn.out")]
    AttnOut,
    /// Norm, gate and up projections, SiLU.
    #[serde(rename = "mlp.up")]
    MlpUp,
    /// Down projection and residual.
    #[serde(rename = "mlp.down")]
    MlpDown,
    /// Final norm and vocabulary projection.
    #[serde(rename = "lm_head")]
    LmHead,
    /// Drawing the next token.
    #[serde(rename = "sample")]
    Sample,
}

impl Op {
    /// Every op, in the order of a step.
    pub const ALL: [Op; 8] =
        [Op::Embed, Op::AttnQkv, Op::AttnCore, Op::AttnOut, Op::MlpUp, Op::MlpDown, Op::LmHead, Op::Sample];

    /// The op's name in tables and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Embed => "embed",
            Op::AttnQkv => "attn.qkv",
            Op::AttnCore => "attn.core",
            Op::AttnOut => "attn.out",
            Op::MlpUp => "mlp.up",
            Op::MlpDown => "mlp.down",
            Op::LmHead => "lm_head",
            Op::Sample => "sample",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a node stands in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The layer, from 0; −1 outside the layers.
    pub layer: i32,
    /// The op.
    pub op: Op,
}

/// The sizes of one step that costs are functions of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSizes {
    /// Rows of the forward graph.
    pub tokens: u64,
    /// Sequences in the step.
    pub seqs: u64,
    /// Rows of the sample graph.
    pub logit_rows: u64,
    /// KV positions that the step's sequences hold after it, summed over sequences.
    pub kv_tokens: u64,
    /// Pairs of a query row and a KV position that it sees.
    pub qk_pairs: u64,
}

/// A quantity that is linear in the step's sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinearCost {
    /// The part that every step pays.
    pub constant: f64,
    /// Per row of the forward graph.
    pub tokens: f64,
    /// Per sequence.
    pub seqs: f64,
    /// Per row of the sample graph.
    pub logit_rows: f64,
    /// Per KV position held.
    pub kv_tokens: f64,
    /// Per visible pair of query and KV position.
    pub qk_pairs: f64,
}

impl LinearCost {
    /// The quantity for a step of these sizes.
    pub fn at(&self, sizes: &StepSizes) -> f64 {
        self.constant
            + self.tokens * sizes.tokens as f64
            + self.seqs * sizes.seqs as f64
            + self.logit_rows * sizes.logit_rows as f64
            + self.kv_tokens * sizes.kv_tokens as f64
            + self.qk_pairs * sizes.qk_pairs as f64
    }
}

impl std::iter::Sum for LinearCost {
    fn sum<I: Iterator<Item = LinearCost>>(costs: I) -> LinearCost {
        costs.fold(LinearCost::default(), |a, b| LinearCost {
            constant: a.constant + b.constant,
            tokens: a.tokens + b.tokens,
            seqs: a.seqs + b.seqs,
            logit_rows: a.logit_rows + b.logit_rows,
            kv_tokens: a.kv_tokens + b.kv_tokens,
            qk_pairs: a.qk_pairs + b.qk_pairs,
        })
    }
}

/// What a node has to do: the least bytes that its algorithm must move, and its floating-point (or integer
/// multiply-add, counted as two) operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: LinearCost,
    /// Operations.
    pub flops: LinearCost,
}

/// Which of the step's two graphs, in which variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GraphKind {
    /// Forward, every sequence has one row.
    #[serde(rename = "forward.decode")]
    ForwardDecode,
    /// Forward, with prompt rows.
    #[serde(rename = "forward.mixed")]
    ForwardMixed,
    /// lm_head and the largest logit of each row.
    #[serde(rename = "sample.plain")]
    SamplePlain,
    /// lm_head and drawing with temperature, cuts, log probabilities.
    #[serde(rename = "sample.full")]
    SampleFull,
}

impl GraphKind {
    /// The kind's name in tables, metrics and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            GraphKind::ForwardDecode => "forward.decode",
            GraphKind::ForwardMixed => "forward.mixed",
            GraphKind::SamplePlain => "sample.plain",
            GraphKind::SampleFull => "sample.full",
        }
    }
}

/// A graph's stable name: the same in every build, so that two recordings can be compared node by node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GraphKey {
    /// Which graph.
    pub kind: GraphKind,
    /// The most rows (tokens, or logit rows) that it is captured for.
    pub bucket: u32,
}

impl fmt::Display for GraphKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.kind.as_str(), self.bucket))
    }
}

/// How a GPU's driver launches a node, and how many of its blocks a multiprocessor holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory of a block that its code declares, in bytes.
    pub static_shared_bytes: u32,
    /// Shared memory of a block that its launch asks for, in bytes.
    pub dynamic_shared_bytes: u32,
    /// Blocks that one multiprocessor holds at once: by registers, shared memory and threads.
    pub blocks_held: u32,
    /// Multiprocessors of the GPU.
    pub multiprocessors: u32,
    /// Threads that one multiprocessor holds at once, of any kernel.
    pub threads_max: u32,
}

impl LaunchFacts {
    /// Blocks of the launch for each multiprocessor.
    pub fn blocks_per_multiprocessor(&self) -> f64 {
        let blocks: f64 = self.grid.iter().map(|size| f64::from(*size)).product();
        blocks / f64::from(self.multiprocessors.max(1))
    }

    /// Warps of 32 threads of the launch for each multiprocessor.
    pub fn warps_per_multiprocessor(&self) -> f64 {
        self.blocks_per_multiprocessor() * (self.block_threads() / 32.0).ceil()
    }

    /// The part of a multiprocessor's threads that are there at once, from 0 to 1: of the blocks that it holds, or of
    /// those that it is given if these are fewer.
    pub fn occupancy(&self) -> f64 {
        let blocks = self.blocks_per_multiprocessor().ceil().min(f64::from(self.blocks_held));
        (blocks * self.block_threads() / f64::from(self.threads_max.max(1))).min(1.0)
    }

    /// A number of which a file may hold any.
    fn block_threads(&self) -> f64 {
        self.block.iter().map(|size| f64::from(*size)).product()
    }
}

/// One node of a captured graph, as `vitrum graph` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The kernel's name.
    pub kernel: String,
    /// Which variant the device's table chose, with its reason in the table: instruction set, tile, phases.
    pub choice: String,
    /// Barriers that the node crosses, the one at its end included.
    pub barriers: u32,
    /// Layer and op.
    pub place: Place,
    /// Bytes and operations.
    pub cost: Cost,
    /// On a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<LaunchFacts>,
}

/// A captured graph: what its nodes are. The ordinal of a node is its index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphTable {
    /// The graph's number within the process, from 1, in the order of capture.
    pub id: u32,
    /// Its stable name.
    pub key: GraphKey,
    /// Its nodes, in order.
    pub nodes: Vec<NodeInfo>,
}

/// What times the nodes of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSources {
    /// The graph itself, by stamps.
    pub stamps: bool,
    /// The driver's profiling library, by its records of activity.
    pub activity: bool,
}

impl NodeSources {
    /// Nothing does.
    pub const NONE: NodeSources = NodeSources { stamps: false, activity: false };
    /// The graph does.
    pub const STAMPS: NodeSources = NodeSources { stamps: true, activity: false };

    /// Whether anything does.
    pub fn any(self) -> bool {
        self.stamps || self.activity
    }
}

/// When one node of one replay ran, measured by the graph itself. Nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NodeStamp {
    /// The first worker began.
    pub start_ns: u64,
    /// The last worker was done.
    pub end_ns: u64,
    /// Time that workers waited for each other at the node's end, summed over workers.
    pub wait_ns: u64,
}

/// Whether these are begin and end of something that was timed: what begins at 0 never was, and what ends before it
/// begins is no time.
pub fn is_time(start_ns: u64, end_ns: u64) -> bool {
    start_ns != 0 && end_ns >= start_ns
}

impl NodeStamp {
    /// Whether the node wrote it.
    pub fn is_valid(&self) -> bool {
        is_time(self.start_ns, self.end_ns)
    }
}

/// When a step's inputs were copied to the device, or its tokens back. Nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStamp {
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Bytes copied.
    pub bytes: u64,
}

impl CopyStamp {
    /// Whether it was measured, as [`NodeStamp::is_valid`].
    pub fn is_valid(&self) -> bool {
        is_time(self.start_ns, self.end_ns)
    }
}

/// The device's own part of a step besides its nodes. All zero unless the step was traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCopies {
    /// Before the first replay.
    pub upload: CopyStamp,
    /// After the last one.
    pub download: CopyStamp,
}

/// What the engine's thread does in one iteration of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Taking in new requests and aborts.
    Receive,
    /// Choosing the step's rows and pages.
    Schedule,
    /// Filling the step's input buffer.
    Upload,
    /// Submitting the graphs.
    Replay,
    /// Waiting for a step's tokens.
    Download,
    /// Accepting tokens: finished sequences, freed pages.
    Apply,
    /// Sending tokens to the clients.
    Emit,
}

impl Phase {
    /// Every phase, in the order of the loop.
    pub const ALL: [Phase; 7] =
        [Phase::Receive, Phase::Schedule, Phase::Upload, Phase::Replay, Phase::Download, Phase::Apply, Phase::Emit];

    /// The phase's name in tables and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Receive => "receive",
            Phase::Schedule => "schedule",
            Phase::Upload => "upload",
            Phase::Replay => "replay",
            Phase::Download => "download",
            Phase::Apply => "apply",
            Phase::Emit => "emit",
        }
    }
}

/// A stretch of the engine thread's time. `step` is the step that the phase works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpan {
    /// What was done.
    pub phase: Phase,
    /// For which step.
    pub step: u64,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

/// One iteration of the engine's loop that submitted a step (`ProfilerStep#N` in a trace), and when the step was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step.
    pub step: u64,
    /// Begin of the iteration that submitted it.
    pub start_ns: u64,
    /// End of that iteration.
    pub end_ns: u64,
    /// When the engine's thread held the step's tokens; later than `end_ns` if the step was read in a later iteration.
    pub done_ns: u64,
    /// The step's sizes.
    pub sizes: StepSizes,
    /// Rows that belong to prompts.
    pub prefill_tokens: u64,
    /// Whether its nodes were recorded (a toggled recording leaves steps out, to compare).
    pub traced: bool,
    /// Its upload and its download on the device.
    pub copies: StepCopies,
}

/// One replay of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// The replay, numbered from 1 over the process: the correlation id of its launch and of its nodes.
    pub replay: u64,
    /// The step that it is part of.
    pub step: u64,
    /// [`GraphTable::id`].
    pub graph: u32,
    /// What timed its nodes.
    pub sources: NodeSources,
    /// Begin of its launch on the engine's thread: of the submission of its step, where the device does not say more.
    pub launch_start_ns: u64,
    /// End of the launch.
    pub launch_end_ns: u64,
}

/// A call, from its begin to its return. Nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTimes {
    /// Begin.
    pub start_ns: u64,
    /// Return.
    pub end_ns: u64,
}

/// A row of a step's batch composition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The step.
    pub step: u64,
    /// The request.
    pub request: u64,
    /// Its rows in the step.
    pub tokens: u32,
    /// How many of them are prompt rows.
    pub prefill_tokens: u32,
    /// Its KV length after the step.
    pub kv_len: u32,
}

/// A moment in a request's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestMoment {
    /// It arrived at the engine.
    Queued,
    /// It was in a step for the first time.
    Scheduled,
    /// Its first token was sent.
    FirstToken,
    /// Its pages were taken away; it starts again from its tokens.
    Preempted,
    /// Its last token was sent.
    Finished,
    /// It was aborted or failed.
    Aborted,
}

impl RequestMoment {
    /// Every moment, in the order of a life.
    pub const ALL: [RequestMoment; 6] = [
        RequestMoment::Queued,
        RequestMoment::Scheduled,
        RequestMoment::FirstToken,
        RequestMoment::Preempted,
        RequestMoment::Finished,
        RequestMoment::Aborted,
    ];
}

/// A request came to a moment of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request.
    pub request: u64,
    /// What happened.
    pub moment: RequestMoment,
    /// When.
    pub at_ns: u64,
    /// Tokens at that moment: the prompt's when queued, the answer's later.
    pub tokens: u32,
}
