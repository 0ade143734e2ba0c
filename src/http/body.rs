//! Reading a body within a limit of bytes and of time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;

use super::error::ApiError;

/// How long a body that is too large is read on, unseen: a client that only writes, and then reads, gets its answer
/// instead of a reset connection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of at most `bytes_max`.
pub(super) async fn read(request: Request, bytes_max: usize, timeout: Duration) -> Result<Vec<u8>, ApiError> {
    // A client that asks before it sends need not be read on: it sends nothing once it is refused.
    let asks = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let within = tokio::time::timeout(timeout, read_within(&mut body, bytes_max)).await;
    let bytes = within.unwrap_or(Err(ApiError::BodyTimeout { seconds: timeout.as_secs() }));
    if matches!(bytes, Err(ApiError::BodyTooLarge { .. })) && !asks {
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard(&mut body)).await; // answered in any case
    }
    bytes
}

async fn read_within(body: &mut Body, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let too_large = ApiError::BodyTooLarge { limit: bytes_max };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large);
    }
    let mut bytes = Vec::with_capacity(announced as usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ApiError::BodyRead)?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(too_large);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn discard(body: &mut Body) {
    while let Some(Ok(_)) = body.frame().await {}
}
