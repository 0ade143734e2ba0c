//! POST /v1/chat/completions.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::Response;

use super::answer::chat::ChatWording;
use super::answer::{Choices, answer};
use super::error::ApiError;
use super::parse::chat::ChatRequest;
use super::routes::Tag;
use super::state::State;

/// Goes on with a conversation.
pub(super) async fn complete(Shared(state): Shared<Arc<State>>, tag: Tag, body: Request) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&state.body(body).await?, state.vocab())?;
    let generation = request.generation;
    let head = state.head("chatcmpl", &tag.0.0, state.model(generation.model.as_deref())?);
    let in_flight = state.admit()?;
    let text = state.render(&request.messages, request.add_generation_prompt)?;
    // The template writes the special tokens itself.
    let prompt = state.encode(text, generation.add_special_tokens.unwrap_or(false)).await?;
    let choice = state.submit(&tag.0.0, prompt, &generation, None)?;
    let wording = ChatWording { tokenizer: state.tokenizer.clone() };
    answer(wording, head, Choices::new(vec![choice]), generation.delivery, in_flight).await
}
