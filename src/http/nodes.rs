//! GET /profile/nodes: node times of a server that samples them, for as long as it runs; POST /profile/nodes/reset
//! begins anew.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use super::answer::{json, to_json};
use super::error::ApiError;
use super::lanes::Lane;
use super::parse::nodes::{NodesQuery, parse_reset};
use super::state::State;

/// The times of nodes, or of layers or ops, of each graph.
pub(super) async fn read(Shared(state): Shared<Arc<State>>, uri: Uri) -> Result<Response, ApiError> {
    let query = NodesQuery::parse(uri.query().unwrap_or_default())?;
    let engine = state.engine.clone();
    let reading = state.lanes.run(Lane::Admin, move |_| engine.node_samples(query.by, query.graph)).await??;
    Ok(json(to_json(&reading)))
}

/// Forgets what was sampled so far.
pub(super) async fn reset(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    parse_reset(&state.body(body).await?.bytes)?;
    let engine = state.engine.clone();
    let since = state.lanes.run(Lane::Admin, move |_| engine.reset_node_samples()).await??;
    Ok(json(to_json(&Reset { since })))
}

#[derive(Serialize)]
struct Reset {
    /// In seconds of the Unix clock, as a reading says it from now on.
    since: u64,
}
