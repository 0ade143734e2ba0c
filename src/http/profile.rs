//! Recording over HTTP: POST /start_profile and POST /stop_profile, as vLLM's clients call them, and GET
//! /profile/sessions, which says how far recordings are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::ProfileOptions;
use super::answer::{json, to_json};
use super::error::ApiError;
use super::folder;
use super::lanes::Lane;
use super::parse::profile::{StartProfileRequest, StopProfileRequest};
use super::routes::{InPath, text_in_path};
use super::sessions::{Session, Status};
use super::state::State;
use crate::engine::ProfileError;
use crate::trace::session::{Keep, RecordError, SessionOptions, SessionSources};
use crate::trace::window::Window;

/// Starts to record.
pub(super) async fn start(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    let profile = state.profile()?;
    let request = StartProfileRequest::parse(&state.body(body).await?.bytes, profile.bytes_max)?;
    let usual = SessionOptions::new(&profile.dir);
    let options = SessionOptions {
        prefix: request.prefix.unwrap_or(usual.prefix),
        max_bytes: room(&state, request.max_bytes).await?,
        keep: request.keep.unwrap_or(profile.keep),
        toggle: request.toggle,
        source: profile.source,
        granularity: request.granularity.unwrap_or(profile.granularity),
        window: request.window,
        dir: usual.dir,
    };
    let (starting, asked) = (state.clone(), options.clone());
    // A client that leaves does not leave a recording behind that nobody knows of.
    let session = match tokio::spawn(async move { begin(&starting, asked).await }).await {
        Ok(session) => session.map_err(|error| no_room(error, profile, request.max_bytes, options.max_bytes))?,
        Err(error) => std::panic::resume_unwind(error.into_panic()), // nobody can cancel it
    };
    let started = session.started();
    tracing::info!(id = started.id, spool = %started.path.display(), "recording");
    Ok(json(to_json(&Started {
        id: &started.id,
        dir: options.dir,
        spool: started.path.clone(),
        sources: &started.sources,
        max_bytes: options.max_bytes,
        keep: options.keep,
        window: &options.window,
    })))
}

/// How many bytes it may have.
async fn room(state: &State, asked: Option<u64>) -> Result<u64, ApiError> {
    let ProfileOptions { dir, quota, bytes_max, .. } = state.profile()?.clone();
    state.lanes.run(Lane::Admin, move |_| folder::room(&dir, quota, asked, bytes_max)).await?
}

/// A limit that is too small because the folder has no more room is the folder's fault, and not the request's.
fn no_room(error: ApiError, profile: &ProfileOptions, asked: Option<u64>, left: u64) -> ApiError {
    match error {
        ApiError::Profile(ProfileError::Record(RecordError::LimitTooSmall { .. }))
            if asked.is_none() && left < profile.bytes_max =>
        {
            folder::full_of_bytes(&profile.dir, profile.quota, profile.quota.bytes_max - left)
        }
        error => error,
    }
}

async fn begin(state: &State, options: SessionOptions) -> Result<Arc<Session>, ApiError> {
    let _changing = state.sessions.changing.lock().await;
    let (engine, asked) = (state.engine.clone(), options.clone());
    let profile = state.lanes.run(Lane::Admin, move |_| engine.start_profile(asked)).await??;
    match state.sessions.add(profile, &options, state.profile()?.render) {
        Ok(session) => Ok(session),
        Err(error) => {
            // Nobody would make its files.
            let engine = state.engine.clone();
            // That it could not start is the error.
            let _ = state.lanes.run(Lane::Admin, move |_| engine.stop_profile(None)).await;
            Err(error)
        }
    }
}

/// Stops recording; answers when the files are complete, or at once if the client does not want to wait. A client that
/// leaves before that does not stop the render.
pub(super) async fn stop(Shared(state): Shared<Arc<State>>, body: Request) -> Result<Response, ApiError> {
    state.profile()?;
    let request = StopProfileRequest::parse(&state.body(body).await?.bytes)?;
    let session = ask_to_end(&state, request.id).await?;
    if request.no_wait {
        return Ok(with_status(StatusCode::ACCEPTED, &session.status()));
    }
    Ok(json(to_json(&*session.settled().await?)))
}

/// Every recording that is remembered, the newest first.
pub(super) async fn sessions(Shared(state): Shared<Arc<State>>) -> Result<Response, ApiError> {
    state.profile()?;
    Ok(json(to_json(&SessionList { sessions: state.sessions.status() })))
}

/// One of them.
pub(super) async fn session(Shared(state): Shared<Arc<State>>, id: InPath) -> Result<Response, ApiError> {
    state.profile()?;
    let id = text_in_path(id)?;
    let session = state.sessions.find(&id).ok_or(ApiError::NoSession { id })?;
    Ok(json(to_json(&session.status())))
}

/// Ends a recording that still runs when the server ends, so that it is whole, and waits for the files of all: up to
/// the deadline, and for a moment at least.
pub(super) async fn finish_at_exit(state: &State, deadline: Instant) {
    match ask_to_end(state, None).await {
        Ok(_)
        | Err(ApiError::Profile(ProfileError::NotRunning | ProfileError::EngineStopped) | ApiError::NoRecorder) => {}
        Err(error) => tracing::error!(%error, "the recording that was running"),
    }
    state.sessions.settle(deadline).await;
}

/// The recording that ends now, or that has ended by itself: of this id, or the one that runs, or else the last one if
/// nobody has been told of its end.
async fn ask_to_end(state: &State, id: Option<String>) -> Result<Arc<Session>, ApiError> {
    let _changing = state.sessions.changing.lock().await;
    let newest = state.sessions.newest();
    // Before it is asked: its end may come sooner than the answer.
    if let Some(session) = newest.as_ref().filter(|session| id.as_deref().is_none_or(|id| id == session.id())) {
        session.note_stop();
    }
    let (engine, asked) = (state.engine.clone(), id.clone());
    let stopped = state.lanes.run(Lane::Admin, move |_| engine.stop_profile(asked.as_deref())).await?;
    let remembered = |id: &str| state.sessions.find(id);
    match (stopped, &id) {
        (Ok(running), _) => remembered(&running).ok_or_else(|| ProfileError::NotRunning.into()),
        (Err(error @ (ProfileError::NotRunning | ProfileError::EngineStopped)), None) => {
            newest.filter(|session| session.has_ended_unseen()).ok_or_else(|| error.into())
        }
        (Err(ProfileError::NotRunning | ProfileError::EngineStopped), Some(id)) => {
            remembered(id).ok_or_else(|| ApiError::NoSession { id: id.clone() })
        }
        // One that has ended is told of; of one that never was it is said which one runs.
        (Err(error @ ProfileError::Other { .. }), Some(id)) => remembered(id).ok_or_else(|| error.into()),
        (Err(error), _) => Err(error.into()),
    }
}

fn with_status(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = json(to_json(body));
    *response.status_mut() = status;
    response
}

#[derive(Serialize)]
struct Started<'a> {
    id: &'a str,
    dir: PathBuf,
    spool: PathBuf,
    /// `asked`, `used`, `library`, and in `absent` why what was asked for is not what is used.
    sources: &'a SessionSources,
    max_bytes: u64,
    keep: Keep,
    window: &'a Window,
}

#[derive(Serialize)]
struct SessionList {
    sessions: Vec<Status>,
}
