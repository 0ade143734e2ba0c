//! POST /tokenize and POST /detokenize: benchmark clients make prompts of an exact length with them.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::answer::to_json;
use super::body::SHORT_BYTES_MAX;
use super::error::ApiError;
use super::lanes::{Abandoned, Lane};
use super::parse::tokenize::{DetokenizeRequest, Source, TokenizeRequest};
use super::state::State;

/// Text comes to at most so many times the bytes of a body: its tokens may be short to write and long to read.
const TEXT_BODIES_MAX: usize = 2;

/// A text's tokens.
pub(super) async fn tokenize(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let body = state.body(body).await?;
    // A short text is tokenised here, a conversation where templates are rendered.
    let is_short = body.bytes.len() <= SHORT_BYTES_MAX;
    let is_chat = is_short && matches!(TokenizeRequest::parse(&body.bytes)?.source, Source::Chat { .. });
    let answer = match is_chat {
        true => state.prepare_beside(Lane::Template, body, tokens).await?,
        false => state.prepare(body, tokens).await?,
    };
    state.counted(answer)
}

fn tokens(state: &State, body: &[u8], abandoned: &Abandoned) -> Result<Vec<u8>, ApiError> {
    let request = TokenizeRequest::parse(body)?;
    state.model(request.model.as_deref())?;
    let text = match request.source {
        Source::Prompt(text) => text,
        Source::Chat { messages, add_generation_prompt } => {
            state.render(&messages, add_generation_prompt, abandoned)?
        }
    };
    // As many as the text has: its bytes are bounded.
    let tokens = state.encode(&text, request.add_special_tokens, usize::MAX, abandoned)?;
    let strs = |token: &_| state.tokenizer.token_text(*token);
    Ok(to_json(&Tokens {
        count: tokens.len(),
        max_model_len: state.engine.info().limits.max_model_len,
        token_strs: request.return_token_strs.then(|| tokens.iter().map(strs).collect()),
        tokens: tokens.iter().map(|token| token.0).collect(),
    }))
}

/// Tokens' text.
pub(super) async fn detokenize(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let body = state.body(body).await?;
    let answer = state.prepare(body, text).await?;
    state.counted(answer)
}

fn text(state: &State, body: &[u8], _abandoned: &Abandoned) -> Result<Vec<u8>, ApiError> {
    let request = DetokenizeRequest::parse(body, state.vocab())?;
    state.model(request.model.as_deref())?;
    let bytes: usize = request.tokens.iter().map(|token| state.tokenizer.token_bytes(*token).len()).sum();
    let limit = state.options.body_bytes_max.saturating_mul(TEXT_BODIES_MAX);
    if bytes > limit {
        let expected = format!("tokens whose text has at most {limit} bytes").into();
        let given = format!("{} tokens with {bytes} bytes", request.tokens.len());
        return Err(ApiError::Invalid { param: "tokens".into(), expected, given });
    }
    Ok(to_json(&Text { prompt: state.tokenizer.decode_with_special(&request.tokens) }))
}

#[derive(Serialize)]
struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Text {
    prompt: String,
}
