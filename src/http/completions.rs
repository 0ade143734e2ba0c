//! POST /v1/completions.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;

use super::answer::completion::CompletionWording;
use super::answer::{Choices, answer};
use super::error::ApiError;
use super::lanes::Abandoned;
use super::parse::completion::{CompletionRequest, Prompt};
use super::parse::generation::Generation;
use super::routes::Tag;
use super::state::State;
use crate::request::TokenId;

/// The OpenAI API's default for completions.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Completes every prompt of a body.
pub(super) async fn complete(Shared(state): Shared<Arc<State>>, tag: Tag, body: Request) -> Result<Response, ApiError> {
    let body = state.body(body).await?;
    let in_flight = state.admit()?;
    let (model, prompts, generation) = state.prepare(body, prepare).await?;
    let head = state.head("cmpl", &tag.0.0, model);
    // If one is refused, those before it end with it.
    let submit = |prompt| state.submit(&tag.0.0, prompt, &generation, Some(MAX_TOKENS_DEFAULT));
    let choices: Result<Vec<_>, ApiError> = prompts.into_iter().map(submit).collect();
    let wording = CompletionWording { tokenizer: state.tokenizer.clone() };
    answer(wording, head, Choices::new(choices?), generation.delivery, in_flight).await
}

/// The model's name, and every prompt's tokens.
fn prepare(
    state: &State,
    body: &[u8],
    abandoned: &Abandoned,
) -> Result<(String, Vec<Vec<TokenId>>, Generation), ApiError> {
    let CompletionRequest { prompts, generation } = CompletionRequest::parse(body, state.read_against())?;
    let model = state.model(generation.model.as_deref())?;
    let waiting_max = state.engine.info().max_waiting;
    if prompts.len() > waiting_max {
        return Err(ApiError::Invalid {
            param: "prompt".into(),
            expected: format!("at most {waiting_max} prompts, as many as may wait").into(),
            given: format!("a list of {}", prompts.len()),
        });
    }
    let add_special_tokens = generation.add_special_tokens.unwrap_or(true);
    let tokens = |prompt| match prompt {
        Prompt::Text(text) => state.encode_prompt(&text, add_special_tokens, abandoned),
        Prompt::Tokens(tokens) => Ok(tokens),
    };
    Ok((model, prompts.into_iter().map(tokens).collect::<Result<_, _>>()?, generation))
}
