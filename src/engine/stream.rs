//! The way of a request's tokens from the engine's thread to whoever asked for them.

use std::task::{Context, Poll};

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::request::{RequestId, TokenEvent};

/// The tokens of one request, in order. Dropping it ends the request.
#[derive(Debug)]
pub struct TokenStream {
    /// The request.
    pub id: RequestId,
    events: Receiver<TokenEvent>,
}

/// A stream with room for every token, the end and an error: the engine's thread never waits for a client, and a client
/// that does not read holds no more than that.
pub(super) fn channel(id: RequestId, max_tokens: usize) -> (Sender<TokenEvent>, TokenStream) {
    let (sender, events) = mpsc::channel(max_tokens + 2);
    (sender, TokenStream { id, events })
}

impl TokenStream {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        self.events.recv().await
    }

    /// The next event, for a stream that is polled by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        self.events.poll_recv(cx)
    }

    /// The next event, for a thread outside the async runtime.
    pub fn blocking_next(&mut self) -> Option<TokenEvent> {
        self.events.blocking_recv()
    }
}
