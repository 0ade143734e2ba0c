//! The engine's side of a recording: what the loop tells it, and its own count of what must be in it.
//!
//! Without a recording every call is a look at an `Option`; without feature `profiling` that option has no other value
//! and the calls are gone.

use std::collections::VecDeque;

use super::{EngineInfo, ProfileError, SessionStarted};
use crate::device::{DeviceError, DevicePeaks, STEPS_IN_FLIGHT, clock_anchor, monotonic_ns, thread_id};
use crate::request::{RequestId, StepId};
use crate::step::{FinishedStep, StepRunner, SubmittedStep};
use crate::trace::record::Recorder;
use crate::trace::schema::*;
use crate::trace::session::*;

/// Records the loop while a session runs.
#[derive(Debug)]
pub(super) struct Recording {
    session: Option<Session>,
    info: EngineInfo,
    peaks: Option<DevicePeaks>,
    /// Replays since the start of the process.
    replays: u64,
}

#[derive(Debug)]
struct Session {
    recorder: Recorder,
    expected: Expected,
    steps: VecDeque<OpenStep>,
    iteration_start_ns: u64,
    /// The phase that runs, and since when.
    phase: Option<(Phase, StepId, u64)>,
    submitted_in_iteration: bool,
    /// Graphs up to this number are in the recording's header.
    known_graphs: u32,
}

/// A step that was submitted and not read yet.
#[derive(Debug)]
struct OpenStep {
    record: StepRecord,
    /// Replays with the number of their graphs' nodes.
    replays: [Option<(ReplayRecord, usize)>; 2],
}

impl Recording {
    pub(super) fn new(info: &EngineInfo) -> Recording {
        Recording { session: None, info: info.clone(), peaks: None, replays: 0 }
    }

    /// Starts a session. The first one of a process measures the device's roofs, which takes about a second.
    pub(super) fn start(
        &mut self,
        options: &SessionOptions,
        runner: &mut StepRunner,
    ) -> Result<SessionStarted, ProfileError> {
        if let Some(session) = &self.session {
            return Err(ProfileError::Running { id: session.recorder.id().to_owned() });
        }
        if !crate::trace::record::ENABLED {
            return Err(RecordError::NotCompiledIn.into());
        }
        match self.peaks(runner) {
            // A recording without roofs is worth more than none.
            Err(error @ DeviceError::OutOfMemory { .. }) => {
                tracing::warn!("this recording has no peaks of the device: {error}");
            }
            measured => drop(measured?),
        }
        let tables = runner.tables();
        let recorder = Recorder::start(options, &self.header(), &tables)?;
        let started = SessionStarted {
            id: recorder.id().to_owned(),
            path: recorder.path().to_owned(),
            sources: recorder.sources().clone(),
        };
        self.session = Some(Session {
            recorder,
            expected: Expected::default(),
            steps: VecDeque::with_capacity(STEPS_IN_FLIGHT),
            iteration_start_ns: monotonic_ns(),
            phase: None,
            submitted_in_iteration: false,
            known_graphs: tables.len() as u32,
        });
        Ok(started)
    }

    /// The device's roofs, with no step under way: measured when they are first asked for.
    pub(super) fn peaks(&mut self, runner: &mut StepRunner) -> Result<DevicePeaks, DeviceError> {
        match self.peaks {
            Some(peaks) => Ok(peaks),
            None => Ok(*self.peaks.insert(runner.measure_peaks()?)),
        }
    }

    /// Ends the session, with no step under way.
    pub(super) fn stop(&mut self) -> Result<SpoolSummary, ProfileError> {
        let session = self.session.take().ok_or(ProfileError::NotRunning)?;
        Ok(session.recorder.stop(session.expected)?)
    }

    /// Ends a session that nobody has ended, so that its file has what was recorded so far.
    pub(super) fn end(&mut self) {
        let Some(session) = self.session.take() else { return };
        let path = session.recorder.path().to_owned();
        match session.recorder.stop(session.expected) {
            Ok(summary) => {
                let (received, expected) = (summary.received, summary.expected);
                tracing::warn!(received, expected, "the engine ends while it records: {}", path.display());
            }
            Err(error) => tracing::error!("the engine ends while it records: {}: {error}", path.display()),
        }
    }

    /// A turn of the loop begins, with taking in what came.
    pub(super) fn begin_iteration(&mut self, step: StepId) {
        if let Some(session) = &mut self.session {
            session.iteration_start_ns = monotonic_ns();
            session.submitted_in_iteration = false;
            session.enter(Some((Phase::Receive, step)), session.iteration_start_ns);
        }
    }

    /// The turn waits for something to do: that is nobody's time.
    pub(super) fn pause(&mut self) {
        if let Some(session) = &mut self.session {
            session.enter(None, monotonic_ns());
        }
    }

    /// The next phase begins, and ends the one before.
    pub(super) fn phase(&mut self, phase: Phase, step: StepId) {
        if let Some(session) = &mut self.session {
            session.enter(Some((phase, step)), monotonic_ns());
        }
    }

    /// The turn is over.
    pub(super) fn end_iteration(&mut self) {
        if let Some(session) = &mut self.session {
            let now = monotonic_ns();
            session.enter(None, now);
            if let Some(open) = session.steps.back_mut().filter(|_| session.submitted_in_iteration) {
                open.record.end_ns = now;
            }
        }
    }

    /// What is to time the nodes of the next step.
    pub(super) fn wants_step(&mut self, step: StepId) -> NodeSources {
        self.session.as_mut().map_or(NodeSources::NONE, |session| session.recorder.wants_step(step))
    }

    /// A step was submitted, in the phase that runs.
    pub(super) fn submitted(&mut self, id: StepId, step: &SubmittedStep, prefill_tokens: u64, runner: &StepRunner) {
        let first_replay = self.replays + 1;
        self.replays += step.graphs.iter().flatten().count() as u64;
        if let Some(session) = &mut self.session {
            session.submitted(id, step, prefill_tokens, first_replay, runner);
        }
    }

    /// A step's tokens have been read.
    pub(super) fn finished(&mut self, id: StepId, step: &FinishedStep<'_>, done_ns: u64) {
        if let Some(session) = &mut self.session {
            session.finished(id, step, done_ns);
        }
    }

    /// The rows of one request in the step that is being filled.
    pub(super) fn member(&mut self, member: MemberRecord) {
        if let Some(session) = &mut self.session {
            session.recorder.member(&member);
        }
    }

    /// A moment in a request's life.
    pub(super) fn request(&mut self, request: RequestId, moment: RequestMoment, at_ns: u64, tokens: usize) {
        if let Some(session) = &mut self.session {
            session.recorder.request(&RequestRecord { request: request.0, moment, at_ns, tokens: tokens as u32 });
        }
    }

    fn header(&self) -> SessionHeader {
        let device = &self.info.device;
        SessionHeader {
            version: env!("CARGO_PKG_VERSION").into(),
            model: self.info.model.name.clone(),
            device: SessionDevice {
                name: device.name.clone(),
                kind: device.kind.into(),
                isa: device.isa.into(),
                workers: device.workers as u32,
            },
            peaks: self.peaks.map(|peaks| SessionPeaks {
                memory_gb_s: peaks.memory_gb_s,
                cache_gb_s: peaks.cache_gb_s,
                cache_bytes: peaks.cache_bytes,
                float_gflop_s: peaks.float_gflop_s,
                int8_gop_s: peaks.int8_gop_s,
            }),
            pid: std::process::id(),
            engine_tid: thread_id(),
            clock: clock_anchor(),
            sources: SessionSources::default(), // the recorder's to say
        }
    }
}

impl Session {
    fn enter(&mut self, next: Option<(Phase, StepId)>, now: u64) {
        if let Some((phase, step, start_ns)) = self.phase.take() {
            self.recorder.span(&HostSpan { phase, step: step.0, start_ns, end_ns: now });
        }
        self.phase = next.map(|(phase, step)| (phase, step, now));
    }

    fn submitted(
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
            self.expect(table.id, table.nodes.len() as u64, step.sources);
            if table.id > self.known_graphs {
                self.recorder.graph(table);
                self.known_graphs = table.id;
            }
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

    fn finished(&mut self, id: StepId, step: &FinishedStep<'_>, done_ns: u64) {
        if self.steps.front().is_none_or(|open| open.record.step != id.0) {
            return; // submitted before the session began
        }
        let Some(mut open) = self.steps.pop_front() else { return };
        open.record.done_ns = done_ns;
        open.record.copies = step.copies;
        self.recorder.step(&open.record);
        let mut stamps = step.stamps;
        for (at, (replay, nodes)) in open.replays.iter_mut().flatten().enumerate() {
            if let Some(launch) = step.launches.get(at) {
                (replay.launch_start_ns, replay.launch_end_ns) = (launch.start_ns, launch.end_ns);
            }
            let (own, rest) = stamps.split_at(stamps.len().min(*nodes));
            self.recorder.replay(replay, own);
            stamps = rest;
        }
    }
}
