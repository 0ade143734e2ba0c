//! Text and tokens: the numeric vocabulary of models without a tokeniser, stop strings, chat templates.

use std::sync::Arc;

use thiserror::Error;

use crate::request::TokenId;

/// Turns text into tokens and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: usize,
}

/// Why text could not be turned into tokens, or messages into a prompt.
#[derive(Debug, Error)]
pub enum TextError {
    /// A word that is no token.
    #[error("{word:?} is no token id below {vocab}")]
    NotAToken {
        /// The word.
        word: String,
        /// The vocabulary's size.
        vocab: usize,
    },
}

impl Tokenizer {
    /// A vocabulary whose tokens are the decimal numbers.
    pub fn numeric(vocab: usize) -> Tokenizer {
        Tokenizer { vocab }
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str, _add_special: bool) -> Result<Vec<TokenId>, TextError> {
        text.split_whitespace()
            .map(|word| match word.parse::<u32>() {
                Ok(id) if (id as usize) < self.vocab => Ok(TokenId(id)),
                _ => Err(TextError::NotAToken { word: word.chars().take(40).collect(), vocab: self.vocab }),
            })
            .collect()
    }

    /// The text of tokens.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        tokens.iter().map(|token| self.token_text(*token)).collect()
    }

    /// The text of one token.
    pub fn token_text(&self, token: TokenId) -> String {
        format!("{} ", token.0)
    }

    /// The bytes of one token.
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.token_text(token).into_bytes()
    }

    /// The vocabulary's size.
    pub fn vocab(&self) -> usize {
        self.vocab
    }
}

/// Turns a request's tokens into text as they come.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    stop: Vec<String>,
    held: String,
}

/// What one token adds to the text.
#[derive(Debug)]
pub struct Piece {
    /// Text that no stop string can take back.
    pub text: String,
    /// The stop string that the text ran into.
    pub stopped: Option<String>,
}

impl Detokenizer {
    /// A detokeniser that ends at any of the stop strings.
    pub fn new(tokenizer: &Arc<Tokenizer>, stop: Vec<String>, _skip_special_tokens: bool) -> Detokenizer {
        Detokenizer { tokenizer: tokenizer.clone(), stop, held: String::new() }
    }

    /// Adds a token.
    pub fn push(&mut self, token: TokenId) -> Piece {
        self.held += &self.tokenizer.token_text(token);
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop))).min();
        if let Some((at, stop)) = found {
            let piece = Piece { text: self.held[..at].to_owned(), stopped: Some(stop.clone()) };
            self.held.clear();
            return piece;
        }
        let starts_stop = |at: usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let keep = self.held.char_indices().map(|(at, _)| at).find(|&at| starts_stop(at)).unwrap_or(self.held.len());
        Piece { text: self.held.drain(..keep).collect(), stopped: None }
    }

    /// The text that was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: String,
    /// What.
    pub content: String,
}

/// Turns a conversation into a prompt.
#[derive(Debug)]
pub struct ChatTemplate(());

impl ChatTemplate {
    /// The template of a numeric vocabulary: the contents, one after the other.
    pub fn numeric() -> ChatTemplate {
        ChatTemplate(())
    }

    /// The prompt.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TextError> {
        let mut prompt: String = messages.iter().map(|message| format!("{} ", message.content)).collect();
        if add_generation_prompt {
            prompt += "1";
        }
        Ok(prompt)
    }
}
