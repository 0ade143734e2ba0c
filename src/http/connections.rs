//! Connections: accepting, limits and deadlines, and the end: no new ones, time for those that run, then no more.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

/// How long a connection may wait for a request's head; also how long an idle one is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, and then until the last connection ends. Dropping the connections is up to the caller, who
/// drops this.
pub(super) struct Connections {
    router: Router,
    permits: Arc<Semaphore>,
    running: JoinSet<()>,
    closing: watch::Sender<bool>,
}

impl Connections {
    pub(super) fn new(router: Router, connections_max: usize) -> Connections {
        Connections {
            router,
            permits: Arc::new(Semaphore::new(connections_max)),
            running: JoinSet::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Accepts connections until `shutdown`.
    pub(super) async fn accept_until(&mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(ended) = self.running.join_next() => report(ended),
                (accepted, permit) = accept(&listener, &self.permits) => match accepted {
                    Ok(stream) => {
                        let connection = serve(stream, self.router.clone(), self.closing.subscribe(), permit);
                        self.running.spawn(connection);
                    }
                    Err(error) => {
                        tracing::warn!("could not accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Ends idle connections now and the others with their answers; says how many are left at the deadline.
    pub(super) async fn drain(&mut self, timeout: Duration) -> usize {
        self.closing.send_replace(true);
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                report(ended);
            }
        };
        let _ = tokio::time::timeout(timeout, all).await; // the number left tells
        self.running.len()
    }
}

/// One connection, once there is room for it.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (io::Result<TcpStream>, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    (listener.accept().await.map(|(stream, _)| stream), permit)
}

async fn serve(stream: TcpStream, router: Router, closing: watch::Receiver<bool>, _permit: OwnedSemaphorePermit) {
    // A token is a small packet that must not wait for the next one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}"); // the client's doing: it left, or spoke no HTTP
    }
}

/// Done when connections are to end.
async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await; // an error: the server is gone
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a connection's task failed: {error}");
    }
}
