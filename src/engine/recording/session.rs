//! A session: a recorder, which steps it takes, and what of them is open.

use std::collections::VecDeque;

use crate::device::{STEPS_IN_FLIGHT, monotonic_ns};
use crate::engine::SessionEnd;
use crate::request::{RequestId, StepId};
use crate::step::{FinishedStep, StepRunner, SubmittedStep};
use crate::trace::record::Recorder;
use crate::trace::schema::*;
use crate::trace::session::*;
use crate::trace::window::{Stage, StepFacts, Verdict, WindowState};

/// Spans of turns in which no step was submitted that are kept for the next step; there are two such turns at most
/// before the engine waits.
const PREPARED_SPANS_MAX: usize = 16;

/// A recording under way.
#[derive(Debug)]
pub(in crate::engine) struct Session {
    pub(super) recorder: Recorder,
    /// Whoever waits for the end.
    pub(super) end: SessionEnd,
    pub(super) granularity: Granularity,
    pub(super) window: WindowState,
    /// The turn's moment, by which the window is asked: what ends it is no step's.
    pub(super) now_ns: u64,
    /// Somebody wants it to end.
    pub(super) is_stopped: bool,
    pub(super) named: NamedRequests,
    pub(super) expected: Expected,
    pub(super) steps: VecDeque<OpenStep>,
    pub(super) iteration_start_ns: u64,
    /// The phase that runs, and since when.
    pub(super) phase: Option<(Phase, StepId, u64)>,
    pub(super) prepared: PreparedStep,
    /// The last step whose fate is known, and that fate.
    pub(super) decided: Option<(StepId, Verdict)>,
    /// The last recorded step that was read.
    pub(super) last_read: Option<StepId>,
    pub(super) submitted_in_iteration: bool,
}

/// What is known of a step before it is known whether it is recorded.
#[derive(Debug)]
pub(super) struct PreparedStep {
    pub(super) spans: Vec<HostSpan>,
    pub(super) members: Vec<MemberRecord>,
    /// It has rows of a request that the window is about.
    pub(super) has_request: bool,
}

/// The requests that a window is about: those that their clients named so.
#[derive(Debug, Default)]
pub(super) struct NamedRequests {
    pub(super) name: Option<String>,
    /// Not ended yet.
    pub(super) live: Vec<RequestId>,
}

/// A step that was submitted and not read yet.
#[derive(Debug)]
pub(super) struct OpenStep {
    pub(super) record: StepRecord,
    /// Replays with the number of their graphs' nodes.
    replays: [Option<(ReplayRecord, usize)>; 2],
}

impl Session {
    pub(super) fn new(recorder: Recorder, options: &SessionOptions, end: SessionEnd, max_seqs: usize) -> Session {
        let now = monotonic_ns();
        Session {
            recorder,
            end,
            granularity: options.granularity,
            window: WindowState::new(options.window.clone(), now),
            now_ns: now,
            is_stopped: false,
            named: NamedRequests { name: options.window.request.clone(), live: Vec::new() },
            expected: Expected::default(),
            steps: VecDeque::with_capacity(STEPS_IN_FLIGHT),
            iteration_start_ns: now,
            phase: None,
            prepared: PreparedStep {
                spans: Vec::with_capacity(PREPARED_SPANS_MAX),
                members: Vec::with_capacity(max_seqs),
                has_request: false,
            },
            decided: None,
            last_read: None,
            submitted_in_iteration: false,
        }
    }

    /// Ends the phase that runs. Its span is recorded if its step is; what comes before that is known is kept.
    pub(super) fn enter(&mut self, next: Option<(Phase, StepId)>, now: u64) {
        if let Some((phase, step, start_ns)) = self.phase.take() {
            let span = HostSpan { phase, step: step.0, start_ns, end_ns: now };
            if self.is_recorded(step) {
                self.recorder.span(&span);
            } else if self.decided.is_none_or(|(decided, _)| step > decided) {
                if self.prepared.spans.len() == PREPARED_SPANS_MAX {
                    self.prepared.spans.remove(0);
                }
                self.prepared.spans.push(span);
            }
        }
        self.phase = next.map(|(phase, step)| (phase, step, now));
    }

    fn is_recorded(&self, step: StepId) -> bool {
        self.last_read == Some(step) || self.steps.iter().any(|open| open.record.step == step.0)
    }

    pub(super) fn tell_opened(&mut self) {
        if let Some(opened_ns) = self.window.opened_ns()
            && self.recorder.progress().snapshot().opened_ns.is_none()
        {
            self.recorder.progress().open(opened_ns.max(1));
        }
    }

    /// What is to time the nodes of a step; nothing if the session has no use for it.
    pub(super) fn decide(&mut self, step: StepId, prefill_tokens: u64, runner: &StepRunner) -> Option<NodeSources> {
        let facts = StepFacts {
            step: step.0,
            stage: Stage::of(&runner.batch_sizes(), prefill_tokens),
            graphs: runner.batch_keys(),
            has_request: self.prepared.has_request,
        };
        let verdict = self.window.step(&facts, self.now_ns);
        self.decided = Some((step, verdict));
        self.tell_opened();
        if verdict == Verdict::Recorded {
            self.prepared.spans.iter().for_each(|span| self.recorder.span(span));
            self.prepared.members.iter().for_each(|member| self.recorder.member(member));
        }
        self.prepared.spans.clear();
        self.prepared.members.clear();
        self.prepared.has_request = false;
        match verdict {
            Verdict::Recorded => Some(self.recorder.wants_step(step)),
            Verdict::Warmup => Some(NodeSources::STAMPS),
            Verdict::LeftOut => None,
        }
    }

    pub(super) fn submitted(
        &mut self,
        id: StepId,
        step: &SubmittedStep,
        prefill_tokens: u64,
        first_replay: u64,
        runner: &StepRunner,
    ) {
        let now = monotonic_ns();
        let launch_start_ns = self.phase.map_or(now, |(_, _, start_ns)| start_ns);
        let mut open = OpenStep {
            record: StepRecord {
                step: id.0,
                start_ns: self.iteration_start_ns,
                end_ns: now,
                done_ns: 0,
                sizes: step.sizes,
                prefill_tokens,
                traced: step.sources.any(),
                copies: StepCopies::default(),
            },
            replays: [None; 2],
        };
        for (i, graph) in step.graphs.iter().flatten().enumerate() {
            let table = runner.graph(*graph);
            let nodes = if self.granularity == Granularity::Graph { 1 } else { table.nodes.len() as u64 };
            self.expect(table.id, nodes, step.sources);
            // It may have been captured since the start, even by a step that is not in the recording.
            self.recorder.graph(table);
            let replay = ReplayRecord {
                replay: first_replay + i as u64,
                step: id.0,
                graph: table.id,
                sources: step.sources,
                launch_start_ns,
                launch_end_ns: now,
            };
            open.replays[i] = Some((replay, table.nodes.len()));
        }
        self.submitted_in_iteration = true;
        self.steps.push_back(open);
    }

    /// Counts a replay that the recording must hold.
    fn expect(&mut self, graph: u32, nodes: u64, sources: NodeSources) {
        let known = self.expected.graphs.iter().position(|expected| expected.graph == graph);
        let index = known.unwrap_or_else(|| {
            self.expected.graphs.push(ExpectedGraph { graph, ..ExpectedGraph::default() });
            self.expected.graphs.len() - 1
        });
        let expected = &mut self.expected.graphs[index];
        expected.replays += 1;
        expected.traced_replays += u64::from(sources.any());
        expected.nodes += if sources.any() { nodes } else { 0 };
        expected.activity += if sources.activity { nodes } else { 0 };
        expected.activity_only += if sources.activity && !sources.stamps { nodes } else { 0 };
    }

    pub(super) fn finished(&mut self, id: StepId, step: &FinishedStep<'_>, done_ns: u64) {
        if self.steps.front().is_none_or(|open| open.record.step != id.0) {
            return; // submitted before the session began
        }
        let Some(mut open) = self.steps.pop_front() else { return };
        open.record.done_ns = done_ns;
        open.record.copies = step.copies;
        self.last_read = Some(id);
        self.recorder.step(&open.record);
        let (mut stamps, mut timed) = (step.stamps, 0);
        for (at, (replay, nodes)) in open.replays.iter_mut().flatten().enumerate() {
            if let Some(launch) = step.launches.get(at) {
                (replay.launch_start_ns, replay.launch_end_ns) = (launch.start_ns, launch.end_ns);
            }
            let (own, rest) = stamps.split_at(stamps.len().min(*nodes));
            let whole;
            let own = match self.granularity {
                Granularity::Node => own,
                Granularity::Graph => {
                    whole = NodeStamp::of_all(own);
                    whole.as_slice()
                }
            };
            self.recorder.replay(replay, own);
            timed += match (replay.sources.activity, replay.sources.stamps) {
                (true, false) => *nodes as u64, // they come later, from the driver's profiling library
                _ => own.len() as u64,
            };
            stamps = rest;
        }
        match self.recorder.is_full() {
            true => self.recorder.progress().set_full(),
            false => self.recorder.progress().step(timed),
        }
    }
}

impl NamedRequests {
    /// Whether a request is one of them.
    pub(super) fn saw(&mut self, request: RequestId, name: &str) -> bool {
        let is_named = self.name.as_deref() == Some(name);
        if is_named && !self.live.contains(&request) {
            self.live.push(request);
        }
        is_named
    }

    /// A request has ended: whether it was the last of them.
    pub(super) fn ended(&mut self, request: RequestId) -> bool {
        let before = self.live.len();
        self.live.retain(|live| *live != request);
        self.live.is_empty() && before > 0
    }
}
