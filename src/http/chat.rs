//! POST /v1/chat/completions.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;

use super::answer::chat::ChatWording;
use super::answer::{Choices, answer};
use super::error::ApiError;
use super::lanes::{Abandoned, Lane};
use super::parse::chat::ChatRequest;
use super::parse::generation::Generation;
use super::routes::Tag;
use super::state::State;
use crate::request::TokenId;

/// Goes on with a conversation.
pub(super) async fn complete(Shared(state): Shared<Arc<State>>, tag: Tag, body: Request) -> Result<Response, ApiError> {
    let body = state.body(body).await?;
    let in_flight = state.admit()?;
    let (model, prompt, generation) = state.prepare_beside(Lane::Template, body, prepare).await?;
    let head = state.head("chatcmpl", &tag.0.0, model);
    let choice = state.submit(&tag.0.0, prompt, &generation, None)?;
    let wording = ChatWording { tokenizer: state.tokenizer.clone() };
    answer(wording, head, Choices::new(vec![choice]), generation.delivery, in_flight).await
}

/// The model's name, and the conversation's tokens.
fn prepare(state: &State, body: &[u8], abandoned: &Abandoned) -> Result<(String, Vec<TokenId>, Generation), ApiError> {
    let request = ChatRequest::parse(body, state.read_against())?;
    let model = state.model(request.generation.model.as_deref())?;
    let text = state.render(&request.messages, request.add_generation_prompt, abandoned)?;
    // The template writes the special tokens itself.
    let add_special_tokens = request.generation.add_special_tokens.unwrap_or(false);
    Ok((model, state.encode_prompt(&text, add_special_tokens, abandoned)?, request.generation))
}
