//! The OpenAI-compatible server.
//!
//! A body becomes a request in [`parse`], where every field is typed, checked or refused; a handler (one file per
//! family of routes) hands it to the engine; [`answer`] turns the tokens back into JSON or server-sent events. The
//! engine's thread never waits for a client: a request's stream has room for all of its tokens. Dropping the stream,
//! which a lost connection does, ends the request.

mod access;
mod answer;
mod body;
mod budget;
mod chat;
mod completions;
mod connections;
mod descriptors;
mod error;
mod folder;
mod gate;
mod held;
mod lanes;
mod models;
mod nodes;
mod parse;
mod places;
mod probes;
mod profile;
mod routes;
mod sessions;
mod signals;
mod socket;
mod state;
mod tokenize;

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;

use self::connections::{ConnectionLimits, Connections};
pub use self::folder::FolderQuota;
use self::places::PlaceLimits;
pub use self::signals::termination;
use self::state::State;
use crate::console;
use crate::engine::Engine;
use crate::request::SamplingDefaults;
use crate::text::{ChatRenderer, Tokenizer};
use crate::trace::session::{Granularity, Keep, TraceSource};

/// Threads that look up the name to listen on. What takes long while serving has [`lanes`].
const BLOCKING_THREADS_MAX: usize = 2;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The address or name to listen on.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The names that clients may ask for; answers to requests without a name use the first.
    pub served_model_names: Vec<String>,
    /// Where the weights came from, as /v1/models says it.
    pub model_root: String,
    /// Who owns the model, as /v1/models says it. Some routers look for `vllm` here.
    pub owned_by: String,
    /// The most bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// The most bytes of all bodies and long answers together.
    pub bodies_bytes_max: usize,
    /// The most connections at a time; more get probes, metrics and profile routes only.
    pub connections_max: usize,
    /// The most connections of one peer; `None` behind a proxy, which is everybody's peer.
    pub connections_per_peer_max: Option<usize>,
    /// How long a piece of an answer may wait for its reader.
    pub write_timeout: Duration,
    /// Names that this server is called by, beside addresses, `localhost`, the machine's name and `host`: requests that
    /// change something are taken under them only.
    pub allowed_hosts: Vec<String>,
    /// How long requests that run may go on after the server was asked to end.
    pub drain_timeout: Duration,
    /// What sampling parameters are for a request that does not give them.
    pub sampling: SamplingDefaults,
    /// What /start_profile and /stop_profile do; `None`: they refuse.
    pub profile: Option<ProfileOptions>,
}

/// How to record.
#[derive(Clone, Debug)]
pub struct ProfileOptions {
    /// The folder for spools and what is made of them.
    pub dir: PathBuf,
    /// What the folder may hold.
    pub quota: FolderQuota,
    /// The most bytes of a spool.
    pub bytes_max: u64,
    /// What is kept of a recording that they are too few for, unless the client says so.
    pub keep: Keep,
    /// What times the nodes.
    pub source: TraceSource,
    /// What a record is of, unless the client says so.
    pub granularity: Granularity,
    /// Makes a spool's files.
    pub render: Render,
}

/// Makes a spool's files, on the calling thread, and returns their paths. Once the flag is set it ends with an error,
/// soon, and leaves no file that it has not finished.
pub type Render = fn(&Path, &AtomicBool) -> Result<Vec<PathBuf>, RenderError>;

/// Whatever went wrong while a spool was rendered.
pub type RenderError = Box<dyn Error + Send + Sync>;

impl ServeOptions {
    /// The usual limits, on this machine's own address.
    pub fn new(served_model_names: Vec<String>, model_root: String, profile: Option<ProfileOptions>) -> ServeOptions {
        ServeOptions {
            host: "127.0.0.1".into(),
            port: 8000,
            served_model_names,
            model_root,
            owned_by: "vitrum".into(),
            body_bytes_max: 8 << 20,
            body_timeout: Duration::from_secs(60),
            bodies_bytes_max: 64 << 20,
            connections_max: 4096,
            connections_per_peer_max: Some(2048),
            write_timeout: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            sampling: SamplingDefaults::default(),
            profile,
        }
    }
}

/// Why the server could not start.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is in use, unknown, or not ours.
    #[error("could not listen on {host}:{port}: {source}")]
    Listen {
        /// [`ServeOptions::host`].
        host: String,
        /// [`ServeOptions::port`].
        port: u16,
        /// The operating system's word.
        source: io::Error,
    },
    /// A model has to have a name.
    #[error("no name to serve the model under")]
    NoModelName,
    /// The threads or the signals that a server needs.
    #[error("could not start the server's runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// A server that listens and does not yet answer.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    /// Listens: from now on clients can connect.
    pub async fn bind(
        mut options: ServeOptions,
        engine: Engine,
        tokenizer: Arc<Tokenizer>,
        template: Option<ChatRenderer>,
    ) -> Result<Server, HttpError> {
        options.connections_max = descriptors::make_room(options.connections_max);
        if options.served_model_names.is_empty() {
            return Err(HttpError::NoModelName);
        }
        let failed = |source| HttpError::Listen { host: options.host.clone(), port: options.port, source };
        let listener = TcpListener::bind((options.host.as_str(), options.port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = State::new(options, engine, tokenizer, template).map_err(HttpError::Runtime)?;
        Ok(Server { listener, address, state: Arc::new(state) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `shutdown`; then takes no more, lets those that run finish within the drain timeout, and
    /// ends a recording. The engine goes on: whoever started it ends it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, state, .. } = self;
        let options = &state.options;
        let places = PlaceLimits { all: options.connections_max, per_peer: options.connections_per_peer_max };
        let limits = ConnectionLimits { places, write_timeout: options.write_timeout };
        let mut connections = Connections::new(routes::router(state.clone()), limits);
        connections.accept_until(listener, shutdown).await;
        state.drain();
        tracing::info!(in_flight = state.load(), "draining");
        let deadline = Instant::now() + state.options.drain_timeout;
        let left = connections.drain(state.options.drain_timeout).await;
        if left > 0 {
            tracing::warn!(connections = left, "not finished within {:?}", state.options.drain_timeout);
        }
        drop(connections); // ends those that are left
        profile::finish_at_exit(&state, deadline).await;
    }
}

/// Serves until SIGTERM or SIGINT, or until the engine ends by itself, on a runtime of its own.
pub fn run(
    options: ServeOptions,
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatRenderer>,
) -> Result<(), HttpError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(HttpError::Runtime)?;
    runtime.block_on(async {
        let asked = termination().map_err(HttpError::Runtime)?;
        signals::outlive_full_files().map_err(HttpError::Runtime)?;
        let shutdown = signals::or_end(asked, engine.end());
        serve(options, engine, tokenizer, template, shutdown).await
    })
}

/// Prints where the server listens, on a thread of its own: a pipe that nobody reads takes nothing, for ever.
fn say_where(address: SocketAddr) {
    let say = move || {
        console::print(&format!("listening on http://{address}\n"));
        if let Some(error) = console::stdout_error() {
            tracing::warn!("listening on http://{address}; standard output could not be written: {error}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("vitrum-stdout".into()).spawn(say) {
        tracing::warn!("listening on http://{address}; no thread could be started to print it: {error}");
    }
}

/// Listens, says where on standard output, and answers until `shutdown`: see [`Server`] and [`termination`].
pub async fn serve(
    options: ServeOptions,
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatRenderer>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), HttpError> {
    let server = Server::bind(options, engine, tokenizer, template).await?;
    say_where(server.address());
    server.run(shutdown).await;
    Ok(())
}
