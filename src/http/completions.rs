//! POST /v1/completions.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;

use super::answer::completion::CompletionWording;
use super::answer::{Choices, answer};
use super::error::ApiError;
use super::parse::completion::{CompletionRequest, Prompt};
use super::routes::Tag;
use super::state::State;
use crate::request::TokenId;

/// The OpenAI API's default for completions.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Completes every prompt of a body.
pub(super) async fn complete(Shared(state): Shared<Arc<State>>, tag: Tag, body: Request) -> Result<Response, ApiError> {
    let CompletionRequest { prompts, generation } = CompletionRequest::parse(&state.body(body).await?, state.vocab())?;
    let head = state.head("cmpl", &tag.0.0, state.model(generation.model.as_deref())?);
    let waiting_max = state.engine.info().max_waiting;
    if prompts.len() > waiting_max {
        return Err(ApiError::Invalid {
            param: "prompt".into(),
            expected: format!("at most {waiting_max} prompts, as many as may wait").into(),
            given: format!("a list of {}", prompts.len()),
        });
    }
    let in_flight = state.admit()?;
    let mut tokens = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        tokens.push(prompt_tokens(&state, prompt, generation.add_special_tokens.unwrap_or(true)).await?);
    }
    // If one is refused, those before it end with it.
    let submit = |prompt| state.submit(&tag.0.0, prompt, &generation, Some(MAX_TOKENS_DEFAULT));
    let choices: Result<Vec<_>, ApiError> = tokens.into_iter().map(submit).collect();
    let wording = CompletionWording { tokenizer: state.tokenizer.clone() };
    answer(wording, head, Choices::new(choices?), generation.delivery, in_flight).await
}

async fn prompt_tokens(state: &State, prompt: Prompt, add_special_tokens: bool) -> Result<Vec<TokenId>, ApiError> {
    match prompt {
        Prompt::Text(text) => state.encode(text, add_special_tokens).await,
        Prompt::Tokens(tokens) => Ok(tokens),
    }
}
