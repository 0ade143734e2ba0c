//! POST /start_profile and POST /stop_profile: what `vllm bench serve --profile` calls, and `vitrum profile`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::answer::{json, to_json};
use super::error::ApiError;
use super::parse::profile::{StartProfileRequest, check_stop};
use super::state::{State, blocking};
use crate::engine::ProfileError;
use crate::trace::session::{SessionOptions, SessionSources, SpoolSummary};

/// The prefix of file names unless the client gives one.
const PREFIX_DEFAULT: &str = "vitrum";

/// Starts to record.
pub(super) async fn start(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let request = StartProfileRequest::parse(&state.body(body).await?)?;
    let options = SessionOptions {
        dir: state.options.profile.dir.clone(),
        prefix: request.prefix.unwrap_or_else(|| PREFIX_DEFAULT.to_owned()),
        max_bytes: state.options.profile.bytes_max,
        toggle: request.toggle,
        source: state.options.profile.source,
    };
    let dir = options.dir.clone();
    let engine = state.engine.clone();
    let session = blocking(move || engine.start_profile(options)).await?;
    tracing::info!(id = session.id, spool = %session.path.display(), "recording");
    Ok(json(to_json(&Started { id: session.id, dir, spool: session.path, sources: session.sources })))
}

/// Stops recording and renders the spool; answers when the files are complete. A client that leaves before that does
/// not stop the render.
pub(super) async fn stop(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    check_stop(&state.body(body).await?)?;
    Ok(json(to_json(&finish(&state).await?)))
}

/// Ends a recording that still runs when the server ends, so that it is whole and rendered.
pub(super) async fn finish_at_exit(state: &State) {
    match finish(state).await {
        Ok(_)
        | Err(ApiError::Profile(ProfileError::NotRunning | ProfileError::EngineStopped) | ApiError::NoRecorder) => {}
        Err(error) => tracing::error!(%error, "the recording that was running"),
    }
}

async fn finish(state: &State) -> Result<Stopped, ApiError> {
    let (engine, render) = (state.engine.clone(), state.options.profile.render);
    let stopped = blocking(move || -> Result<Stopped, ApiError> {
        let stop_start = Instant::now();
        let summary = engine.stop_profile()?;
        let render_start = Instant::now();
        let SpoolSummary { received, expected, .. } = summary;
        let rendered = render(&summary.path).map_err(|source| ApiError::Render {
            spool: summary.path.clone(),
            received,
            expected,
            source,
        })?;
        Ok(Stopped {
            complete: summary.is_complete(),
            files: [vec![summary.path.clone()], rendered].concat(),
            stop_ms: (render_start - stop_start).as_secs_f64() * 1e3,
            render_ms: render_start.elapsed().as_secs_f64() * 1e3,
            summary,
        })
    })
    .await?;
    let Stopped { summary, render_ms, .. } = &stopped;
    let SpoolSummary { id, expected, received, .. } = summary;
    let activity = summary.activity.as_ref();
    for trouble in activity.into_iter().flat_map(|counts| counts.given_up.iter().chain(&counts.errors)) {
        tracing::warn!(id, "the driver's profiling library: {trouble}");
    }
    match stopped.complete {
        true => tracing::info!(id, render_ms, nodes = received, "recorded"),
        false => tracing::error!(id, render_ms, expected, received, "recorded, but node times are missing"),
    }
    Ok(stopped)
}

#[derive(Serialize)]
struct Started {
    id: String,
    dir: PathBuf,
    spool: PathBuf,
    /// `asked`, `used`, `library`, and in `absent` why what was asked for is not what is used.
    sources: SessionSources,
}

#[derive(Serialize)]
struct Stopped {
    /// `id`, `steps`, `expected`, `received`, `dropped`, `invalid`, `bytes`, …
    #[serde(flatten)]
    summary: SpoolSummary,
    /// Every node that was replayed is in the spool with a usable time.
    complete: bool,
    files: Vec<PathBuf>,
    stop_ms: f64,
    render_ms: f64,
}
