//! Reading a body within limits of bytes, of its own and of all bodies together, and of time.

use std::time::Duration;

use axum::body::{Body as Incoming, HttpBody};
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;

use super::budget::Reserved;
use super::error::ApiError;

/// Bodies up to this length are not counted and never refused for others' sake. Connections bound their number.
pub(crate) const SHORT_BYTES_MAX: usize = 16 << 10;
/// How long a body that is refused is read on, unseen: a client that only writes, and then reads, gets its answer
/// instead of a reset connection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that writes nothing for so long waits for its answer.
const SILENCE: Duration = Duration::from_millis(500);

/// A body, and its share of what all may have.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    _reserved: Reserved,
}

/// A body of at most `bytes_max`.
pub(super) async fn read(
    request: Request,
    bytes_max: usize,
    timeout: Duration,
    reserved: Reserved,
) -> Result<Body, ApiError> {
    // A client that asks before it sends need not be read on: it sends nothing once it is refused.
    let asks = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let within = tokio::time::timeout(timeout, read_within(&mut body, bytes_max, reserved)).await;
    let read = within.unwrap_or(Err(ApiError::BodyTimeout { seconds: timeout.as_secs() }));
    if matches!(read, Err(ApiError::BodyTooLarge { .. } | ApiError::BodiesFull { .. })) && !asks {
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard(&mut body)).await; // answered in any case
    }
    read
}

/// What is announced is not reserved before it comes: announcing costs a client nothing.
async fn read_within(body: &mut Incoming, bytes_max: usize, mut reserved: Reserved) -> Result<Body, ApiError> {
    let too_large = ApiError::BodyTooLarge { limit: bytes_max };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large);
    }
    let mut bytes = Vec::with_capacity(SHORT_BYTES_MAX.min(announced as usize));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ApiError::BodyRead)?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(too_large);
        }
        let needed = bytes.len() + data.len();
        if needed > bytes.capacity() {
            // Twice as much each time, but not beyond what may come.
            let most = if announced > 0 { announced as usize } else { bytes_max };
            let most = if needed <= SHORT_BYTES_MAX { most.min(SHORT_BYTES_MAX) } else { most };
            let capacity = (2 * bytes.capacity()).min(most).max(needed);
            if capacity > SHORT_BYTES_MAX {
                reserved.grow_to(capacity)?;
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body { bytes, _reserved: reserved })
}

async fn discard(body: &mut Incoming) {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE, body.frame()).await {}
}
