//! Server-sent events: one chunk per token, then the counts if they are wanted, then `[DONE]`.
//!
//! Benchmark clients take every chunk that has a choice for the arrival of a token, and the first for the time to the
//! first token: so there is no chunk without a token, and no token without a chunk.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use tokio_stream::Stream;

use super::{Choices, Head, Wording};
use crate::http::error::ApiError;
use crate::http::parse::generation::UsageChunks;
use crate::http::state::InFlight;

/// The body of a streamed answer. Dropped, with its requests, when the client is gone.
#[derive(Debug)]
pub(super) struct EventStream<W> {
    wording: W,
    head: Head,
    choices: Choices,
    usage: UsageChunks,
    next: Next,
    _in_flight: InFlight,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Token,
    Done,
    Nothing,
}

impl<W: Wording> EventStream<W> {
    pub(super) fn new(wording: W, head: Head, choices: Choices, usage: UsageChunks, in_flight: InFlight) -> Self {
        EventStream { wording, head, choices, usage, next: Next::Token, _in_flight: in_flight }
    }

    /// The event that follows the last token: the counts, or the end.
    fn after_tokens(&mut self) -> Bytes {
        if self.usage == UsageChunks::Never {
            self.next = Next::Nothing;
            return Bytes::from_static(DONE);
        }
        self.next = Next::Done;
        event(&self.wording.usage(&self.head, self.choices.usage()))
    }
}

impl<W: Wording> Stream for EventStream<W> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        let bytes = match stream.next {
            Next::Nothing => return Poll::Ready(None),
            Next::Done => {
                stream.next = Next::Nothing;
                Bytes::from_static(DONE)
            }
            Next::Token => match ready!(stream.choices.poll_next(cx)) {
                Some(Ok((index, generated))) => {
                    let usage = (stream.usage == UsageChunks::Always).then_some(generated.usage);
                    event(&stream.wording.chunk(&stream.head, index, &generated, usage))
                }
                Some(Err(error)) => {
                    stream.next = Next::Done;
                    event(&ApiError::Request(error).body())
                }
                None => stream.after_tokens(),
            },
        };
        Poll::Ready(Some(Ok(bytes)))
    }
}

const DONE: &[u8] = b"data: [DONE]\n\n";

/// JSON has no line ends, so one `data:` line holds it.
fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}
