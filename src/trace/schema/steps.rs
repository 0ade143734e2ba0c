//! What the engine does and when: phases, steps, replays, batches, requests.

use serde::{Deserialize, Serialize};

use super::{NodeSources, StepCopies, StepSizes};

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
    /// Its first token was read from the device.
    FirstToken,
    /// Its pages were taken away; it starts again from its tokens.
    Preempted,
    /// Its last token was read from the device.
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
