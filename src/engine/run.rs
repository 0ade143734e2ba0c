//! The engine's loop, on one thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::metrics::EngineMetrics;
use super::recording::Recording;
use super::scheduler::{Plan, PlannedRows, Scheduler};
use super::sequence::{Sequence, Times};
use super::watch::StepWatch;
use super::{Command, Engine, Inbox, Submission};
use crate::device::{STEPS_IN_FLIGHT, monotonic_ns};
use crate::kernels::params::LogprobRow;
use crate::request::{FinishReason, LastToken, RequestError, RequestId, StepId, TokenEvent, TokenId, TokenLogprobs};
use crate::step::{RowTokens, Rows, StepError, StepRunner, SubmittedStep};
use crate::trace::record::Sampler;
use crate::trace::schema::{MemberRecord, Phase, RequestMoment};

/// Everything that the engine's thread owns.
pub(super) struct EngineLoop {
    runner: StepRunner,
    scheduler: Scheduler,
    under_way: VecDeque<StepUnderWay>,
    next_step: StepId,
    inbox: Inbox,
    /// Dropped at the end of the thread: whoever waits for the shutdown is told so.
    shutdowns: Vec<mpsc::Sender<()>>,
    eos: Vec<TokenId>,
    max_model_len: usize,
    metrics: Arc<EngineMetrics>,
    recording: Recording,
    watch: StepWatch,
    planned: Vec<PlannedRows>,
    preempted: Vec<Sequence>,
    drawn: Vec<DrawnToken>,
}

/// A submitted step and who is in it.
struct StepUnderWay {
    id: StepId,
    step: SubmittedStep,
    filled: FilledBatch,
}

/// What the rows of a batch mean.
struct FilledBatch {
    /// Requests with a draw, in the order of the draws.
    draws: Vec<RequestId>,
    /// Rows of prompts.
    prefill_tokens: u64,
}

/// A token that was read, for its client.
struct DrawnToken {
    request: RequestId,
    token: TokenId,
    logprobs: Option<Box<TokenLogprobs>>,
    last: Option<LastToken>,
}

impl EngineLoop {
    pub(super) fn new(
        runner: StepRunner,
        prompt_chunk: usize,
        inbox: Inbox,
        engine: &Engine,
        sampler: Option<Sampler>,
    ) -> EngineLoop {
        let info = engine.info();
        let limits = *runner.limits();
        let seqs = limits.max_seqs;
        EngineLoop {
            scheduler: Scheduler::new(&limits, prompt_chunk),
            under_way: VecDeque::with_capacity(STEPS_IN_FLIGHT),
            next_step: StepId(0),
            inbox,
            shutdowns: Vec::new(),
            eos: info.model.eos_tokens.iter().copied().map(TokenId).collect(),
            max_model_len: limits.max_model_len,
            metrics: engine.metrics().clone(),
            recording: Recording::new(info, sampler, &runner),
            watch: StepWatch::default(),
            planned: Vec::with_capacity(seqs),
            preempted: Vec::with_capacity(seqs),
            drawn: Vec::with_capacity(seqs),
            runner,
        }
    }

    /// Runs until shutdown, or until the device fails.
    pub(super) fn run(mut self) {
        let result = loop {
            match self.iterate() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = result {
            let reason = error.to_string();
            tracing::error!("the engine stops: {reason}");
            self.inbox.fail(&reason);
            self.fail_all(&reason);
        }
        // While the device is still there, and before anyone is told that the engine has ended.
        self.recording.end();
    }

    /// One turn: submit a step if there is one, read the tokens of the step before it.
    fn iterate(&mut self) -> Result<bool, StepError> {
        if !self.receive()? {
            return Ok(false);
        }
        self.recording.phase(Phase::Schedule, self.next_step);
        let plan = self.scheduler.plan(&mut self.planned, &mut self.preempted);
        self.requeue_preempted();
        if plan == Plan::Step {
            self.recording.phase(Phase::Upload, self.next_step);
            let filled = self.fill_batch();
            self.recording.phase(Phase::Replay, self.next_step);
            self.submit(filled)?;
        }
        let due = self.under_way.len() == STEPS_IN_FLIGHT || plan == Plan::Wait;
        if due && let Some(step) = self.under_way.pop_front() {
            self.finish_step(step)?;
        }
        self.recording.end_iteration();
        self.update_gauges();
        Ok(true)
    }

    /// Takes in what came; blocks when there is nothing else to do. False: the end.
    fn receive(&mut self) -> Result<bool, StepError> {
        self.begin_recording()?;
        self.close_recording()?; // the last step may have ended it, and nothing more may come
        self.recording.begin_iteration(self.next_step);
        let idle = self.under_way.is_empty() && self.scheduler.running.is_empty() && self.scheduler.waiting.is_empty();
        if idle {
            if !self.shutdowns.is_empty() {
                return Ok(false);
            }
            self.recording.pause();
            match self.wait() {
                Ok(command) => self.take(command)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false), // every handle is gone
            }
            self.recording.begin_iteration(self.next_step);
        }
        while let Ok(command) = self.inbox.commands.try_recv() {
            self.take(command)?;
        }
        self.drop_abandoned();
        self.close_recording()?;
        Ok(true)
    }

    /// Begins the recording that somebody asked for, when its recorder has been made.
    fn begin_recording(&mut self) -> Result<(), StepError> {
        let Some(recorder) = self.recording.take_recorder() else { return Ok(()) };
        self.finish_steps()?; // the device does nothing that is not in the recording
        if self.recording.begin(recorder, &self.runner) {
            let there = self.scheduler.running.iter().chain(&self.scheduler.waiting);
            there.for_each(|sequence| self.recording.request_named(sequence.id, &sequence.name));
        }
        Ok(())
    }

    /// Ends the recording if it is over.
    fn close_recording(&mut self) -> Result<(), StepError> {
        if self.recording.is_over() {
            self.finish_steps()?; // every step that was counted is in the recording
            self.recording.close();
        }
        Ok(())
    }

    /// Blocks for the next command, or until a recording has to be looked after.
    fn wait(&self) -> Result<Command, RecvTimeoutError> {
        match self.recording.wait_max() {
            Some(limit) => self.inbox.commands.recv_timeout(limit),
            None => self.inbox.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// An error is the device's: the command's answer is then that the engine has stopped.
    fn take(&mut self, command: Command) -> Result<(), StepError> {
        match command {
            Command::Submit(submissions) => submissions.into_iter().for_each(|submission| self.enqueue(submission)),
            Command::StartProfile(request) => {
                if !self.recording.has_peaks() {
                    self.finish_steps()?; // the device is measured with nothing under way
                }
                self.recording.start(request, &mut self.runner);
            }
            Command::StopProfile { id, reply } => drop(reply.send(self.recording.stop(id.as_deref()))),
            Command::WatchSteps { to } => self.watch.tell(to),
            Command::MeasurePeaks { reply } => {
                self.finish_steps()?;
                let _ = reply.send(self.recording.peaks(&mut self.runner));
            }
            Command::Shutdown { done } => self.shutdowns.push(done),
        }
        Ok(())
    }

    fn finish_steps(&mut self) -> Result<(), StepError> {
        while let Some(step) = self.under_way.pop_front() {
            self.finish_step(step)?;
        }
        Ok(())
    }

    fn enqueue(&mut self, request: Submission) {
        let prompt_len = request.prompt.len();
        self.metrics.request_received();
        self.recording.request_named(request.id, &request.name);
        self.recording.request(request.id, RequestMoment::Queued, request.queued_ns, prompt_len);
        self.scheduler.waiting.push_back(Sequence {
            id: request.id,
            name: request.name,
            sampling: request.sampling,
            events: request.events,
            tokens: request.prompt,
            prompt_len,
            computed: 0,
            pending: 0,
            slot: 0,
            pages: Vec::new(),
            queue_slot: Some(request.slot),
            times: Times { queued_ns: request.queued_ns, ..Times::default() },
        });
    }

    /// Ends the requests whose clients have left.
    fn drop_abandoned(&mut self) {
        let mut index = 0;
        while index < self.scheduler.running.len() {
            let sequence = &self.scheduler.running[index];
            if sequence.is_abandoned() {
                let reason = sequence.leaving_reason();
                self.end(index, reason, monotonic_ns());
            } else {
                index += 1;
            }
        }
        while let Some(index) = self.scheduler.waiting.iter().position(Sequence::is_abandoned) {
            if let Some(sequence) = self.scheduler.waiting.remove(index) {
                self.ended(&sequence, sequence.leaving_reason(), monotonic_ns());
            }
        }
    }

    fn requeue_preempted(&mut self) {
        for sequence in self.preempted.drain(..) {
            self.metrics.preempted();
            self.recording.request(sequence.id, RequestMoment::Preempted, monotonic_ns(), sequence.delivered());
            self.scheduler.waiting.push_front(sequence);
        }
    }

    /// Copies the planned rows into the batch.
    fn fill_batch(&mut self) -> FilledBatch {
        let now = monotonic_ns();
        let mut filled = FilledBatch { draws: Vec::with_capacity(self.planned.len()), prefill_tokens: 0 };
        let batch = self.runner.start_batch();
        for planned in &self.planned {
            let sequence = &mut self.scheduler.running[planned.sequence];
            if sequence.times.scheduled_ns.is_none() {
                sequence.times.scheduled_ns = Some(now);
                sequence.queue_slot = None;
                self.recording.request(sequence.id, RequestMoment::Scheduled, now, 0);
            }
            let first = sequence.computed;
            let tokens = match sequence.tokens.get(first..first + planned.rows) {
                Some(tokens) => RowTokens::Host(tokens),
                None => RowTokens::Slot,
            };
            batch.push(&Rows {
                slot: sequence.slot,
                tokens,
                first_position: first,
                pages: &sequence.pages,
                sample: planned.draws.then(|| sequence.sample_row()),
            });
            sequence.computed += planned.rows;
            if planned.draws {
                sequence.pending += 1;
                filled.draws.push(sequence.id);
            }
            let prefill_tokens = sequence.computed.min(sequence.prompt_len).saturating_sub(first);
            filled.prefill_tokens += prefill_tokens as u64;
            let member = MemberRecord {
                step: self.next_step.0,
                request: sequence.id.0,
                tokens: planned.rows as u32,
                prefill_tokens: prefill_tokens as u32,
                kv_len: sequence.computed as u32,
            };
            self.recording.member(member, &sequence.name);
        }
        filled
    }

    fn submit(&mut self, filled: FilledBatch) -> Result<(), StepError> {
        let id = self.next_step;
        let sources = self.recording.decide(id, filled.prefill_tokens, &self.runner);
        let step = self.runner.submit(sources)?;
        self.scheduler.step_submitted(id);
        self.next_step = StepId(id.0 + 1);
        for graph in step.graphs.into_iter().flatten() {
            self.metrics.replay(self.runner.graph(graph).key);
        }
        self.recording.submitted(id, &step, filled.prefill_tokens, &self.runner);
        self.under_way.push_back(StepUnderWay { id, step, filled });
        Ok(())
    }

    /// Waits for a step's tokens, accepts them, sends them.
    fn finish_step(&mut self, under_way: StepUnderWay) -> Result<(), StepError> {
        let StepUnderWay { id, step, filled } = under_way;
        self.recording.phase(Phase::Download, id);
        let work = (step.graphs, step.sizes);
        let finished = self.runner.wait(step)?;
        self.recording.phase(Phase::Apply, id);
        let now = monotonic_ns();
        for (row, request) in filled.draws.iter().enumerate() {
            let running = self.scheduler.running.iter_mut().find(|sequence| sequence.id == *request);
            let Some(sequence) = running else { continue }; // it ended: a token past its end
            let token = finished.token(row);
            sequence.pending -= 1;
            sequence.tokens.push(token);
            let logprobs = sequence.sampling.logprobs.map(|n| Box::new(token_logprobs(&finished.logprobs(row), n)));
            let last = sequence.last_token(&self.eos, self.max_model_len);
            self.drawn.push(DrawnToken { request: *request, token, logprobs, last });
        }
        self.recording.finished(id, &finished, now);
        self.watch.step(id, work, now, &self.runner);
        self.scheduler.step_completed(id);
        self.metrics.step(filled.prefill_tokens as usize, self.drawn.len());
        self.recording.phase(Phase::Emit, id);
        self.emit(now);
        Ok(())
    }

    fn emit(&mut self, now: u64) {
        let mut drawn = std::mem::take(&mut self.drawn);
        for DrawnToken { request, token, logprobs, last } in drawn.drain(..) {
            let Some(index) = self.scheduler.running.iter().position(|sequence| sequence.id == request) else {
                continue;
            };
            let sequence = &mut self.scheduler.running[index];
            let times = &mut sequence.times;
            if times.first_token_ns.is_none() {
                times.first_token_ns = Some(now);
                self.metrics.on_first_token(Duration::from_nanos(now - times.queued_ns));
                self.recording.request(request, RequestMoment::FirstToken, now, 1);
            } else {
                self.metrics.on_token(Duration::from_nanos(now - times.last_token_ns));
            }
            times.last_token_ns = now;
            let event = TokenEvent::Token { token, logprobs, last };
            if let Some(last) = last
                && !sequence.is_abandoned()
            {
                // Whoever is told of the end finds it among the finished ones.
                self.end(index, last.reason(), now).events.send(event);
            } else if !sequence.events.send(event) {
                let reason = sequence.leaving_reason();
                self.end(index, reason, now);
            }
        }
        self.drawn = drawn;
    }

    /// Takes a running sequence out; draws of it that are under way will be discarded.
    fn end(&mut self, index: usize, reason: FinishReason, at_ns: u64) -> Sequence {
        let sequence = self.scheduler.remove(index);
        self.ended(&sequence, reason, at_ns);
        sequence
    }

    fn ended(&mut self, sequence: &Sequence, reason: FinishReason, at_ns: u64) {
        let moment = if reason == FinishReason::Abort { RequestMoment::Aborted } else { RequestMoment::Finished };
        self.recording.request(sequence.id, moment, at_ns, sequence.delivered());
        self.metrics.on_finish(&sequence.summary(reason, at_ns));
    }

    fn update_gauges(&self) {
        let (waiting, running) = (self.scheduler.waiting.len(), self.scheduler.running.len());
        self.metrics.set_queue(waiting, running);
        self.metrics.set_kv_usage(self.scheduler.pages.usage());
    }

    /// The device failed: every request is told, and so is every one that still comes.
    fn fail_all(&mut self, reason: &str) {
        let error = RequestError::EngineStopped { reason: reason.to_owned() };
        let sequences = self.scheduler.running.drain(..).chain(self.scheduler.waiting.drain(..));
        sequences.for_each(|sequence| {
            sequence.events.send(TokenEvent::Failed(error.clone()));
        });
        while let Ok(command) = self.inbox.commands.try_recv() {
            match command {
                Command::Submit(requests) => requests.iter().for_each(|request| {
                    request.events.send(TokenEvent::Failed(error.clone()));
                }),
                // It is told when the device is closed, as ever.
                Command::Shutdown { done } => self.shutdowns.push(done),
                // Who waits for an answer sees that nobody is left to give it.
                Command::StartProfile(_) | Command::StopProfile { .. } => {}
                Command::WatchSteps { .. } | Command::MeasurePeaks { .. } => {}
            }
        }
    }
}

fn token_logprobs(row: &LogprobRow, alternatives: u32) -> TokenLogprobs {
    let top = row.ids.iter().zip(row.values).take(alternatives as usize);
    TokenLogprobs { chosen: row.chosen, rank: row.rank, top: top.map(|(id, value)| (TokenId(*id), value)).collect() }
}
