//! The words of a recording: graphs, nodes, places, costs, steps, requests. Pure data, always compiled.
//!
//! Everything above the device speaks of nodes in these words, whether a recorder is compiled in or not: a node's place
//! and cost are the graph's own description. The spool's bytes are in [`crate::trace::spool`].

mod steps;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::steps::{
    CallTimes, HostSpan, MemberRecord, Phase, ReplayRecord, RequestMoment, RequestRecord, StepRecord,
};

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Op {
    /// Token embedding.
    #[serde(rename = "embed")]
    Embed,
    /// Norm, query, key and value projections, rotary embedding, KV cache write.
    #[serde(rename = "attn.qkv")]
    AttnQkv,
    /// Norm of queries and keys, rotary embedding, KV cache write of keys, where models have that norm.
    #[serde(rename = "attn.qk_norm")]
    AttnQkNorm,
    /// Attention over the cache.
    #[serde(rename = "attn.core")]
    AttnCore,
    /// Output projection and residual.
    #[serde(rename = "attn.out")]
    AttnOut,
    /// Norm behind attention, where models have one.
    #[serde(rename = "attn.norm")]
    AttnNorm,
    /// Norm, gate and up projections, SiLU.
    #[serde(rename = "mlp.up")]
    MlpUp,
    /// Down projection and residual.
    #[serde(rename = "mlp.down")]
    MlpDown,
    /// Norm behind the MLP, where models have one.
    #[serde(rename = "mlp.norm")]
    MlpNorm,
    /// Final norm and vocabulary projection.
    #[serde(rename = "lm_head")]
    LmHead,
    /// Drawing the next token.
    #[serde(rename = "sample")]
    Sample,
    /// A whole graph, where a recording describes it as one node.
    #[serde(rename = "graph")]
    Graph,
}

impl Op {
    /// Every op of a model, in the order of a step.
    pub const ALL: [Op; 11] = [
        Op::Embed,
        Op::AttnQkv,
        Op::AttnQkNorm,
        Op::AttnCore,
        Op::AttnOut,
        Op::AttnNorm,
        Op::MlpUp,
        Op::MlpDown,
        Op::MlpNorm,
        Op::LmHead,
        Op::Sample,
    ];

    /// Every op that a recording may name: those of a model, and the one of a whole graph.
    pub const RECORDED: [Op; Op::ALL.len() + 1] = {
        let mut ops = [Op::Graph; Op::ALL.len() + 1];
        let mut index = 0;
        while index < Op::ALL.len() {
            ops[index] = Op::ALL[index];
            index += 1;
        }
        ops
    };

    /// The op's name in tables and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Embed => "embed",
            Op::AttnQkv => "attn.qkv",
            Op::AttnQkNorm => "attn.qk_norm",
            Op::AttnCore => "attn.core",
            Op::AttnOut => "attn.out",
            Op::AttnNorm => "attn.norm",
            Op::MlpUp => "mlp.up",
            Op::MlpDown => "mlp.down",
            Op::MlpNorm => "mlp.norm",
            Op::LmHead => "lm_head",
            Op::Sample => "sample",
            Op::Graph => "graph",
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

impl StepSizes {
    /// Adds the sizes of another step.
    pub fn add_saturating(&mut self, other: &StepSizes) {
        let StepSizes { tokens, seqs, logit_rows, kv_tokens, qk_pairs } = self;
        for (sum, more) in [
            (tokens, other.tokens),
            (seqs, other.seqs),
            (logit_rows, other.logit_rows),
            (kv_tokens, other.kv_tokens),
            (qk_pairs, other.qk_pairs),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
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
    /// Every kind.
    pub const ALL: [GraphKind; 4] =
        [GraphKind::ForwardDecode, GraphKind::ForwardMixed, GraphKind::SamplePlain, GraphKind::SampleFull];

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

/// Not a graph's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a graph has a name such as forward.decode.8: see vitrum graph")]
pub struct NotAGraph;

impl FromStr for GraphKey {
    type Err = NotAGraph;

    fn from_str(name: &str) -> Result<GraphKey, NotAGraph> {
        let (kind, bucket) = name.rsplit_once('.').ok_or(NotAGraph)?;
        let kind = GraphKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(NotAGraph)?;
        Ok(GraphKey { kind, bucket: bucket.parse().map_err(|_| NotAGraph)? })
    }
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
    /// Which variant the kernel chose for the device: instruction set, tile, phases.
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

impl GraphTable {
    /// The same graph as one node, named as the graph is: for recordings of whole replays.
    pub fn as_one_node(&self) -> GraphTable {
        let node = NodeInfo {
            kernel: self.key.to_string(),
            choice: format!("{} nodes", self.nodes.len()),
            barriers: self.nodes.iter().map(|node| node.barriers).sum(),
            place: Place { layer: -1, op: Op::Graph },
            cost: Cost {
                bytes: self.nodes.iter().map(|node| node.cost.bytes).sum(),
                flops: self.nodes.iter().map(|node| node.cost.flops).sum(),
            },
            launch: None,
        };
        GraphTable { id: self.id, key: self.key, nodes: vec![node] }
    }
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

    /// From the first node's begin to the last one's end; no time if a node has none, and nothing of no node.
    pub fn of_all(stamps: &[NodeStamp]) -> Option<NodeStamp> {
        stamps.iter().copied().reduce(|whole, stamp| match whole.is_valid() && stamp.is_valid() {
            true => NodeStamp {
                start_ns: whole.start_ns.min(stamp.start_ns),
                end_ns: whole.end_ns.max(stamp.end_ns),
                wait_ns: whole.wait_ns.saturating_add(stamp.wait_ns),
            },
            false => NodeStamp::default(),
        })
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
