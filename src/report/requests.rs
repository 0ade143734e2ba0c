//! The lives of requests, as far as a recording saw them: stretches of waiting and of work, and the steps they were in.

use std::collections::BTreeMap;

use super::Recording;
use crate::trace::schema::{RequestMoment, RequestRecord};

/// What a request does between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for its first step.
    Queued,
    /// Its prompt's rows are in steps.
    Prefill,
    /// Its tokens are drawn.
    Decode,
    /// Its pages were taken away, and it is in no step again yet.
    Preempted,
    /// It began before the recording, so which of the above is not known.
    Running,
}

impl Doing {
    /// Everything that it may do, in the order of their numbers.
    pub const ALL: [Doing; 5] = [Doing::Queued, Doing::Prefill, Doing::Decode, Doing::Preempted, Doing::Running];

    /// Its name in tables and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Doing::Queued => "queued",
            Doing::Prefill => "prefill",
            Doing::Decode => "decode",
            Doing::Preempted => "preempted",
            Doing::Running => "running",
        }
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was still there when the recording ended.
    AfterRecording,
    /// Its answer was finished.
    Finished,
    /// It was given up.
    Aborted,
}

impl End {
    /// Every end, in the order of their numbers.
    pub const ALL: [End; 3] = [End::AfterRecording, End::Finished, End::Aborted];

    /// By the moment that ended it, if one did.
    pub fn of(ended: Option<RequestMoment>) -> End {
        match ended {
            None => End::AfterRecording,
            Some(RequestMoment::Finished) => End::Finished,
            Some(_) => End::Aborted,
        }
    }

    /// Its name in tables and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            End::AfterRecording => "after the recording",
            End::Finished => "finished",
            End::Aborted => "aborted",
        }
    }
}

/// A stretch of a request's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// What it did.
    pub doing: Doing,
    /// Begin.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
}

/// A request's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The request.
    pub request: u64,
    /// What its client calls it, if it does: its `X-Request-Id`.
    pub name: Option<String>,
    /// Its first moment, or the recording's begin.
    pub start_ns: u64,
    /// Its end, or the recording's.
    pub end_ns: u64,
    /// What it did, one after the other.
    pub stretches: Vec<Stretch>,
    /// When it arrived, if the recording saw that.
    pub queued_ns: Option<u64>,
    /// When its first token was read from the device, if the recording saw that.
    pub first_token_ns: Option<u64>,
    /// Tokens of its prompt, known where it arrived within the recording.
    pub prompt_tokens: Option<u32>,
    /// Tokens at its last moment.
    pub tokens: u32,
    /// How it ended; `None`: it was still running when the recording ended.
    pub ended: Option<RequestMoment>,
    /// The steps that it had rows in, ascending.
    pub steps: Vec<u64>,
    /// What it does until its next moment, and since when; and when it went on, if it was preempted.
    doing: Option<Doing>,
    since_ns: u64,
    resumed_ns: Option<u64>,
}

impl Life {
    /// The lives in a recording, by begin. A request of which only batch compositions are known ran all the time.
    pub fn all(recording: &Recording) -> Vec<Life> {
        let mut known: BTreeMap<u64, (Vec<&RequestRecord>, Vec<u64>)> = BTreeMap::new();
        for record in &recording.requests {
            known.entry(record.request).or_default().0.push(record);
        }
        for member in &recording.members {
            known.entry(member.request).or_default().1.push(member.step);
        }
        let known = known.into_iter();
        let mut lives: Vec<Life> =
            known.map(|(request, (moments, steps))| Life::of(recording, request, &moments, steps)).collect();
        lives.sort_by_key(|life| (life.start_ns, life.request));
        lives
    }

    fn of(recording: &Recording, request: u64, moments: &[&RequestRecord], mut steps: Vec<u64>) -> Life {
        let (window_start_ns, window_end_ns) = recording.span();
        steps.dedup();
        let arrival = moments.first().filter(|record| record.moment == RequestMoment::Queued);
        let mut life = Life::begin(request, recording.names.get(&request).cloned(), arrival.copied(), window_start_ns);
        let is_preempted = moments.iter().any(|record| record.moment == RequestMoment::Preempted);
        let resumed = steps.iter().filter(|_| is_preempted).filter_map(|step| recording.step(*step));
        let mut resumed = resumed.map(|step| step.start_ns).peekable();
        for record in moments {
            while let Some(at_ns) = resumed.next_if(|at_ns| *at_ns < record.at_ns) {
                life.step(at_ns);
            }
            life.moment(record);
        }
        resumed.for_each(|at_ns| life.step(at_ns));
        life.end(window_end_ns);
        life.steps = steps;
        life
    }

    /// A request that arrived, or that was there when the recording began.
    pub(super) fn begin(
        request: u64,
        name: Option<String>,
        arrival: Option<&RequestRecord>,
        recording_start_ns: u64,
    ) -> Life {
        let start_ns = arrival.map_or(recording_start_ns, |record| record.at_ns);
        Life {
            request,
            name,
            start_ns,
            end_ns: start_ns,
            stretches: Vec::new(),
            queued_ns: arrival.map(|record| record.at_ns),
            first_token_ns: None,
            prompt_tokens: arrival.map(|record| record.tokens),
            tokens: 0,
            ended: None,
            steps: Vec::new(),
            // Before its first moment it was running, if it was there.
            doing: arrival.is_none().then_some(Doing::Running),
            since_ns: start_ns,
            resumed_ns: None,
        }
    }

    /// Its next moment.
    pub(super) fn moment(&mut self, record: &RequestRecord) {
        self.push(record.at_ns);
        self.since_ns = record.at_ns;
        self.tokens = record.tokens;
        self.doing = match record.moment {
            RequestMoment::Queued => Some(Doing::Queued),
            RequestMoment::Scheduled => Some(Doing::Prefill),
            RequestMoment::FirstToken => Some(Doing::Decode),
            RequestMoment::Preempted => Some(Doing::Preempted),
            RequestMoment::Finished | RequestMoment::Aborted => None,
        };
        if record.moment == RequestMoment::FirstToken {
            self.first_token_ns.get_or_insert(record.at_ns);
        }
        self.ended = self.doing.is_none().then_some(record.moment);
    }

    /// A step with it began. No moment says when a preempted request goes on: its next step's begin does.
    pub(super) fn step(&mut self, start_ns: u64) {
        if self.is_preempted() && start_ns >= self.since_ns {
            self.resumed_ns.get_or_insert(start_ns);
        }
    }

    /// Whether its pages were taken away, and nothing says yet that it goes on.
    pub(super) fn is_preempted(&self) -> bool {
        self.doing == Some(Doing::Preempted) && self.resumed_ns.is_none()
    }

    /// Whether it goes on.
    pub(super) fn is_running(&self) -> bool {
        self.doing.is_some()
    }

    /// The recording ends.
    pub(super) fn end(&mut self, recording_end_ns: u64) {
        self.push(recording_end_ns);
        self.end_ns = if self.is_running() { recording_end_ns } else { self.since_ns };
    }

    /// Adds the stretch that ends now.
    fn push(&mut self, end_ns: u64) {
        let (start_ns, resumed_ns) = (self.since_ns, self.resumed_ns.take().filter(|at_ns| *at_ns < end_ns));
        let Some(doing) = self.doing else { return };
        self.stretches.push(Stretch { doing, start_ns, end_ns: resumed_ns.unwrap_or(end_ns) });
        if let Some(start_ns) = resumed_ns {
            let doing = match (self.first_token_ns, self.queued_ns) {
                (Some(_), _) => Doing::Decode,
                (None, Some(_)) => Doing::Prefill,
                (None, None) => Doing::Running,
            };
            self.stretches.push(Stretch { doing, start_ns, end_ns });
        }
    }

    /// How long it did something, in all.
    pub fn ns_of(&self, doing: Doing) -> u64 {
        let stretches = self.stretches.iter().filter(|stretch| stretch.doing == doing);
        super::stats::sum(stretches.map(|stretch| stretch.end_ns - stretch.start_ns))
    }

    /// Tokens of its answer, known at its end.
    pub fn answer_tokens(&self) -> Option<u32> {
        self.ended.map(|_| self.tokens)
    }

    /// From its arrival to its first token.
    pub fn first_token_after_ns(&self) -> Option<u64> {
        Some(self.first_token_ns?.saturating_sub(self.queued_ns?))
    }

    /// From its arrival to its end.
    pub fn whole_ns(&self) -> Option<u64> {
        let arrival_ns = self.queued_ns?;
        self.ended.map(|_| self.end_ns.saturating_sub(arrival_ns))
    }

    /// Mean time from one token to the next, of an answer that was finished.
    pub fn inter_token_ns(&self) -> Option<f64> {
        let decode_ns = self.end_ns.saturating_sub(self.first_token_ns?);
        let intervals = self.tokens.checked_sub(1).filter(|intervals| *intervals > 0)?;
        (self.ended == Some(RequestMoment::Finished)).then(|| decode_ns as f64 / f64::from(intervals))
    }

    /// How it ended, in a word or three.
    pub fn end_word(&self) -> &'static str {
        End::of(self.ended).as_str()
    }
}
