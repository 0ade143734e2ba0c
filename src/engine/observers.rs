//! Who is told of what the engine's thread does: the recording, the metrics, the watcher of steps.
//!
//! The loop tells every event once. Which of the three hears of it, and in which words, is said here and nowhere else.
//! Once a graph has been seen, no event allocates.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::EngineMetrics;
use super::recording::Recording;
use super::scheduler::Scheduler;
use super::sequence::Sequence;
use super::watch::StepWatch;
use crate::device::GraphId;
use crate::request::{FinishReason, StepId};
use crate::step::{FinishedStep, StepRunner, SubmittedStep};
use crate::trace::schema::{MemberRecord, NodeSources, Phase, RequestMoment, StepSizes};

/// Those that are told. Commands that start or stop one of them go to it directly.
#[derive(Debug)]
pub(super) struct Observers {
    pub(super) recording: Recording,
    pub(super) watch: StepWatch,
    metrics: Arc<EngineMetrics>,
}

/// A step whose tokens have been taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppliedStep {
    pub(super) id: StepId,
    pub(super) graphs: [Option<GraphId>; 2],
    pub(super) sizes: StepSizes,
    /// Rows of prompts.
    pub(super) prefill_tokens: u64,
    /// Tokens for clients.
    pub(super) drawn_tokens: usize,
    /// When it had been read, by the monotonic clock.
    pub(super) read_ns: u64,
}

/// Turns of the loop and their phases.
impl Observers {
    pub(super) fn new(recording: Recording, metrics: Arc<EngineMetrics>) -> Observers {
        Observers { recording, watch: StepWatch::default(), metrics }
    }

    /// A turn begins, with taking in what came.
    pub(super) fn turn_begins(&mut self, step: StepId) {
        self.recording.begin_iteration(step);
    }

    /// The turn waits for something to do.
    pub(super) fn idle(&mut self) {
        self.recording.pause();
    }

    /// The next phase begins, and ends the one before.
    pub(super) fn phase(&mut self, phase: Phase, step: StepId) {
        self.recording.phase(phase, step);
    }

    /// The turn is over.
    pub(super) fn turn_ends(&mut self, scheduler: &Scheduler) {
        self.recording.end_iteration();
        self.metrics.set_queue(scheduler.waiting.len(), scheduler.running.len());
        self.metrics.set_kv_usage(scheduler.pages.usage());
    }
}

/// Steps.
impl Observers {
    /// The step that is being filled has got rows of a sequence, the last of those that it has computed.
    pub(super) fn rows(&mut self, step: StepId, sequence: &Sequence, rows: usize, prefill_tokens: usize) {
        let member = MemberRecord {
            step: step.0,
            request: sequence.id.0,
            tokens: rows as u32,
            prefill_tokens: prefill_tokens as u32,
            kv_len: sequence.computed as u32,
        };
        self.recording.member(member, &sequence.name);
    }

    /// What is to time the nodes of the next step, whose batch is filled: recordings and sampling decide that.
    pub(super) fn node_sources(&mut self, id: StepId, prefill_tokens: u64, runner: &StepRunner) -> NodeSources {
        self.recording.decide(id, prefill_tokens, runner)
    }

    /// A step was submitted, in the phase that runs.
    pub(super) fn submitted(&mut self, id: StepId, step: &SubmittedStep, prefill_tokens: u64, runner: &StepRunner) {
        for graph in step.graphs.into_iter().flatten() {
            self.metrics.replay(runner.graph(graph).key);
        }
        self.recording.submitted(id, step, prefill_tokens, runner);
    }

    /// A step's tokens have been read.
    pub(super) fn read(&mut self, id: StepId, step: &FinishedStep<'_>, read_ns: u64) {
        self.recording.finished(id, step, read_ns);
    }

    /// A step's tokens have been taken in, and are sent next.
    pub(super) fn applied(&mut self, step: &AppliedStep, runner: &StepRunner) {
        self.watch.step(step.id, (step.graphs, step.sizes), step.read_ns, runner);
        self.metrics.step(step.prefill_tokens as usize, step.drawn_tokens);
    }
}

/// Requests.
impl Observers {
    /// A request came, and waits.
    pub(super) fn queued(&mut self, sequence: &Sequence) {
        self.metrics.request_received();
        self.recording.request_named(sequence.id, &sequence.name);
        self.request(sequence, RequestMoment::Queued, sequence.times.queued_ns, sequence.prompt_len);
    }

    /// A request is in a step for the first time.
    pub(super) fn scheduled(&mut self, sequence: &Sequence, at_ns: u64) {
        self.request(sequence, RequestMoment::Scheduled, at_ns, 0);
    }

    /// A request's pages were taken away, and it waits again.
    pub(super) fn preempted(&mut self, sequence: &Sequence, at_ns: u64) {
        self.metrics.preempted();
        self.request(sequence, RequestMoment::Preempted, at_ns, sequence.delivered());
    }

    /// A token is sent next, whose moment the sequence does not have yet.
    pub(super) fn token(&mut self, sequence: &Sequence, at_ns: u64) {
        let since = |from_ns: u64| Duration::from_nanos(at_ns - from_ns);
        if sequence.times.first_token_ns.is_none() {
            self.metrics.on_first_token(since(sequence.times.queued_ns));
            self.request(sequence, RequestMoment::FirstToken, at_ns, 1);
        } else {
            self.metrics.on_token(since(sequence.times.last_token_ns));
        }
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, sequence: &Sequence, reason: FinishReason, at_ns: u64) {
        let moment = if reason == FinishReason::Abort { RequestMoment::Aborted } else { RequestMoment::Finished };
        self.request(sequence, moment, at_ns, sequence.delivered());
        self.metrics.on_finish(&sequence.summary(reason, at_ns));
    }

    fn request(&mut self, sequence: &Sequence, moment: RequestMoment, at_ns: u64, tokens: usize) {
        self.recording.request(sequence.id, moment, at_ns, tokens);
    }
}
