//! One request's way from the engine to the client: tokens become text, and the last one learns why it is the last.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Finish, StopReason, Usage};
use crate::engine::TokenStream;
use crate::request::{FinishReason, RequestError, TokenEvent, TokenId, TokenLogprobs};
use crate::text::{Detokenizer, Tokenizer};

/// A request that runs.
#[derive(Debug)]
pub(crate) struct Choice {
    /// `None` when it has ended. Dropping the stream ends the request in the engine.
    stream: Option<TokenStream>,
    rules: Rules,
    detokenizer: Detokenizer,
    /// A token that may be the last; the event after it tells.
    held: Option<Drawn>,
    prompt_tokens: usize,
    completion_tokens: usize,
    /// Counts the characters that log probabilities say a token begins after. It holds back incomplete characters, and
    /// no beginnings of stop strings.
    spelled: Detokenizer,
    text_offset: usize,
}

/// What ends a request: the server's copy of what the engine goes by, to know a last token when it comes.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The model's end-of-sequence tokens; none if the request ignores them.
    pub(crate) eos: Vec<TokenId>,
    /// The request's stop tokens.
    pub(crate) stop_token_ids: Vec<TokenId>,
    /// The request's stop strings.
    pub(crate) stop: Vec<String>,
    /// The most tokens.
    pub(crate) max_tokens: u32,
}

/// A token with what the engine knows of it.
#[derive(Debug)]
struct Drawn {
    token: TokenId,
    logprobs: Option<Box<TokenLogprobs>>,
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
    /// Follows a request.
    pub(crate) fn new(stream: TokenStream, tokenizer: Arc<Tokenizer>, prompt_tokens: usize, rules: Rules) -> Choice {
        Choice {
            stream: Some(stream),
            detokenizer: Detokenizer::new(tokenizer.clone(), rules.stop.clone(), true),
            rules,
            spelled: Detokenizer::new(tokenizer, Vec::new(), true),
            held: None,
            prompt_tokens,
            completion_tokens: 0,
            text_offset: 0,
        }
    }

    /// The next token; `None` after the last one.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Generated, RequestError>>> {
        while let Some(stream) = &mut self.stream {
            let ended = match ready!(stream.poll_next(cx)) {
                Some(TokenEvent::Token { token, logprobs }) => {
                    if let Some(drawn) = self.receive(Drawn { token, logprobs }) {
                        return Poll::Ready(Some(Ok(self.pass(drawn))));
                    }
                    continue;
                }
                Some(TokenEvent::Finished { reason, stop_token }) => Ok(self.end(reason, stop_token)),
                Some(TokenEvent::Failed(error)) => Err(error),
                None => Err(RequestError::EngineStopped { reason: "a request was left without an end".into() }),
            };
            self.stream = None;
            return Poll::Ready(Some(ended));
        }
        Poll::Ready(None)
    }

    /// Takes a token in. One that may be the last is held until the next event, which the engine sends at once; others
    /// go on immediately.
    fn receive(&mut self, drawn: Drawn) -> Option<Drawn> {
        self.completion_tokens += 1;
        let may_end = self.completion_tokens >= self.rules.max_tokens as usize
            || self.rules.eos.contains(&drawn.token)
            || self.rules.stop_token_ids.contains(&drawn.token);
        if may_end || self.held.is_some() { self.held.replace(drawn) } else { Some(drawn) }
    }

    /// A token that is not the engine's last. If it completes a stop string it is ours.
    fn pass(&mut self, drawn: Drawn) -> Generated {
        let piece = self.detokenizer.push(drawn.token);
        let finish = piece.stopped.map(|stop| {
            if let Some(stream) = self.stream.take() {
                stream.stop(self.completion_tokens);
            }
            Finish { reason: FinishReason::Stop, stop: Some(StopReason::Text(stop)) }
        });
        self.generated(Some(drawn), piece.text, finish)
    }

    /// The end, on the token that was held for it.
    fn end(&mut self, reason: FinishReason, stop_token: Option<TokenId>) -> Generated {
        let held = self.held.take();
        let mut text = String::new();
        if let Some(drawn) = held.as_ref().filter(|drawn| Some(drawn.token) != stop_token) {
            let piece = self.detokenizer.push(drawn.token);
            if piece.stopped.is_some() {
                let finish = Finish { reason: FinishReason::Stop, stop: piece.stopped.map(StopReason::Text) };
                return self.generated(held, piece.text, Some(finish));
            }
            text = piece.text;
        }
        text += &self.detokenizer.finish();
        // The model's own end is no stop reason that the client asked for.
        let stop = stop_token.filter(|token| !self.rules.eos.contains(token)).map(|token| StopReason::Token(token.0));
        self.generated(held, text, Some(Finish { reason, stop }))
    }

    fn generated(&mut self, drawn: Option<Drawn>, text: String, finish: Option<Finish>) -> Generated {
        let first = self.completion_tokens <= 1;
        let scored = drawn.and_then(|Drawn { token, logprobs }| {
            let scored = Scored { token, text_offset: self.text_offset, logprobs: logprobs? };
            self.text_offset += self.spelled.push(token).text.chars().count();
            Some(scored)
        });
        Generated { first, text, scored, finish, usage: self.usage() }
    }

    /// Counts so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens, self.completion_tokens)
    }
}
