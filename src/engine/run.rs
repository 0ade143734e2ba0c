//! The engine's loop, on one thread.

mod commands;

use std::collections::VecDeque;
use std::sync::mpsc;

use super::observers::{AppliedStep, Observers};
use super::recording::Recording;
use super::scheduler::{Plan, PlannedRows, Scheduler};
use super::sequence::Sequence;
use super::{Engine, Inbox};
use crate::device::{STEPS_IN_FLIGHT, monotonic_ns};
use crate::kernels::params::LogprobRow;
use crate::request::{FinishReason, LastToken, RequestId, StepId, TokenEvent, TokenId, TokenLogprobs};
use crate::step::{RowTokens, Rows, StepError, StepRunner, SubmittedStep};
use crate::trace::record::Sampler;
use crate::trace::schema::Phase;

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
    observers: Observers,
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
            observers: Observers::new(Recording::new(info, sampler, &runner), engine.metrics().clone()),
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
        self.observers.recording.end();
    }

    /// One turn: submit a step if there is one, read the tokens of the step before it.
    fn iterate(&mut self) -> Result<bool, StepError> {
        if !self.receive()? {
            return Ok(false);
        }
        self.observers.phase(Phase::Schedule, self.next_step);
        let plan = self.scheduler.plan(&mut self.planned, &mut self.preempted);
        self.requeue_preempted();
        if plan == Plan::Step {
            self.observers.phase(Phase::Upload, self.next_step);
            let filled = self.fill_batch();
            self.observers.phase(Phase::Replay, self.next_step);
            self.submit(filled)?;
        }
        let due = self.under_way.len() == STEPS_IN_FLIGHT || plan == Plan::Wait;
        if due && let Some(step) = self.under_way.pop_front() {
            self.finish_step(step)?;
        }
        self.observers.turn_ends(&self.scheduler);
        Ok(true)
    }

    fn finish_steps(&mut self) -> Result<(), StepError> {
        while let Some(step) = self.under_way.pop_front() {
            self.finish_step(step)?;
        }
        Ok(())
    }

    fn requeue_preempted(&mut self) {
        for sequence in self.preempted.drain(..) {
            self.observers.preempted(&sequence, monotonic_ns());
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
                self.observers.scheduled(sequence, now);
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
            self.observers.rows(self.next_step, sequence, planned.rows, prefill_tokens);
        }
        filled
    }

    fn submit(&mut self, filled: FilledBatch) -> Result<(), StepError> {
        let id = self.next_step;
        let sources = self.observers.node_sources(id, filled.prefill_tokens, &self.runner);
        let step = self.runner.submit(sources)?;
        self.scheduler.step_submitted(id);
        self.next_step = StepId(id.0 + 1);
        self.observers.submitted(id, &step, filled.prefill_tokens, &self.runner);
        self.under_way.push_back(StepUnderWay { id, step, filled });
        Ok(())
    }

    /// Waits for a step's tokens, accepts them, sends them.
    fn finish_step(&mut self, under_way: StepUnderWay) -> Result<(), StepError> {
        let StepUnderWay { id, step, filled } = under_way;
        self.observers.phase(Phase::Download, id);
        let (graphs, sizes) = (step.graphs, step.sizes);
        let finished = self.runner.wait(step)?;
        self.observers.phase(Phase::Apply, id);
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
        self.observers.read(id, &finished, now);
        self.scheduler.step_completed(id);
        let (prefill_tokens, drawn_tokens) = (filled.prefill_tokens, self.drawn.len());
        let applied = AppliedStep { id, graphs, sizes, prefill_tokens, drawn_tokens, read_ns: now };
        self.observers.applied(&applied, &self.runner);
        self.observers.phase(Phase::Emit, id);
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
            self.observers.token(sequence, now);
            sequence.times.token(now);
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
        self.observers.ended(&sequence, reason, at_ns);
        sequence
    }
}

fn token_logprobs(row: &LogprobRow, alternatives: u32) -> TokenLogprobs {
    let top = row.ids.iter().zip(row.values).take(alternatives as usize);
    TokenLogprobs { chosen: row.chosen, rank: row.rank, top: top.map(|(id, value)| (TokenId(*id), value)).collect() }
}
