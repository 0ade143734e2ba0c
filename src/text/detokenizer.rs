//! Tokens to text while they arrive: whole characters only, up to a stop string.

use std::sync::Arc;

use super::Tokenizer;
use super::stop::{Found, StopFinder};
use crate::request::TokenId;

/// Turns the tokens of one answer into text, one at a time.
///
/// The texts, put together, are what [`Tokenizer::decode`] makes of all tokens at once, up to the stop string; a space
/// at the beginning stays, because an answer goes on from a prompt.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    stops: StopFinder,
    /// The beginning of a character, at most 3 bytes.
    partial: Vec<u8>,
    stopped: bool,
}

/// What one token adds to the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is certain: empty while a character is incomplete or a stop string may have begun.
    pub text: String,
    /// The stop string that ended the text; the text before it was given out, the string itself is not.
    pub stopped: Option<String>,
}

impl Detokenizer {
    /// `stop`: strings that end the text; empty ones are ignored. `skip_special_tokens`: control tokens give no text.
    pub fn new(tokenizer: Arc<Tokenizer>, stop: Vec<String>, skip_special_tokens: bool) -> Detokenizer {
        let stops = StopFinder::new(stop);
        Detokenizer { tokenizer, skip_special_tokens, stops, partial: Vec::new(), stopped: false }
    }

    /// Takes the next token. After a stop string, nothing comes any more.
    pub fn push(&mut self, token: TokenId) -> Piece {
        if self.stopped || (self.skip_special_tokens && self.tokenizer.is_special(token)) {
            return Piece::default();
        }
        self.partial.extend_from_slice(self.tokenizer.token_bytes(token));
        let text = take_whole_characters(&mut self.partial);
        self.give_out(&text)
    }

    /// Takes what was held back: no more tokens come.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        let mut last = self.give_out(&text).text;
        if !self.stopped {
            last.push_str(&self.stops.finish());
        }
        self.stopped = true;
        last
    }

    fn give_out(&mut self, text: &str) -> Piece {
        if self.stopped || text.is_empty() {
            return Piece::default();
        }
        let Found { text, stop } = self.stops.push(text);
        self.stopped = stop.is_some();
        Piece { text, stopped: stop }
    }
}

/// Takes all but an incomplete character at the end. Each invalid sequence becomes one U+FFFD, cut as
/// [`String::from_utf8_lossy`] cuts them, so that parts and whole agree.
fn take_whole_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut kept = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let at_end = std::ptr::eq(chunk.invalid().as_ptr_range().end, bytes.as_ptr_range().end);
        if at_end && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
            kept = invalid.len();
        } else if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    bytes.drain(..bytes.len() - kept);
    text
}
