//! Bodies that keep something until they have been sent, or are dropped with their connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// A body, and what is kept for it.
#[derive(Debug)]
pub(super) struct Held<T> {
    body: Body,
    _kept: T,
}

impl<T> Held<T> {
    pub(super) fn new(body: Body, kept: T) -> Held<T> {
        Held { body, _kept: kept }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The most bytes that a connection takes from an answer at once: of what it has taken, nothing is kept any more.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A whole answer that is given out piece by piece.
#[derive(Debug)]
pub(super) struct Pieces<T> {
    left: Bytes,
    _kept: T,
}

impl<T> Pieces<T> {
    pub(super) fn new(bytes: Vec<u8>, kept: T) -> Pieces<T> {
        Pieces { left: bytes.into(), _kept: kept }
    }
}

impl<T: Unpin> HttpBody for Pieces<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let left = &mut self.get_mut().left;
        let piece = left.split_to(left.len().min(PIECE_BYTES_MAX));
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
