//! A connection's socket, as the HTTP library uses it.
//!
//! A write that makes too little progress for too long fails: an answer that nobody reads, or that is read by the byte,
//! is not kept for ever.
//!
//! A client that has closed its sending side has left, or waits for its answer: until something is written to it the
//! two look the same. So it gets what comes within [`GRACE`] of its end, or of the last piece that was written; then it
//! has left. A client that has left and is written to resets the connection, which ends it at once.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How long a client that sends no more is waited with for the next piece of its answer.
const GRACE: Duration = Duration::from_secs(1);

/// What a reader has to take of an answer that waits, within the time that a write may wait.
const LEAST_BYTES: u64 = 16 << 10;

/// Requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

/// A request whose answer is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Exchanges>);

impl Exchanges {
    /// A request's head has arrived.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Exchange(self.clone())
    }

    /// Whether a request's head has arrived.
    pub(super) fn have_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire) > 0
    }

    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    exchanges: Arc<Exchanges>,
    write_timeout: Duration,
    /// Set while something waits to be written.
    waiting: Option<Waiting>,
    /// Bytes.
    written: u64,
    /// Set once the client has closed its sending side.
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Pin<Box<Sleep>>,
    /// What had been written when it began.
    written: u64,
}

#[derive(Debug)]
struct Ending {
    grace: Pin<Box<Sleep>>,
    /// What had been written when it began.
    written: u64,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, exchanges: Arc<Exchanges>, write_timeout: Duration) -> Socket {
        Socket { stream, exchanges, write_timeout, waiting: None, written: 0, ending: None }
    }

    /// What a write came to, with the deadline of one that waits.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        offered: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = result {
            let count = *result.as_ref().unwrap_or(&0);
            self.written += count as u64;
            let written = self.written;
            self.waiting.take_if(|waiting| count == offered || written >= waiting.written + LEAST_BYTES);
            return Poll::Ready(result);
        }
        let (timeout, written) = (self.write_timeout, self.written);
        let waiting = self.waiting.get_or_insert_with(|| Waiting { deadline: Box::pin(sleep(timeout)), written });
        ready!(waiting.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the answer")))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.ending.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut socket.stream).poll_read(cx, buffer))?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let written = socket.written;
        let ending = socket.ending.get_or_insert_with(|| Ending { grace: Box::pin(sleep(GRACE)), written });
        while socket.exchanges.are_under_way() {
            ready!(ending.grace.as_mut().poll(cx));
            if ending.written == written {
                break;
            }
            ending.written = written;
            ending.grace.as_mut().reset(Instant::now() + GRACE);
        }
        Poll::Ready(Ok(())) // no byte: the end
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = Pin::new(&mut socket.stream).poll_write(cx, bytes);
        socket.written(cx, bytes.len(), result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = Pin::new(&mut socket.stream).poll_write_vectored(cx, slices);
        socket.written(cx, slices.iter().map(|slice| slice.len()).sum(), result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
