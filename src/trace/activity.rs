//! What the driver's own profiling library saw, record by record, as it came. Pure data, always compiled.
//!
//! The library's records name a launch by its correlation id and a node by its graph. Which replay a launch was, and so
//! which step a node belongs to, is found out when a recording is read: the call of a launch lies within the time that
//! the engine took for it, by the same clock.

use serde::{Deserialize, Serialize};

use super::schema::is_time;

/// A node of a captured graph that ran. Nanoseconds of the machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeActivity {
    /// Of the launch of its graph.
    pub correlation: u32,
    /// [`super::schema::GraphTable::id`].
    pub graph: u32,
    /// The node's index in its graph.
    pub ordinal: u32,
    /// Begin; 0: not timed.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

impl NodeActivity {
    /// Whether its times are times.
    pub fn is_valid(&self) -> bool {
        is_time(self.start_ns, self.end_ns)
    }
}

/// What a copy moves, and from where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CopyKind {
    /// From the host to the device.
    HtoD,
    /// From the device to the host.
    DtoH,
    /// Within the device.
    DtoD,
    /// Another direction.
    Other,
    /// No copy: bytes of the device are set to one value.
    Fill,
}

impl CopyKind {
    /// Every kind, in the order of its numbers in a recording.
    pub const ALL: [CopyKind; 5] = [CopyKind::HtoD, CopyKind::DtoH, CopyKind::DtoD, CopyKind::Other, CopyKind::Fill];
}

/// A copy or fill that the device made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyActivity {
    /// Its kind.
    pub kind: CopyKind,
    /// Of the call that asked for it.
    pub correlation: u32,
    /// Begin; 0: not timed.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Bytes moved or set.
    pub bytes: u64,
}

/// A call of the driver that launches something, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DriverCall {
    /// A replay.
    GraphLaunch,
    /// A kernel outside of graphs.
    LaunchKernelEx,
    /// To the device.
    MemcpyHtoDAsync,
    /// From the device.
    MemcpyDtoHAsync,
    /// A fill.
    MemsetD8Async,
    /// Waits for a stream.
    StreamSynchronize,
    /// Waits for an event.
    EventSynchronize,
}

impl DriverCall {
    /// Every call, in the order of its numbers in a recording.
    pub const ALL: [DriverCall; 7] = [
        DriverCall::GraphLaunch,
        DriverCall::LaunchKernelEx,
        DriverCall::MemcpyHtoDAsync,
        DriverCall::MemcpyDtoHAsync,
        DriverCall::MemsetD8Async,
        DriverCall::StreamSynchronize,
        DriverCall::EventSynchronize,
    ];

    /// The function's name in cuda.h.
    pub fn as_str(self) -> &'static str {
        match self {
            DriverCall::GraphLaunch => "cuGraphLaunch",
            DriverCall::LaunchKernelEx => "cuLaunchKernelEx",
            DriverCall::MemcpyHtoDAsync => "cuMemcpyHtoDAsync",
            DriverCall::MemcpyDtoHAsync => "cuMemcpyDtoHAsync",
            DriverCall::MemsetD8Async => "cuMemsetD8Async",
            DriverCall::StreamSynchronize => "cuStreamSynchronize",
            DriverCall::EventSynchronize => "cuEventSynchronize",
        }
    }
}

/// A call of the driver, on a thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallActivity {
    /// Which function.
    pub call: DriverCall,
    /// Names what the device did for it.
    pub correlation: u32,
    /// The thread, as the operating system numbers it.
    pub thread: u32,
    /// What the call returned; 0 is success.
    pub status: u32,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

/// What the profiling library spent time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OverheadKind {
    /// Handing over buffers of records.
    BufferFlush,
    /// Instrumenting what runs.
    Instrumentation,
    /// Making and freeing what it needs.
    Resource,
    /// The driver loaded a module or a function when it was first needed.
    LazyLoading,
    /// The driver's command buffer was full.
    CommandBufferFull,
    /// Asking for a buffer of records.
    BufferRequest,
    /// The driver's compiler, and everything else.
    Other,
}

impl OverheadKind {
    /// Every kind, in the order of its numbers in a recording.
    pub const ALL: [OverheadKind; 7] = [
        OverheadKind::BufferFlush,
        OverheadKind::Instrumentation,
        OverheadKind::Resource,
        OverheadKind::LazyLoading,
        OverheadKind::CommandBufferFull,
        OverheadKind::BufferRequest,
        OverheadKind::Other,
    ];

    /// Its name, as PyTorch's traces have it.
    pub fn as_str(self) -> &'static str {
        match self {
            OverheadKind::BufferFlush => "Buffer Flush",
            OverheadKind::Instrumentation => "Instrumentation",
            OverheadKind::Resource => "Resource",
            OverheadKind::LazyLoading => "Lazy Function Loading",
            OverheadKind::CommandBufferFull => "Command Buffer Full",
            OverheadKind::BufferRequest => "Activity Buffer Request",
            OverheadKind::Other => "Unknown",
        }
    }
}

/// A stretch of time that the profiling library or the driver took for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverheadActivity {
    /// What for.
    pub kind: OverheadKind,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

/// A record of the profiling library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A node ran.
    Node(NodeActivity),
    /// A copy or fill was made.
    Copy(CopyActivity),
    /// The driver was called.
    Call(CallActivity),
    /// Time was lost.
    Overhead(OverheadActivity),
}

/// A record of a kernel in a graph as it came: for whoever examines the profiling library itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedNode {
    /// Of the launch of its graph.
    pub correlation: u32,
    /// Of the node, in whichever graph the library says.
    pub id: u64,
    /// Of the captured node that it was instantiated from, in libraries that say so.
    pub source: Option<u64>,
    /// Begin, in nanoseconds of the machine's monotonic clock; 0: not timed.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

impl WatchedNode {
    /// Whether its times are times.
    pub fn is_valid(&self) -> bool {
        is_time(self.start_ns, self.end_ns)
    }
}

/// What the profiling library said while it was watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Kernels in graphs, in the order of their records.
    pub nodes: Vec<WatchedNode>,
    /// Correlation ids of the calls that launch graphs.
    pub launches: Vec<u32>,
    /// Records that the library had no room for.
    pub dropped: u64,
    /// Calls of the library that failed.
    pub errors: Vec<String>,
}

/// What became of the profiling library's records: its own words in a recording's closing block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityCounts {
    /// Nodes with times.
    pub nodes: u64,
    /// Nodes without.
    pub invalid: u64,
    /// Nodes of graphs that nobody captured here.
    pub unknown: u64,
    /// Kernels outside of graphs.
    pub other_kernels: u64,
    /// Copies and fills.
    pub copies: u64,
    /// Calls that launch or wait.
    pub calls: u64,
    /// Other calls, and records of kinds that were not asked for: they are not in the recording.
    pub calls_left_out: u64,
    /// Stretches of overhead.
    pub overheads: u64,
    /// Records that the library had no room for.
    pub dropped: u64,
    /// Records that the recording had no room for.
    pub lost: u64,
    /// Buffers of records that came.
    pub buffers: u64,
    /// Why the library was given up before the end, if it was.
    pub given_up: Option<String>,
    /// Calls of the library that failed.
    pub errors: Vec<String>,
}

// The reader of a recording indexes `ALL` by what its writer casts.
const _: () = {
    let mut at = 0;
    while at < CopyKind::ALL.len() {
        assert!(CopyKind::ALL[at] as usize == at, "CopyKind::ALL is in the order of declaration");
        at += 1;
    }
    at = 0;
    while at < DriverCall::ALL.len() {
        assert!(DriverCall::ALL[at] as usize == at, "DriverCall::ALL is in the order of declaration");
        at += 1;
    }
    at = 0;
    while at < OverheadKind::ALL.len() {
        assert!(OverheadKind::ALL[at] as usize == at, "OverheadKind::ALL is in the order of declaration");
        at += 1;
    }
};
