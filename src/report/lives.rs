//! The lives of requests, from the moments that were recorded: queued, prefill, decode, preempted.

use std::collections::BTreeMap;

use super::Recording;
use crate::trace::schema::{RequestMoment, RequestRecord};

/// A request's life as far as the recording saw it.
pub(super) struct Life {
    pub(super) request: u64,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// What it did, from when to when.
    pub(super) stretches: Vec<(Stretch, u64, u64)>,
    /// Tokens of its prompt; `None` if it came before the recording.
    pub(super) prompt_tokens: Option<u32>,
    /// Tokens at its last moment.
    pub(super) tokens: u32,
    /// How it ended; `None`: it was still running when the recording ended.
    pub(super) ended: Option<RequestMoment>,
}

/// What a request does between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// In a step or waiting for one: it was there before the recording.
    Running,
    Queued,
    Prefill,
    Decode,
    Preempted,
}

impl Stretch {
    /// Every stretch, in the order of declaration.
    pub(super) const ALL: [Stretch; 5] =
        [Stretch::Running, Stretch::Queued, Stretch::Prefill, Stretch::Decode, Stretch::Preempted];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Stretch::Running => "running",
            Stretch::Queued => "queued",
            Stretch::Prefill => "prefill",
            Stretch::Decode => "decode",
            Stretch::Preempted => "preempted",
        }
    }
}

/// How a life ended, in words.
pub(super) fn end_word(ended: Option<RequestMoment>) -> &'static str {
    match ended {
        Some(RequestMoment::Finished) => "finished",
        Some(_) => "aborted",
        None => "after the recording",
    }
}

/// Lives from moments, by begin; a request of which only batch compositions are known ran all the time of the window.
pub(super) fn lives(recording: &Recording, window: (u64, u64)) -> Vec<Life> {
    let mut moments: BTreeMap<u64, Vec<&RequestRecord>> = BTreeMap::new();
    for record in &recording.requests {
        moments.entry(record.request).or_default().push(record);
    }
    for member in &recording.members {
        moments.entry(member.request).or_default();
    }
    let mut lives: Vec<Life> = moments.iter().map(|(request, moments)| life(*request, moments, window)).collect();
    lives.sort_by_key(|life| (life.start_ns, life.request));
    lives
}

fn life(request: u64, moments: &[&RequestRecord], (window_start_ns, window_end_ns): (u64, u64)) -> Life {
    let mut stretches = Vec::new();
    // What the request did until the next moment; before the first one it was running, if it was there.
    let mut state = Some(Stretch::Running);
    let mut since_ns = window_start_ns;
    let mut start_ns = window_start_ns;
    let mut ended = None;
    for (at, record) in moments.iter().enumerate() {
        if at == 0 && record.moment == RequestMoment::Queued {
            (start_ns, since_ns, state) = (record.at_ns, record.at_ns, None);
        }
        if let Some(stretch) = state {
            stretches.push((stretch, since_ns, record.at_ns));
        }
        since_ns = record.at_ns;
        state = match record.moment {
            RequestMoment::Queued => Some(Stretch::Queued),
            RequestMoment::Scheduled => Some(Stretch::Prefill),
            RequestMoment::FirstToken => Some(Stretch::Decode),
            RequestMoment::Preempted => Some(Stretch::Preempted),
            RequestMoment::Finished | RequestMoment::Aborted => None,
        };
        ended = state.is_none().then_some(record.moment);
    }
    if let Some(stretch) = state {
        stretches.push((stretch, since_ns, window_end_ns));
    }
    let end_ns = if state.is_some() { window_end_ns } else { since_ns };
    let queued = moments.first().filter(|record| record.moment == RequestMoment::Queued);
    Life {
        request,
        start_ns,
        end_ns,
        stretches,
        prompt_tokens: queued.map(|record| record.tokens),
        tokens: moments.last().map_or(0, |record| record.tokens),
        ended,
    }
}
