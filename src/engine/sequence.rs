//! One request on its way through the engine.

use std::time::Duration;

use super::metrics::FinishedRequest;
use super::stream::TokenSender;
use super::{QueueSlot, Submission};
use crate::kernels::params::SampleRow;
use crate::request::{FinishReason, LastToken, RequestId, SamplingParams, TokenId};

/// A request with its tokens, its place in the KV cache and its client.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    /// What its client calls it.
    pub(super) name: String,
    pub(super) sampling: SamplingParams,
    pub(super) events: TokenSender,
    /// The prompt, then every token read back from the device.
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_len: usize,
    /// KV positions written by completed and submitted steps.
    pub(super) computed: usize,
    /// Tokens drawn by submitted steps and not read yet.
    pub(super) pending: usize,
    /// The slot of the device's last drawn token; set while running.
    pub(super) slot: u32,
    pub(super) pages: Vec<u32>,
    /// Its place in the waiting queue, until it is scheduled for the first time.
    pub(super) queue_slot: Option<QueueSlot>,
    pub(super) times: Times,
}

/// Moments of a request, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) queued_ns: u64,
    pub(super) scheduled_ns: Option<u64>,
    pub(super) first_token_ns: Option<u64>,
    pub(super) last_token_ns: u64,
}

impl Times {
    /// A token is sent.
    pub(super) fn token(&mut self, at_ns: u64) {
        self.first_token_ns.get_or_insert(at_ns);
        self.last_token_ns = at_ns;
    }
}

impl Sequence {
    /// A request that waits to be scheduled for the first time.
    pub(super) fn new(request: Submission) -> Sequence {
        Sequence {
            id: request.id,
            name: request.name,
            sampling: request.sampling,
            events: request.events,
            prompt_len: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            pending: 0,
            slot: 0,
            pages: Vec::new(),
            queue_slot: Some(request.slot),
            times: Times { queued_ns: request.queued_ns, ..Times::default() },
        }
    }

    /// Length once every submitted draw is read.
    pub(super) fn known_len(&self) -> usize {
        self.tokens.len() + self.pending
    }

    /// Tokens generated and read.
    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Tokens that the client has: not those drawn while it was leaving with what it asked for.
    pub(super) fn delivered(&self) -> usize {
        self.events.enough().unwrap_or_else(|| self.generated())
    }

    /// KV positions that are not written yet but whose token is there, on the host or in the slot.
    pub(super) fn uncomputed(&self) -> usize {
        self.known_len() - self.computed
    }

    /// A step may compute more of it: its end is not known to be reached by draws under way.
    pub(super) fn can_run(&self, max_model_len: usize) -> bool {
        self.uncomputed() > 0
            && self.generated() + self.pending < self.sampling.max_tokens as usize
            && self.known_len() < max_model_len
    }

    /// What the row that draws the next token draws with.
    pub(super) fn sample_row(&self) -> SampleRow {
        SampleRow {
            seed: self.sampling.seed.unwrap_or(self.id.0),
            position: self.known_len() as u32,
            slot: self.slot,
            temperature: self.sampling.temperature,
            top_p: self.sampling.top_p,
            top_k: self.sampling.top_k,
            logprobs: self.sampling.logprobs.map_or(0, |alternatives| alternatives + 1),
        }
    }

    /// Why the sequence ends with the token that was read last, if it does.
    pub(super) fn last_token(&self, eos: &[TokenId], max_model_len: usize) -> Option<LastToken> {
        let token = *self.tokens.last()?;
        if !self.sampling.ignore_eos && eos.contains(&token) {
            return Some(LastToken::EndOfSequence);
        }
        if self.sampling.stop_token_ids.contains(&token) {
            return Some(LastToken::StopToken);
        }
        let at_limit = self.generated() >= self.sampling.max_tokens as usize || self.tokens.len() >= max_model_len;
        at_limit.then_some(LastToken::Length)
    }

    /// What the metrics are told at its end.
    pub(super) fn summary(&self, reason: FinishReason, now_ns: u64) -> FinishedRequest {
        let Times { queued_ns, scheduled_ns, first_token_ns, last_token_ns } = self.times;
        let scheduled = scheduled_ns.unwrap_or(now_ns);
        let first = first_token_ns.unwrap_or(now_ns);
        let between = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from));
        FinishedRequest {
            reason,
            queue: between(queued_ns, scheduled),
            prefill: between(scheduled, first),
            decode: between(first, last_token_ns),
            e2e: between(queued_ns, now_ns),
            prompt_tokens: self.prompt_len as u32,
            generation_tokens: self.delivered() as u32,
            max_tokens: self.sampling.max_tokens,
        }
    }

    /// Why a request ends whose client is gone.
    pub(super) fn leaving_reason(&self) -> FinishReason {
        if self.events.enough().is_some() { FinishReason::Stop } else { FinishReason::Abort }
    }

    /// The client is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}
