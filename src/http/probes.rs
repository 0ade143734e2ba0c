//! GET /health, /ping, /version, /load, /metrics: what load balancers, routers and dashboards ask.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::{json, to_json};
use super::error::ApiError;
use super::state::State;

/// 200 while requests are taken and the engine's thread runs.
pub(super) async fn health(Shared(state): Shared<Arc<State>>) -> StatusCode {
    if state.healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// This program's version.
pub(super) async fn version() -> Response {
    json(to_json(&Version { version: env!("CARGO_PKG_VERSION") }))
}

/// Answers under way.
pub(super) async fn load(Shared(state): Shared<Arc<State>>) -> Response {
    json(to_json(&Load { server_load: state.load() }))
}

/// The engine's metrics.
pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Result<Response, ApiError> {
    let text = state.engine.metrics().encode()?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Serialize)]
struct Load {
    server_load: usize,
}
