//! The way of a request's tokens from the engine's thread to whoever asked for them.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::request::{RequestId, TokenEvent};

/// The tokens of one request, in order. Dropping it ends the request.
#[derive(Debug)]
pub struct TokenStream {
    /// The request.
    pub id: RequestId,
    events: Receiver<TokenEvent>,
    /// How many tokens were enough.
    enough: Arc<OnceLock<usize>>,
}

/// The engine's end of a [`TokenStream`].
#[derive(Debug)]
pub struct TokenSender {
    events: Sender<TokenEvent>,
    enough: Arc<OnceLock<usize>>,
}

impl TokenSender {
    /// Sends an event; whether there is still somebody to send to. It never waits: there is room for every event.
    pub fn send(&self, event: TokenEvent) -> bool {
        self.events.try_send(event).is_ok()
    }

    /// Nobody takes tokens any more.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// How many tokens the client has had, if it left because they were what it asked for.
    pub fn enough(&self) -> Option<usize> {
        self.enough.get().copied()
    }
}

/// A stream with room for every event, which are at most as many as tokens, as an error comes in a token's place: the
/// engine's thread never waits for a client, and a client that does not read holds no more than that.
pub(super) fn channel(id: RequestId, max_tokens: usize) -> (TokenSender, TokenStream) {
    let (sender, events) = mpsc::channel(max_tokens);
    let enough = Arc::new(OnceLock::new());
    (TokenSender { events: sender, enough: enough.clone() }, TokenStream { id, events, enough })
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

    /// Ends the request as one that stopped where it was to stop, after this many tokens: at a stop string, which the
    /// engine does not know of.
    pub fn stop(self, tokens: usize) {
        // An error is impossible: this is the only end that sets it, and it is consumed.
        let _ = self.enough.set(tokens);
    }

    /// The next event, for a thread outside the async runtime.
    pub fn blocking_next(&mut self) -> Option<TokenEvent> {
        self.events.blocking_recv()
    }
}
