//! The engine's side of a recording: what the loop tells it, and its own count of what must be in it.
//!
//! Without a recording every call is a look at an `Option`; without feature `profiling` that option has no other value
//! and the calls are gone.

mod session;
mod starting;

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use self::session::Session;
use self::starting::StartingSession;
use super::{EngineInfo, ProfileError, SessionStarted, StartRequest};
use crate::device::{DeviceError, DevicePeaks, clock_anchor, monotonic_ns, thread_id};
use crate::request::{RequestId, StepId};
use crate::step::{FinishedStep, StepRunner, SubmittedStep};
use crate::trace::progress::State;
use crate::trace::record::{Recorder, Sampler};
use crate::trace::schema::*;
use crate::trace::session::*;
use crate::trace::window::Verdict;

/// How often an engine that has nothing to do looks for the recorder of a session that comes.
const STARTING_POLL: Duration = Duration::from_millis(1);

/// Records the loop while a session runs.
#[derive(Debug)]
pub(super) struct Recording {
    /// The session that comes, until there is a recorder for it.
    starting: Option<StartingSession>,
    session: Option<Session>,
    /// The session before, until its file is whole.
    closing: Option<ClosingSession>,
    /// Times one step in N, whether a session runs or not.
    sampler: Option<Sampler>,
    info: EngineInfo,
    peaks: Option<DevicePeaks>,
    /// Replays since the start of the process.
    replays: u64,
}

/// A session whose file is being ended.
#[derive(Debug)]
struct ClosingSession {
    id: String,
    /// Gone when its file is whole.
    token: Weak<()>,
    thread: JoinHandle<()>,
}

impl Recording {
    pub(super) fn new(info: &EngineInfo, mut sampler: Option<Sampler>, runner: &StepRunner) -> Recording {
        if let Some(sampler) = &mut sampler {
            runner.tables().into_iter().for_each(|table| sampler.know(table));
        }
        Recording { starting: None, session: None, closing: None, sampler, info: info.clone(), peaks: None, replays: 0 }
    }

    /// Prepares a session, which [`Recording::begin`] begins. The first one of a process measures the device's roofs,
    /// which takes about a second: with no step under way then.
    pub(super) fn start(&mut self, request: StartRequest, runner: &mut StepRunner) {
        if let Err(error) = self.check_start().and_then(|()| self.measure(runner)) {
            let _ = request.reply.send(Err(error)); // the asker may have left
            return;
        }
        self.make_recorder(request, None, runner);
    }

    /// One session at a time.
    fn check_start(&self) -> Result<(), ProfileError> {
        if let Some(session) = &self.session {
            return Err(ProfileError::Running { id: session.recorder.id().to_owned() });
        }
        if self.starting.is_some() {
            return Err(ProfileError::Starting);
        }
        match self.closing.as_ref().filter(|closing| closing.token.strong_count() > 0) {
            Some(closing) => Err(ProfileError::Closing { id: closing.id.clone() }),
            None if !crate::trace::record::ENABLED => Err(RecordError::NotCompiledIn.into()),
            None => Ok(()),
        }
    }

    fn measure(&mut self, runner: &mut StepRunner) -> Result<(), ProfileError> {
        match self.peaks(runner) {
            // A recording without roofs is worth more than none.
            Err(error @ DeviceError::OutOfMemory { .. }) => {
                tracing::warn!("this recording has no peaks of the device: {error}");
                Ok(())
            }
            measured => measured.map(|_| ()).map_err(ProfileError::from),
        }
    }

    /// Has a recorder made, with stamps alone if there is a reason for that.
    fn make_recorder(&mut self, request: StartRequest, stamps_alone: Option<String>, runner: &StepRunner) {
        let mut header = self.header();
        header.sources.absent = stamps_alone;
        let graphs = runner.tables().into_iter().cloned().collect();
        self.starting = Some(StartingSession::new(request, header, graphs));
    }

    /// The recorder of the session that comes, if it has been made.
    pub(super) fn take_recorder(&mut self) -> Option<Recorder> {
        let made = self.starting.as_ref()?.take()?;
        made.map_err(|error| self.refuse(error.into())).ok()
    }

    fn refuse(&mut self, error: ProfileError) {
        if let Some(starting) = self.starting.take() {
            let _ = starting.request.reply.send(Err(error)); // the asker may have left
        }
    }

    /// Begins the session that comes, with no step under way. Whether it has begun.
    #[allow(unreachable_code, unused_variables, reason = "in a build without recorder there is no session")]
    pub(super) fn begin(&mut self, mut recorder: Recorder, runner: &StepRunner) -> bool {
        let Some(StartingSession { request, .. }) = self.starting.take() else { return false };
        if let Err(reason) = recorder.begin() {
            tracing::warn!("this recording has stamps alone: {reason}");
            recorder.discard();
            self.make_recorder(request, Some(reason), runner);
            return false;
        }
        let StartRequest { options, end, reply } = request;
        let started = SessionStarted {
            id: recorder.id().to_owned(),
            path: recorder.path().to_owned(),
            sources: recorder.sources().clone(),
            progress: recorder.progress().clone(),
        };
        let session = self.session.insert(Session::new(recorder, &options, end, self.info.limits.max_seqs));
        // Whoever is told that it has started sees it recording, if it waits for nothing.
        session.window.open_by_time(session.now_ns);
        session.tell_opened();
        let _ = reply.send(Ok(started)); // the asker may have left
        true
    }

    /// Whether the device's roofs are known.
    pub(super) fn has_peaks(&self) -> bool {
        self.peaks.is_some()
    }

    /// The device's roofs, with no step under way: measured when they are first asked for.
    pub(super) fn peaks(&mut self, runner: &mut StepRunner) -> Result<DevicePeaks, DeviceError> {
        if let Some(peaks) = self.peaks {
            return Ok(peaks);
        }
        let peaks = *self.peaks.insert(runner.measure_peaks()?);
        if let Some(sampler) = &mut self.sampler {
            sampler.set_peaks(session_peaks(&peaks));
            sampler.paused(); // no step took the time of the measurement
        }
        Ok(peaks)
    }

    /// Asks the session to end; of this id, if one is given.
    pub(super) fn stop(&mut self, id: Option<&str>) -> Result<String, ProfileError> {
        let session = self.session.as_mut().ok_or(ProfileError::NotRunning)?;
        if let Some(asked) = id.filter(|id| *id != session.recorder.id()) {
            return Err(ProfileError::Other { asked: asked.to_owned(), running: session.recorder.id().to_owned() });
        }
        session.is_stopped = true;
        Ok(session.recorder.id().to_owned())
    }

    /// Whether the session that runs is to end before the next step.
    pub(super) fn is_over(&mut self) -> bool {
        self.session.as_mut().is_some_and(|session| {
            session.now_ns = monotonic_ns();
            session.window.open_by_time(session.now_ns);
            session.tell_opened();
            session.is_stopped || session.window.is_over(session.now_ns)
        })
    }

    /// How long the engine's thread may wait for something to do; as long as it likes if there is no answer.
    pub(super) fn wait_max(&self) -> Option<Duration> {
        if self.starting.is_some() {
            return Some(STARTING_POLL);
        }
        let change_ns = self.session.as_ref()?.window.next_change_ns()?;
        Some(Duration::from_nanos(change_ns.saturating_sub(monotonic_ns())))
    }

    /// Ends the session, with no step under way, on a thread of its own.
    pub(super) fn close(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        session.enter(None, monotonic_ns());
        let Session { mut recorder, end, expected, .. } = session;
        recorder.progress().enter(State::Closing);
        // From here on nothing is launched that it is to see.
        recorder.quiesce();
        let is_closing = Arc::new(());
        let (id, token) = (recorder.id().to_owned(), Arc::downgrade(&is_closing));
        let close = move || {
            let summary = recorder.stop(expected).map_err(ProfileError::from);
            drop(is_closing);
            let _ = end.send(summary); // whoever started it may have left
        };
        // Where there is no thread to be had, its end is told to whoever waits for it: the sender is dropped.
        match std::thread::Builder::new().name("vitrum-closing".into()).spawn(close) {
            Ok(thread) => self.closing = Some(ClosingSession { id, token, thread }),
            Err(error) => tracing::error!("no thread to end a recording with: {error}"),
        }
    }

    /// Ends a session that nobody has ended, so that its file has what was recorded so far.
    pub(super) fn end(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.give_up();
        }
        if let Some(closing) = self.closing.take() {
            let _ = closing.thread.join(); // if it panicked, whoever waits for the session is told
        }
        let Some(Session { recorder, end, expected, .. }) = self.session.take() else { return };
        let path = recorder.path().to_owned();
        let summary = recorder.stop(expected);
        match &summary {
            Ok(SpoolSummary { received, expected, .. }) => {
                tracing::warn!(received, expected, "the engine ends while it records: {}", path.display());
            }
            Err(error) => tracing::error!("the engine ends while it records: {}: {error}", path.display()),
        }
        let _ = end.send(summary.map_err(ProfileError::from));
    }

    /// A turn of the loop begins, with taking in what came.
    pub(super) fn begin_iteration(&mut self, step: StepId) {
        if let Some(session) = &mut self.session {
            session.iteration_start_ns = monotonic_ns();
            session.submitted_in_iteration = false;
            session.enter(Some((Phase::Receive, step)), session.iteration_start_ns);
        }
    }

    /// The turn waits for something to do: that is nobody's time, and what was before it led to no step.
    pub(super) fn pause(&mut self) {
        if let Some(session) = &mut self.session {
            session.enter(None, monotonic_ns());
            session.prepared.spans.clear();
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.paused();
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

    /// Whether the next step, whose batch is filled, is recorded, and what is to time its nodes.
    pub(super) fn decide(&mut self, step: StepId, prefill_tokens: u64, runner: &StepRunner) -> NodeSources {
        let by_session = self.session.as_mut().and_then(|session| session.decide(step, prefill_tokens, runner));
        match &mut self.sampler {
            Some(sampler) => sampler.decide(by_session),
            None => by_session.unwrap_or(NodeSources::NONE),
        }
    }

    /// A step was submitted, in the phase that runs.
    pub(super) fn submitted(&mut self, id: StepId, step: &SubmittedStep, prefill_tokens: u64, runner: &StepRunner) {
        let first_replay = self.replays + 1;
        self.replays += step.graphs.iter().flatten().count() as u64;
        if let Some(session) = &mut self.session
            && session.decided == Some((id, Verdict::Recorded))
        {
            session.submitted(id, step, prefill_tokens, first_replay, runner);
        }
        if let Some(sampler) = &mut self.sampler {
            let graphs = step.graphs.map(|graph| graph.map(|graph| runner.graph(graph).as_ref()));
            sampler.submitted(id, step.sources, (step.sizes, prefill_tokens), graphs);
        }
    }

    /// A step's tokens have been read.
    pub(super) fn finished(&mut self, id: StepId, step: &FinishedStep<'_>, done_ns: u64) {
        if let Some(session) = &mut self.session {
            session.finished(id, step, done_ns);
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.finished(id, step.stamps, done_ns);
        }
    }

    /// The rows of one request in the step that is being filled. The client calls the request `name`.
    pub(super) fn member(&mut self, member: MemberRecord, name: &str) {
        if let Some(session) = &mut self.session {
            session.prepared.has_request |= session.named.saw(RequestId(member.request), name);
            session.prepared.members.push(member);
        }
    }

    /// A request came, which its client calls `name`.
    pub(super) fn request_named(&mut self, request: RequestId, name: &str) {
        if let Some(session) = &mut self.session {
            session.named.saw(request, name);
            session.recorder.name(request.0, name);
        }
    }

    /// A moment in a request's life.
    pub(super) fn request(&mut self, request: RequestId, moment: RequestMoment, at_ns: u64, tokens: usize) {
        let Some(session) = &mut self.session else { return };
        session.recorder.request(&RequestRecord { request: request.0, moment, at_ns, tokens: tokens as u32 });
        if matches!(moment, RequestMoment::Finished | RequestMoment::Aborted) && session.named.ended(request) {
            session.window.request_ended();
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
            peaks: self.peaks.as_ref().map(session_peaks),
            pid: std::process::id(),
            engine_tid: thread_id(),
            clock: clock_anchor(),
            sources: SessionSources::default(), // the recorder's to say
        }
    }
}

fn session_peaks(peaks: &DevicePeaks) -> SessionPeaks {
    SessionPeaks {
        memory_gb_s: peaks.memory_gb_s,
        cache_gb_s: peaks.cache_gb_s,
        cache_bytes: peaks.cache_bytes,
        float_gflop_s: peaks.float_gflop_s,
        int8_gop_s: peaks.int8_gop_s,
    }
}
