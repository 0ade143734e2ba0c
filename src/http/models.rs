//! GET /v1/models: what is served, as benchmark clients and routers read it.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::answer::{json, to_json};
use super::error::ApiError;
use super::routes::{InPath, text_in_path};
use super::state::State;

/// Every name that the model is served under.
pub(super) async fn list(Shared(state): Shared<Arc<State>>) -> Response {
    let data = state.options.served_model_names.iter().map(|name| card(&state, name)).collect();
    json(to_json(&List { object: "list", data }))
}

/// One of them.
pub(super) async fn one(Shared(state): Shared<Arc<State>>, id: InPath) -> Result<Response, ApiError> {
    let name = state.model(Some(&text_in_path(id)?))?;
    Ok(json(to_json(&card(&state, &name))))
}

fn card<'a>(state: &'a State, name: &'a str) -> Card<'a> {
    Card {
        id: name,
        object: "model",
        created: state.started,
        owned_by: &state.options.owned_by,
        root: &state.options.model_root,
        parent: None,
        max_model_len: state.engine.info().limits.max_model_len,
    }
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Card<'a>>,
}

#[derive(Serialize)]
struct Card<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    /// Where the weights came from; `vllm bench serve` needs it.
    root: &'a str,
    parent: Option<&'a str>,
    max_model_len: usize,
}
