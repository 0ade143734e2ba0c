//! What is asked of every request before a route sees it.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connections::Peer;
use super::error::ApiError;

/// Refuses what would be passed over in silence: an expectation that cannot be met, a coding that is not undone.
pub(super) async fn understood(request: Request, next: Next) -> Response {
    match misunderstood(&request) {
        // What the body is, or whether it comes, is not known.
        Some(refused) => closing(refused.into_response()),
        None => next.run(request).await,
    }
}

fn misunderstood(request: &Request) -> Option<ApiError> {
    let given = |name| {
        let values = request.headers().get_all(name).into_iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let expectation = given(header::EXPECT).filter(|value| !value.eq_ignore_ascii_case("100-continue"));
    let coding = given(header::TRANSFER_ENCODING).filter(|value| !value.trim().eq_ignore_ascii_case("chunked"));
    let expectation = expectation.map(|value| ApiError::Expectation { value });
    expectation.or(coding.map(|value| ApiError::TransferCoding { value }))
}

/// Refuses a connection that is one too many: see [`super::places`].
pub(super) async fn ordinary(request: Request, next: Next) -> Response {
    if request.extensions().get::<Peer>().is_some_and(|peer| peer.is_spare) {
        return closing(ApiError::ConnectionsFull.into_response());
    }
    next.run(request).await
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
