//! POST /tokenize and POST /detokenize: benchmark clients make prompts of an exact length with them.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::answer::{json, to_json};
use super::error::ApiError;
use super::parse::tokenize::{DetokenizeRequest, Source, TokenizeRequest};
use super::state::{State, blocking};

/// A text's tokens.
pub(super) async fn tokenize(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let request = TokenizeRequest::parse(&state.body(body).await?)?;
    state.model(request.model.as_deref())?;
    let text = match request.source {
        Source::Prompt(text) => text,
        Source::Chat { messages, add_generation_prompt } => state.render(&messages, add_generation_prompt)?,
    };
    let tokens = state.encode(text, request.add_special_tokens).await?;
    let strs = |token: &_| state.tokenizer.token_text(*token);
    Ok(json(to_json(&Tokens {
        count: tokens.len(),
        max_model_len: state.engine.info().limits.max_model_len,
        token_strs: request.return_token_strs.then(|| tokens.iter().map(strs).collect()),
        tokens: tokens.iter().map(|token| token.0).collect(),
    })))
}

/// Tokens' text.
pub(super) async fn detokenize(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let request = DetokenizeRequest::parse(&state.body(body).await?, state.vocab())?;
    state.model(request.model.as_deref())?;
    let tokenizer = state.tokenizer.clone();
    let prompt = blocking(move || tokenizer.decode_with_special(&request.tokens)).await;
    Ok(json(to_json(&Text { prompt })))
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
