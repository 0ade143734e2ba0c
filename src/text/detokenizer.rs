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

/// Takes all but an incomplete character at the end. What is not UTF-8 becomes U+FFFD in the same places as if all
/// bytes had come at once.
fn take_whole_characters(bytes: &mut Vec<u8>) -> String {
    // Of the last bytes, more may make a character exactly if the decoder cannot say how long the error is.
    let is_incomplete = |bytes: &[u8]| std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none());
    let end = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let kept = if is_incomplete(end) { end.len() } else { 0 };
    let rest = bytes.split_off(bytes.len() - kept);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}
