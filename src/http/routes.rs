//! The table of routes, and what all of them have in common: a request id, and JSON for what is not there.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::error::ApiError;
use super::state::State;
use super::{access, chat, completions, gate, models, nodes, probes, profile, tokenize};

/// Every route.
pub(super) fn router(state: Arc<State>) -> Router {
    let ids = Arc::new(RequestIds::default());
    Router::new()
        .route("/v1/completions", post(completions::complete))
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        // What stands above this layer is not for connections in spare places.
        .route_layer(from_fn(gate::ordinary))
        .merge(profile_routes(&state))
        .route("/health", get(probes::health))
        .route("/ping", get(probes::health).post(probes::health))
        .route("/version", get(probes::version))
        .route("/load", get(probes::load))
        .route("/metrics", get(probes::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
        .layer(from_fn(gate::understood))
        .layer(from_fn(move |request, next| tag(ids.clone(), request, next)))
}

/// Routes that change something, or look into the server.
fn profile_routes(state: &Arc<State>) -> Router<Arc<State>> {
    Router::new()
        .route("/start_profile", post(profile::start))
        .route("/stop_profile", post(profile::stop))
        .route("/profile/sessions", get(profile::sessions))
        .route("/profile/sessions/{id}", get(profile::session))
        .route("/profile/nodes", get(nodes::read))
        .route("/profile/nodes/reset", post(nodes::reset))
        .route_layer(from_fn_with_state(state.clone(), access::guard))
}

/// The part of a path that a route names.
pub(super) type InPath = Result<Path<String>, PathRejection>;

/// Its text; an error if it has none.
pub(super) fn text_in_path(part: InPath) -> Result<String, ApiError> {
    part.map(|Path(text)| text).map_err(|rejection| ApiError::Path { reason: rejection.body_text() })
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::NoRoute { path: uri.path().to_owned() }
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::WrongMethod { method, path: uri.path().to_owned() }
}

/// A request's id: the client's own, or one of ours.
#[derive(Clone, Debug)]
pub(super) struct RequestTag(pub(super) String);

/// The extension that [`tag`] gives every request.
pub(super) type Tag = Extension<RequestTag>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a request its id, and the response the same.
async fn tag(ids: Arc<RequestIds>, mut request: Request, next: Next) -> Response {
    const CHARS_MAX: usize = 256;
    let given = request.headers().get(REQUEST_ID).filter(|value| (1..=CHARS_MAX).contains(&value.len()));
    let id = given.and_then(|value| value.to_str().ok()).map_or_else(|| ids.next(), str::to_owned);
    let header = HeaderValue::from_str(&id).expect("it came from a header, or is hexadecimal");
    let (method, path, start) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    request.extensions_mut().insert(RequestTag(id));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, header);
    tracing::debug!(%method, path, status = response.status().as_u16(), head_us = start.elapsed().as_micros() as u64);
    response
}

/// Numbers that no other process gives out.
#[derive(Default)]
struct RequestIds {
    random: RandomState,
    count: AtomicU64,
}

impl RequestIds {
    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{count:08x}", self.random.hash_one(count))
    }
}
