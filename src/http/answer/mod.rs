//! From tokens to answers: [`choice`] follows one request, [`choices`] several at once, [`stream`] sends a chunk per
//! token. The two endpoints differ only in their [`Wording`].

pub(crate) mod chat;
mod choice;
mod choices;
pub(crate) mod completion;
mod stream;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub(crate) use self::choice::{Choice, Generated, Scored};
pub(crate) use self::choices::{Choices, Complete};
use super::error::ApiError;
use super::held::Pieces;
use super::parse::generation::Delivery;
use super::state::InFlight;
use crate::request::FinishReason;

/// What every chunk of an answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The answer's id.
    pub(crate) id: String,
    /// When, in seconds of the Unix clock.
    pub(crate) created: u64,
    /// The name that the client knows the model by.
    pub(crate) model: String,
}

impl Head {
    pub(crate) fn new(id: String, model: String) -> Head {
        Head { id, created: unix_seconds(), model }
    }
}

/// Now, in seconds of the Unix clock.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How many tokens a request had.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) total_tokens: u64,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Usage {
        let (prompt_tokens, completion_tokens) = (prompt_tokens as u64, completion_tokens as u64);
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    pub(crate) fn plus(self, other: Usage) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            total_tokens: self.total_tokens + other.total_tokens,
        }
    }
}

/// Why an answer ended, and at what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finish {
    pub(crate) reason: FinishReason,
    pub(crate) stop: Option<StopReason>,
}

impl Finish {
    pub(crate) fn reason_of(finish: Option<&Finish>) -> Option<&'static str> {
        finish.map(|finish| finish.reason.as_str())
    }

    pub(crate) fn stop_of(finish: Option<&Finish>) -> Option<&StopReason> {
        finish.and_then(|finish| finish.stop.as_ref())
    }
}

/// What an answer stopped at, if it was asked for by the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum StopReason {
    /// A stop string.
    Text(String),
    /// A stop token.
    Token(u32),
}

/// A log probability as JSON can have it.
pub(crate) fn finite(logprob: f32) -> f32 {
    const LOWEST: f32 = -9999.0; // vLLM's
    if logprob.is_nan() { LOWEST } else { logprob.max(LOWEST) }
}

/// How an endpoint words its answers, as JSON.
pub(crate) trait Wording: Send + Unpin + 'static {
    /// A whole answer.
    fn whole(&self, head: &Head, choices: &[Complete], usage: Usage) -> Vec<u8>;
    /// The chunk of one token. `usage` is that choice's so far.
    fn chunk(&self, head: &Head, index: usize, generated: &Generated, usage: Option<Usage>) -> Vec<u8>;
    /// The chunk with the counts and no choice.
    fn usage(&self, head: &Head, usage: Usage) -> Vec<u8>;
}

/// Answers a request whose choices are under way.
pub(crate) async fn answer<W: Wording>(
    wording: W,
    head: Head,
    choices: Choices,
    delivery: Delivery,
    in_flight: InFlight,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Whole => {
            let complete = choices.collect().await?;
            let usage = complete.iter().fold(Usage::default(), |sum, choice| sum.plus(choice.usage));
            Ok(json(wording.whole(&head, &complete, usage)))
        }
        Delivery::Stream(usage) => {
            let events = stream::EventStream::new(wording, head, choices, usage, in_flight);
            let mut response = Body::from_stream(events).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert("x-accel-buffering", HeaderValue::from_static("no")); // nginx would hold chunks back
            Ok(response)
        }
    }
}

/// A JSON response.
pub(crate) fn json(body: Vec<u8>) -> Response {
    json_with(body, ())
}

/// The same, which keeps something until it has been sent.
pub(crate) fn json_with<T: Send + Unpin + 'static>(body: Vec<u8>, kept: T) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::new(Pieces::new(body, kept))).into_response()
}

/// A value of our own types as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers, lists and maps with string keys are JSON")
}
