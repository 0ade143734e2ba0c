//! Recordings of this server: the one that runs, and the last ones before it.
//!
//! Each has a thread of its own that waits for its end, by its window or because somebody stops it, and then makes its
//! files, behind everything else that the machine does.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::Render;
use super::answer::unix_seconds;
use super::error::ApiError;
use crate::device::{monotonic_ns, yield_to_others};
use crate::engine::{Profile, ProfileError, SessionStarted};
use crate::trace::progress::{Snapshot, State as Activity};
use crate::trace::session::{Keep, Overwritten, RecordError, SessionOptions, SessionSources, SpoolSummary};
use crate::trace::spool::{Reader, SpoolError};
use crate::trace::window::Window;

static RENDERS: Renders = Renders::new();

/// So many recordings are remembered.
const REMEMBERED_MAX: usize = 64;
/// When the server ends, a render has so much time at least; and so much to clear up once it was cancelled, in which a
/// recording that is being closed is written to its end, too.
const RENDER_LEAST: Duration = Duration::from_millis(500);
const CLEAR_UP: Duration = Duration::from_secs(5);

/// Every recording that is remembered, in order of their start.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    list: Mutex<Vec<Arc<Session>>>,
    /// Held while one is started or stopped: who stops finds what was started.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// One recording.
#[derive(Debug)]
pub(crate) struct Session {
    started: SessionStarted,
    window: Window,
    keep: Keep,
    /// In seconds of the Unix clock.
    start: u64,
    /// When somebody asked it to end.
    stopped: OnceLock<Instant>,
    /// Somebody was told what it came to.
    is_claimed: AtomicBool,
    /// Its files are not to be made any more.
    is_cancelled: AtomicBool,
    phase: watch::Sender<Phase>,
}

/// What there is of it.
#[derive(Clone, Debug)]
enum Phase {
    /// It runs, or its file is being ended.
    Open,
    /// Its file is whole.
    Rendering,
    /// So are the files made of it.
    Ready(Arc<Stopped>),
    /// It has no file, or nothing could be made of it.
    Failed(Arc<ApiError>),
}

/// What a recording came to.
#[derive(Debug, Serialize)]
pub(crate) struct Stopped {
    /// `id`, `steps`, `expected`, `received`, `dropped`, `invalid`, `bytes`, …
    #[serde(flatten)]
    pub(crate) summary: SpoolSummary,
    /// Every node that was replayed is in the spool with a usable time.
    pub(crate) complete: bool,
    files: Vec<PathBuf>,
    /// From the wish that it ends to the whole file; `null` if it ended by itself.
    stop_ms: Option<f64>,
    pub(crate) render_ms: f64,
}

/// A recording as it is now.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    id: String,
    /// `waiting` for its first step, `recording`, `closing`, `rendering`, `ready`, `failed`.
    state: &'static str,
    started: u64,
    spool: PathBuf,
    steps: u64,
    nodes: u64,
    bytes: u64,
    /// What comes now is left out: its file has no room, or cannot be written.
    full: bool,
    /// What is kept if its limit is too small: the steps above are all that it ever had.
    keep: Keep,
    /// Of its duration; `null` if it has none, or has not begun.
    seconds_left: Option<f64>,
    /// Of all steps that it is to have; `null` if there is no such number, or one for each stage.
    steps_left: Option<u64>,
    window: Window,
    sources: SessionSources,
    /// Once it is ready.
    complete: Option<bool>,
    files: Vec<PathBuf>,
    error: Option<String>,
}

impl Sessions {
    /// Remembers a recording that has begun, and makes its files when it has ended.
    pub(crate) fn add(
        &self,
        profile: Profile,
        options: &SessionOptions,
        render: Render,
    ) -> Result<Arc<Session>, ApiError> {
        let session = Arc::new(Session {
            started: profile.started().clone(),
            window: options.window.clone(),
            keep: options.keep,
            start: unix_seconds(),
            stopped: OnceLock::new(),
            is_claimed: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Open),
        });
        let own = session.clone();
        let thread = std::thread::Builder::new().name("vitrum-render".into());
        let spawned = thread.spawn(move || own.see_through(profile, render));
        spawned.map_err(|source| ProfileError::Record(RecordError::Thread { source }))?;
        let mut list = self.list();
        if list.len() >= REMEMBERED_MAX
            && let Some(oldest) = list.iter().position(|session| session.is_settled())
        {
            list.remove(oldest);
        }
        list.push(session.clone());
        Ok(session)
    }

    /// All that are remembered, the newest first.
    pub(crate) fn status(&self) -> Vec<Status> {
        self.list().iter().rev().map(|session| session.status()).collect()
    }

    /// By its id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.list().iter().find(|session| session.started.id == id).cloned()
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Option<Arc<Session>> {
        self.list().last().cloned()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) // a list is whole after every change
    }

    /// Waits until the files of all are made, up to the deadline. What is not made then is not made at all.
    pub(crate) async fn settle(&self, deadline: Instant) {
        let all: Vec<_> = self.list().clone();
        let settled = async || {
            for session in &all {
                let _ = session.settled().await; // what went wrong was logged
            }
        };
        let left = deadline.saturating_duration_since(Instant::now()).max(RENDER_LEAST);
        if tokio::time::timeout(left, settled()).await.is_ok() {
            return;
        }
        all.iter().for_each(|session| session.is_cancelled.store(true, Ordering::Relaxed));
        RENDERS.wake();
        if tokio::time::timeout(CLEAR_UP, settled()).await.is_err() {
            tracing::error!("a recording could not be closed, or its render not be ended, within {CLEAR_UP:?}");
        }
    }
}

impl Session {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.started.id
    }

    /// Its file, what times its nodes.
    pub(crate) fn started(&self) -> &SessionStarted {
        &self.started
    }

    /// Somebody is about to ask it to end.
    pub(crate) fn note_stop(&self) {
        if !self.is_ending() {
            let _ = self.stopped.set(Instant::now()); // of several wishes the first counts
        }
    }

    /// It has ended, and nobody was told what it came to.
    pub(crate) fn has_ended_unseen(&self) -> bool {
        !self.is_claimed.load(Ordering::Acquire) && self.is_ending()
    }

    /// It takes no more steps.
    fn is_ending(&self) -> bool {
        self.started.progress.snapshot().state == Activity::Closing || !matches!(*self.phase.borrow(), Phase::Open)
    }

    fn is_settled(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ready(_) | Phase::Failed(_))
    }

    /// What it came to, once its files are made.
    pub(crate) async fn settled(&self) -> Result<Arc<Stopped>, ApiError> {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| matches!(phase, Phase::Ready(_) | Phase::Failed(_))).await;
        let settled = settled.expect("its sender is in this session").clone();
        self.is_claimed.store(true, Ordering::Release);
        match settled {
            Phase::Ready(stopped) => Ok(stopped),
            Phase::Failed(error) => Err(ApiError::Session(error)),
            Phase::Open | Phase::Rendering => unreachable!("it was waited for the others"),
        }
    }

    /// As it is now.
    pub(crate) fn status(&self) -> Status {
        let Snapshot { state, steps, nodes, bytes, is_full, opened_ns } = self.started.progress.snapshot();
        let phase = self.phase.borrow().clone();
        let state = match (&phase, state) {
            (Phase::Open, Activity::Waiting) => "waiting",
            (Phase::Open, Activity::Recording) => "recording",
            (Phase::Open, Activity::Closing) => "closing",
            (Phase::Rendering, _) => "rendering",
            (Phase::Ready(_), _) => "ready",
            (Phase::Failed(_), _) => "failed",
        };
        let is_open = matches!(state, "waiting" | "recording");
        let end_ns = opened_ns.zip(self.window.duration_ns).map(|(from, length)| from.saturating_add(length));
        let seconds_left = end_ns.map(|end_ns| end_ns.saturating_sub(monotonic_ns()) as f64 / 1e9);
        let steps_max = self.window.steps_max.filter(|_| self.window.stages.is_empty());
        let ready = if let Phase::Ready(stopped) = &phase { Some(stopped) } else { None };
        Status {
            id: self.started.id.clone(),
            state,
            started: self.start,
            spool: self.started.path.clone(),
            steps,
            nodes,
            bytes,
            full: is_full,
            keep: self.keep,
            seconds_left: seconds_left.filter(|_| is_open),
            steps_left: steps_max.map(|max| max.saturating_sub(steps)).filter(|_| is_open),
            window: self.window.clone(),
            sources: self.started.sources.clone(),
            complete: ready.map(|stopped| stopped.complete),
            files: ready.map(|stopped| stopped.files.clone()).unwrap_or_default(),
            error: if let Phase::Failed(error) = &phase { Some(error.to_string()) } else { None },
        }
    }

    /// Waits for its end, and makes its files.
    fn see_through(&self, profile: Profile, render: Render) {
        // Whoever waits for it is told, also where a render has a bug.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.finish(profile, render)));
        let settled =
            match result.unwrap_or_else(|_| Err(ApiError::RenderPanicked { spool: self.started.path.clone() })) {
                Ok(stopped) => Phase::Ready(Arc::new(stopped)),
                Err(error) => {
                    tracing::error!(id = self.id(), "{error}");
                    Phase::Failed(Arc::new(error))
                }
            };
        self.phase.send_replace(settled);
    }

    fn finish(&self, profile: Profile, render: Render) -> Result<Stopped, ApiError> {
        let summary = profile.wait()?;
        let stop_ms = self.stopped.get().map(|since| since.elapsed().as_secs_f64() * 1e3);
        if let Some(error) = &summary.write_error {
            tracing::error!(id = self.id(), "the recording ends early: {error}");
        }
        self.phase.send_replace(Phase::Rendering);
        let spool = summary.path.clone();
        let cancelled = || ApiError::RenderCancelled { spool: spool.clone(), advice: advice(&spool, false) };
        let _place = RENDERS.enter(&self.is_cancelled).ok_or_else(cancelled)?;
        yield_to_others();
        let render_start = Instant::now();
        let SpoolSummary { received, expected, .. } = summary;
        let rendered = render(&spool, &self.is_cancelled).map_err(|source| {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return cancelled();
            }
            let advice = advice(&spool, true);
            ApiError::Render { spool: spool.clone(), received, expected, source, advice }
        })?;
        let render_ms = render_start.elapsed().as_secs_f64() * 1e3;
        let files = [vec![spool], rendered].concat();
        let stopped = Stopped { complete: summary.is_complete(), files, stop_ms, render_ms, summary };
        stopped.log();
        Ok(stopped)
    }
}

/// What can still be made of a recording: a whole look at it tells more than one at its begin.
fn advice(spool: &Path, is_whole: bool) -> String {
    let read = || {
        let mut reader = Reader::open(spool)?;
        while is_whole && reader.read()?.is_some() {}
        Ok::<_, SpoolError>(())
    };
    match read() {
        Ok(()) => format!("the recording is readable: `vitrum profile export {}` renders it", spool.display()),
        Err(error) => format!("the recording cannot be read any more: {error}"),
    }
}

/// Bounds how many renders run at a time.
struct Renders {
    running: Mutex<usize>,
    changed: Condvar,
}

/// One of them.
struct Place<'a>(&'a Renders);

impl Renders {
    /// Each takes a few ten megabytes, and all share the time that nothing else wants.
    const MAX: usize = 4;

    const fn new() -> Renders {
        Renders { running: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits for a place; `None` once the flag is set.
    fn enter(&self, is_cancelled: &AtomicBool) -> Option<Place<'_>> {
        let is_full = |running: &mut usize| *running >= Renders::MAX && !is_cancelled.load(Ordering::Relaxed);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner); // a number is always whole
        let mut running = self.changed.wait_while(running, is_full).unwrap_or_else(PoisonError::into_inner);
        if is_cancelled.load(Ordering::Relaxed) {
            return None;
        }
        *running += 1;
        Some(Place(self))
    }

    /// Has those that wait look at their flags.
    fn wake(&self) {
        let _running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.wake();
    }
}

impl Stopped {
    fn log(&self) {
        let SpoolSummary { id, expected, received, activity, overwritten, .. } = &self.summary;
        if let Some(Overwritten { records, whole_from_step }) = overwritten {
            tracing::info!(id, overwritten = records.nodes, whole_from_step, "what came first was overwritten");
        }
        for trouble in activity.iter().flat_map(|counts| counts.given_up.iter().chain(&counts.errors)) {
            tracing::warn!(id, "the driver's profiling library: {trouble}");
        }
        match self.complete {
            true => tracing::info!(id, render_ms = self.render_ms, nodes = received, "recorded"),
            false => tracing::error!(id, self.render_ms, expected, received, "recorded, but node times are missing"),
        }
    }
}
