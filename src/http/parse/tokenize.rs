//! The bodies of POST /tokenize and POST /detokenize.

use super::chat::messages;
use super::fields::{Fields, invalid};
use super::neutral;
use crate::http::error::ApiError;
use crate::request::TokenId;
use crate::text::ChatMessage;

/// A text to be tokenised.
#[derive(Debug)]
pub(crate) struct TokenizeRequest {
    /// The model asked for; any if absent.
    pub(crate) model: Option<String>,
    /// The text.
    pub(crate) source: Source,
    /// Whether the tokeniser adds its special tokens.
    pub(crate) add_special_tokens: bool,
    /// Answer with each token's text too.
    pub(crate) return_token_strs: bool,
}

/// Where a text comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// As it is.
    Prompt(String),
    /// A conversation, put through the chat template.
    Chat {
        /// The conversation.
        messages: Vec<ChatMessage>,
        /// End with the beginning of an answer.
        add_generation_prompt: bool,
    },
}

impl TokenizeRequest {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<TokenizeRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let source = match fields.take("messages") {
            Some(_) if fields.has("prompt") => {
                return Err(ApiError::Needs { param: "messages", needs: "prompt to be absent" });
            }
            Some(raw) => Source::Chat {
                messages: messages(raw)?,
                add_generation_prompt: fields.get("add_generation_prompt", "true or false")?.unwrap_or(true),
            },
            None => Source::Prompt(fields.text("prompt")?.ok_or(ApiError::Missing { param: "prompt" })?),
        };
        // A chat template writes the special tokens itself.
        let special = matches!(source, Source::Prompt(_));
        let request = TokenizeRequest {
            model: fields.text("model")?,
            add_special_tokens: fields.get("add_special_tokens", "true or false")?.unwrap_or(special),
            return_token_strs: fields.flag("return_token_strs")?,
            source,
        };
        fields.finish(&[neutral::TOKENIZE])?;
        Ok(request)
    }
}

/// Tokens to be turned into text.
#[derive(Debug)]
pub(crate) struct DetokenizeRequest {
    /// The model asked for; any if absent.
    pub(crate) model: Option<String>,
    /// The tokens.
    pub(crate) tokens: Vec<TokenId>,
}

impl DetokenizeRequest {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8], vocab: usize) -> Result<DetokenizeRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let raw = fields.take("tokens").ok_or(ApiError::Missing { param: "tokens" })?;
        let tokens = match serde_json::from_str::<Vec<u32>>(raw.get()) {
            Ok(ids) if ids.iter().all(|&id| (id as usize) < vocab) => ids.into_iter().map(TokenId).collect(),
            _ => return Err(invalid("tokens", format!("a list of token ids below {vocab}"), raw)),
        };
        let model = fields.text("model")?;
        fields.finish(&[])?;
        Ok(DetokenizeRequest { model, tokens })
    }
}
