//! One request's way from the engine to the client: tokens become text, in which stop strings are looked for.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Finish, StopReason, Usage};
use crate::engine::TokenStream;
use crate::request::{FinishReason, LastToken, RequestError, TokenEvent, TokenId, TokenLogprobs};
use crate::text::{Detokenizer, Piece, Tokenizer};

/// A request that runs.
#[derive(Debug)]
pub(crate) struct Choice {
    /// `None` when it has ended. Dropping the stream ends the request in the engine.
    stream: Option<TokenStream>,
    detokenizer: Detokenizer,
    prompt_tokens: usize,
    completion_tokens: usize,
    /// Counts the characters that log probabilities say a token begins after. It holds back incomplete characters, and
    /// no beginnings of stop strings.
    spelled: Detokenizer,
    text_offset: usize,
}

/// What one token is to the client.
#[derive(Debug)]
pub(crate) struct Generated {
    /// It is the answer's first.
    pub(crate) first: bool,
    /// Text that it adds; empty while a character or a stop string may be incomplete.
    pub(crate) text: String,
    /// Its log probabilities, if the request asked for them.
    pub(crate) scored: Option<Scored>,
    /// Set on the last.
    pub(crate) finish: Option<Finish>,
    /// Counts so far, this token included.
    pub(crate) usage: Usage,
}

/// A token's log probabilities.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) token: TokenId,
    /// Whole characters of the answer before it.
    pub(crate) text_offset: usize,
    pub(crate) logprobs: Box<TokenLogprobs>,
}

impl Choice {
    /// Follows a request whose answer ends before any of the strings `stop`.
    pub(crate) fn new(
        stream: TokenStream,
        tokenizer: Arc<Tokenizer>,
        prompt_tokens: usize,
        stop: Vec<String>,
    ) -> Choice {
        Choice {
            stream: Some(stream),
            detokenizer: Detokenizer::new(tokenizer.clone(), stop, true),
            spelled: Detokenizer::new(tokenizer, Vec::new(), true),
            prompt_tokens,
            completion_tokens: 0,
            text_offset: 0,
        }
    }

    /// The next token; `None` after the last one.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Generated, RequestError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let next = match ready!(stream.poll_next(cx)) {
            Some(TokenEvent::Token { token, logprobs, last }) => Ok(self.token(token, logprobs, last)),
            Some(TokenEvent::Failed(error)) => Err(error),
            None => Err(RequestError::EngineStopped { reason: "a request was left without an end".into() }),
        };
        if next.is_err() {
            self.stream = None;
        }
        Poll::Ready(Some(next))
    }

    /// A token's text, and whether the answer ends with it: at a stop string, of which the engine does not know, or
    /// because the engine says so.
    fn token(&mut self, token: TokenId, logprobs: Option<Box<TokenLogprobs>>, last: Option<LastToken>) -> Generated {
        self.completion_tokens += 1;
        let Piece { mut text, stopped } = match last {
            Some(LastToken::EndOfSequence | LastToken::StopToken) => Piece::default(),
            Some(LastToken::Length) | None => self.detokenizer.push(token),
        };
        let mut finish = None;
        if let Some(stop) = stopped {
            if let Some(stream) = self.stream.take() {
                stream.stop(self.completion_tokens);
            }
            finish = Some(Finish { reason: FinishReason::Stop, stop: Some(StopReason::Text(stop)) });
        } else if let Some(last) = last {
            self.stream = None;
            text += &self.detokenizer.finish();
            // The model's own end is no stop reason that the client asked for.
            let stop = (last == LastToken::StopToken).then_some(StopReason::Token(token.0));
            finish = Some(Finish { reason: last.reason(), stop });
        }
        let scored = logprobs.map(|logprobs| {
            let text_offset = self.text_offset;
            self.text_offset += self.spelled.push(token).text.chars().count();
            Scored { token, text_offset, logprobs }
        });
        Generated { first: self.completion_tokens == 1, text, scored, finish, usage: self.usage() }
    }

    /// Counts so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.completion_tokens)
    }
}
