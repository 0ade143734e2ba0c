//! Connections: accepting, limits and deadlines, and the end: no new ones, time for those that run, then no more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::held::Held;
use super::places::{Place, PlaceLimits, Places, Throttle};
use super::socket::{Exchange, Exchanges, Socket};

/// How long a connection may wait for its first request's head.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same in a spare place: a probe's head comes with its connection.
const SPARE_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the body of a profile route may take there.
pub(super) const SPARE_BODY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection may wait for a later request's head, and so be idle: longer than a load balancer's minute.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The most bytes of a head, and of what is read of a body at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections beyond the limits that are looked at: see [`super::places`].
pub(super) const SPARE_MAX: usize = 128;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    pub(super) places: PlaceLimits,
    /// How long a piece of an answer may wait for its reader.
    pub(super) write_timeout: Duration,
}

/// Who asks: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// The connection is one too many: probes, metrics and profile routes only.
    pub(super) is_spare: bool,
}

/// Serves until `shutdown`, and then until the last connection ends. Dropping the connections is up to the caller, who
/// drops this.
pub(super) struct Connections {
    router: Router,
    places: Arc<Places>,
    write_timeout: Duration,
    running: JoinSet<()>,
    /// Those in spare places, the oldest first.
    spare: VecDeque<(AbortHandle, Arc<Exchanges>)>,
    closing: watch::Sender<bool>,
    warnings: Throttle,
}

impl Connections {
    pub(super) fn new(router: Router, limits: ConnectionLimits) -> Connections {
        Connections {
            router,
            places: Arc::new(Places::new(limits.places)),
            write_timeout: limits.write_timeout,
            running: JoinSet::new(),
            spare: VecDeque::new(),
            closing: watch::Sender::new(false),
            warnings: Throttle::new(),
        }
    }

    /// Accepts connections until `shutdown`.
    pub(super) async fn accept_until(&mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(ended) = self.running.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.add(stream, address),
                    Err(error) => {
                        if let Some(unsaid) = self.warnings.pass() {
                            tracing::warn!(unsaid, "could not accept a connection: {error}");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn add(&mut self, stream: TcpStream, address: SocketAddr) {
        let place = self.places.take(address.ip());
        let is_spare = place.is_spare;
        if is_spare {
            self.make_room();
        }
        let exchanges = Arc::new(Exchanges::default());
        let connection = Connection {
            socket: Socket::new(stream, exchanges.clone(), self.write_timeout),
            peer: Peer { address: address.ip().to_canonical(), is_spare },
            exchanges: exchanges.clone(),
            router: self.router.clone(),
            _place: place,
        };
        let handle = self.running.spawn(connection.serve(self.closing.subscribe()));
        if is_spare {
            self.spare.push_back((handle, exchanges));
        }
    }

    /// Ends a connection in a spare place if all are taken: the oldest that has not asked anything, else the oldest. A
    /// probe's answer takes no time in which so many others come.
    fn make_room(&mut self) {
        self.spare.retain(|(handle, _)| !handle.is_finished());
        if self.spare.len() >= SPARE_MAX {
            let silent = self.spare.iter().position(|(_, exchanges)| !exchanges.have_begun());
            let ended = self.spare.remove(silent.unwrap_or(0));
            ended.inspect(|(handle, _)| handle.abort());
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

struct Connection {
    socket: Socket,
    peer: Peer,
    exchanges: Arc<Exchanges>,
    router: Router,
    _place: Place,
}

impl Connection {
    async fn serve(self, closing: watch::Receiver<bool>) {
        let Connection { socket, peer, exchanges, router, _place } = self;
        let silence = silence(&exchanges, if peer.is_spare { SPARE_HEAD_TIMEOUT } else { FIRST_HEAD_TIMEOUT });
        let service = service_fn(|request| answer(request, peer, exchanges.begin(), router.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(READ_BYTES_MAX)
            .keep_alive(!peer.is_spare)
            // The library has no words for a clock before 1970.
            .auto_date_header(SystemTime::now() >= UNIX_EPOCH)
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = silence => return,
            () = closed(closing) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = rest(&exchanges) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}"); // the client's doing: it left, or spoke no HTTP
        }
    }
}

/// Done if a connection's first request does not come.
async fn silence(exchanges: &Exchanges, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if exchanges.have_begun() {
        std::future::pending().await
    }
}

/// Done when a connection that is to end has nothing under way any more: what it has of a head is no request.
async fn rest(exchanges: &Exchanges) {
    const POLL: Duration = Duration::from_millis(500);
    tokio::time::sleep(POLL).await;
    while exchanges.are_under_way() {
        tokio::time::sleep(POLL).await;
    }
    tokio::time::sleep(POLL).await; // for the last piece of an answer
}

/// The router's answer, of which it is known when it has been sent.
async fn answer(
    mut request: Request<Incoming>,
    peer: Peer,
    exchange: Exchange,
    router: Router,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    let response = TowerToHyperService::new(router).call(request).await?;
    Ok(response.map(|body| Body::new(Held::new(body, exchange))))
}

/// Done when connections are to end.
async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await; // an error: the server is gone
}

fn report(ended: Result<(), JoinError>) {
    match ended {
        Err(error) if !error.is_cancelled() => tracing::error!("a connection's task failed: {error}"),
        _ => {}
    }
}
