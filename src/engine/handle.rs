//! The engine's handle: requests go in, streams of tokens come out; profiling is started and stopped.
//!
//! The handle is a sender of [`Command`]s and some facts. Whoever holds the [`Inbox`] is the engine: its thread takes
//! the commands, and when it ends, for whatever reason, the handle knows.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};

use thiserror::Error;
use tokio::sync::watch;

use super::StepDone;
use super::metrics::EngineMetrics;
use super::stream::{self, TokenSender, TokenStream};
use crate::device::{DeviceError, DeviceInfo, DevicePeaks, monotonic_ns};
use crate::kernels::params::MAX_LOGPROBS;
use crate::model::ModelConfig;
use crate::request::{LOGPROBS_MAX, RequestError, RequestId, SamplingParams, TokenId};
use crate::step::StepLimits;
use crate::trace::progress::Progress;
use crate::trace::record::Samples;
use crate::trace::sample::{By, SampleReading};
use crate::trace::schema::GraphKey;
use crate::trace::session::{RecordError, SessionOptions, SessionSources, SpoolSummary};

const _: () = assert!(LOGPROBS_MAX == MAX_LOGPROBS, "a request may ask for what a row of the device has room for");

/// What an engine serves, and its limits. Fixed from start to end.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// The model's shape.
    pub model: ModelConfig,
    /// The device that it runs on.
    pub device: DeviceInfo,
    /// The most tokens of prompt and answer, rows and sequences of a step, KV pages.
    pub limits: StepLimits,
    /// The most requests that wait to be scheduled for the first time.
    pub max_waiting: usize,
}

/// The engine, as everybody but its thread sees it.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    info: Arc<EngineInfo>,
    metrics: Arc<EngineMetrics>,
    samples: Option<Samples>,
    next_request: Arc<AtomicU64>,
    waiting: Arc<AtomicUsize>,
    shutting_down: Arc<AtomicBool>,
    failure: watch::Receiver<Option<String>>,
    alive: Weak<()>,
}

/// What the handle asks the engine's thread to do.
#[derive(Debug)]
pub enum Command {
    /// Run these requests, which came together.
    Submit(Vec<Submission>),
    /// Start to record.
    StartProfile(StartRequest),
    /// Take no more steps into the recording, and close it.
    StopProfile {
        /// Of this id; of any if there is none.
        id: Option<String>,
        /// Takes its id.
        reply: mpsc::Sender<Result<String, ProfileError>>,
    },
    /// Tell of every finished step.
    WatchSteps {
        /// Takes the steps; what it has no room for is left out.
        to: mpsc::SyncSender<StepDone>,
    },
    /// Measure the device's roofs.
    MeasurePeaks {
        /// Takes the answer.
        reply: mpsc::Sender<Result<DevicePeaks, DeviceError>>,
    },
    /// Finish what runs and end; the sender is dropped then.
    Shutdown {
        /// Dropped by the thread when it ends.
        done: mpsc::Sender<()>,
    },
}

/// A request on its way to the engine's thread.
#[derive(Debug)]
pub struct Submission {
    /// Its number.
    pub id: RequestId,
    /// The prompt; not empty, inside the vocabulary, shorter than `max_model_len`.
    pub prompt: Vec<TokenId>,
    /// How to draw.
    pub sampling: SamplingParams,
    /// Takes the tokens.
    pub events: TokenSender,
    /// What its client calls it; nothing, if it does not.
    pub name: String,
    /// When it arrived, by the monotonic clock.
    pub queued_ns: u64,
    /// The place in the waiting queue; dropped when the request is scheduled for the first time.
    pub slot: QueueSlot,
}

/// A place in the waiting queue, free again when dropped.
#[derive(Debug)]
pub struct QueueSlot(Arc<AtomicUsize>);

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The engine thread's end of the handle.
#[derive(Debug)]
pub struct Inbox {
    /// What to do next.
    pub commands: mpsc::Receiver<Command>,
    failure: watch::Sender<Option<String>>,
    _alive: Arc<()>,
}

impl Inbox {
    /// The engine ends because of this.
    pub fn fail(&self, reason: &str) {
        self.failure.send_replace(Some(reason.to_owned()));
    }
}

impl Engine {
    /// A handle and the inbox that its commands arrive in.
    pub fn from_parts(info: EngineInfo, metrics: Arc<EngineMetrics>) -> (Engine, Inbox) {
        let (sender, receiver) = mpsc::channel();
        let (failed, failure) = watch::channel(None);
        let alive = Arc::new(());
        let engine = Engine {
            commands: sender,
            info: Arc::new(info),
            metrics,
            samples: None,
            next_request: Arc::new(AtomicU64::new(1)),
            waiting: Arc::new(AtomicUsize::new(0)),
            shutting_down: Arc::new(AtomicBool::new(false)),
            failure,
            alive: Arc::downgrade(&alive),
        };
        (engine, Inbox { commands: receiver, failure: failed, _alive: alive })
    }

    /// The same handle, of an engine that samples node times.
    pub(super) fn with_samples(self, samples: Option<Samples>) -> Engine {
        Engine { samples, ..self }
    }

    /// Queues a request.
    pub fn submit(&self, prompt: Vec<TokenId>, sampling: SamplingParams) -> Result<TokenStream, RequestError> {
        self.submit_named(String::new(), prompt, sampling)
    }

    /// Queues a request that its client calls `name`: recordings say so, and may be of it alone.
    pub fn submit_named(
        &self,
        name: String,
        prompt: Vec<TokenId>,
        sampling: SamplingParams,
    ) -> Result<TokenStream, RequestError> {
        let (submission, tokens) = self.admit(name, prompt, sampling)?;
        self.commands.send(Command::Submit(vec![submission])).map_err(|_| stopped())?;
        Ok(tokens)
    }

    /// Queues requests together: no step begins between them. If one is refused, none is queued.
    pub fn submit_batch(
        &self,
        requests: impl IntoIterator<Item = (Vec<TokenId>, SamplingParams)>,
    ) -> Result<Vec<TokenStream>, RequestError> {
        let admit = |(prompt, sampling)| self.admit(String::new(), prompt, sampling);
        let admitted: Vec<_> = requests.into_iter().map(admit).collect::<Result<_, _>>()?;
        let (submissions, streams) = admitted.into_iter().unzip();
        self.commands.send(Command::Submit(submissions)).map_err(|_| stopped())?;
        Ok(streams)
    }

    /// A request that may be queued, with a place in the queue.
    fn admit(
        &self,
        name: String,
        prompt: Vec<TokenId>,
        sampling: SamplingParams,
    ) -> Result<(Submission, TokenStream), RequestError> {
        self.check_prompt(&prompt)?;
        sampling.check()?;
        if self.shutting_down.load(Ordering::Acquire) {
            return Err(RequestError::ShuttingDown);
        }
        let slot = self.queue_slot()?;
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let room = self.info.limits.max_model_len - prompt.len();
        let (events, tokens) = stream::channel(id, room.min(sampling.max_tokens as usize));
        Ok((Submission { id, prompt, sampling, events, name, queued_ns: monotonic_ns(), slot }, tokens))
    }

    /// What it serves, and its limits.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<EngineMetrics> {
        &self.metrics
    }

    /// Starts to record. Blocks until another thread than the engine's has begun the file, and the steps under way have
    /// ended. The first start of an engine whose device was not measured before ([`Engine::measure_peaks`]) does that,
    /// which takes seconds in which nothing is computed.
    pub fn start_profile(&self, options: SessionOptions) -> Result<Profile, ProfileError> {
        let (reply, answer) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let request = StartRequest { options: Box::new(options), end, reply };
        self.commands.send(Command::StartProfile(request)).map_err(|_| ProfileError::EngineStopped)?;
        let started = answer.recv().map_err(|_| ProfileError::EngineStopped)??;
        Ok(Profile { started, engine: self.clone(), ended })
    }

    /// Asks the recording that runs to end with the steps that are under way; of this id, if one is given. Gives its
    /// id. Whoever holds its [`Profile`] is told when its file is whole.
    pub fn stop_profile(&self, id: Option<&str>) -> Result<String, ProfileError> {
        let (reply, answer) = mpsc::channel();
        let command = Command::StopProfile { id: id.map(str::to_owned), reply };
        self.commands.send(command).map_err(|_| ProfileError::EngineStopped)?;
        answer.recv().map_err(|_| ProfileError::EngineStopped)?
    }

    /// Every step that is finished from here on. Up to `room` of them wait to be taken; what comes while there is no
    /// room is left out. There is one watcher: the next one takes its place.
    pub fn watch_steps(&self, room: usize) -> mpsc::Receiver<StepDone> {
        let (to, steps) = mpsc::sync_channel(room);
        let _ = self.commands.send(Command::WatchSteps { to }); // where there is no engine, no step is finished
        steps
    }

    /// The device's roofs. Measured when they are first asked for, which takes about a second, between two steps.
    pub fn measure_peaks(&self) -> Result<DevicePeaks, ProfileError> {
        let (reply, answer) = mpsc::channel();
        self.commands.send(Command::MeasurePeaks { reply }).map_err(|_| ProfileError::EngineStopped)?;
        Ok(answer.recv().map_err(|_| ProfileError::EngineStopped)??)
    }

    /// Node times that were sampled since the start or the last reset, of one graph if it is said which. Asks nothing
    /// of the engine's thread, and takes some milliseconds.
    pub fn node_samples(&self, by: By, graph: Option<GraphKey>) -> Result<SampleReading, ProfileError> {
        Ok(self.sampled()?.read(by, graph))
    }

    /// Forgets the node times that were sampled so far, and gives the moment in seconds of the Unix clock.
    pub fn reset_node_samples(&self) -> Result<u64, ProfileError> {
        Ok(self.sampled()?.reset())
    }

    fn sampled(&self) -> Result<&Samples, ProfileError> {
        match &self.samples {
            Some(samples) => Ok(samples),
            None if crate::trace::record::ENABLED => Err(ProfileError::NotSampled),
            None => Err(RecordError::NotCompiledIn.into()),
        }
    }

    /// Takes no more requests, finishes those that run, ends the thread. Blocks until it has ended.
    pub fn shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
        let (done, ended) = mpsc::channel();
        if self.commands.send(Command::Shutdown { done }).is_ok() {
            let _ = ended.recv(); // an error is the thread's end
        }
    }

    /// Why the engine ended without having been asked to, if it did.
    pub fn failure(&self) -> Option<RequestError> {
        let reason = self.failure.borrow().clone();
        let unasked = || (!self.is_alive() && !self.shutting_down.load(Ordering::Acquire)).then(stopped);
        reason.map(|reason| RequestError::EngineStopped { reason }).or_else(unasked)
    }

    /// Closed when the engine has ended, for those who wait for that.
    pub fn end(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Whether the engine's thread runs.
    pub fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }

    fn check_prompt(&self, prompt: &[TokenId]) -> Result<(), RequestError> {
        let (vocab, limit) = (self.info.model.vocab, self.info.limits.max_model_len);
        if prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if prompt.len() >= limit {
            return Err(RequestError::PromptTooLong { tokens: prompt.len(), limit });
        }
        match prompt.iter().position(|token| token.0 as usize >= vocab) {
            Some(position) => Err(RequestError::TokenOutOfRange { token: prompt[position].0, position, vocab }),
            None => Ok(()),
        }
    }

    fn queue_slot(&self) -> Result<QueueSlot, RequestError> {
        let limit = self.info.max_waiting;
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| (waiting < limit).then_some(waiting + 1))
            .map(|_| QueueSlot(self.waiting.clone()))
            .map_err(|_| RequestError::QueueFull { limit })
    }
}

fn stopped() -> RequestError {
    RequestError::EngineStopped { reason: "its thread has ended".into() }
}

/// What somebody asks for who wants to record.
#[derive(Debug)]
pub struct StartRequest {
    /// Where, which steps and how.
    pub options: Box<SessionOptions>,
    /// Takes what it came to, when it has ended.
    pub end: SessionEnd,
    /// Takes the answer.
    pub reply: mpsc::Sender<Result<SessionStarted, ProfileError>>,
}

/// What a recording came to, or why it has no end.
pub type SessionEnd = mpsc::Sender<Result<SpoolSummary, ProfileError>>;

/// A recording that runs, as the engine's thread says it.
#[derive(Clone, Debug)]
pub struct SessionStarted {
    /// Its id.
    pub id: String,
    /// The spool that is being written.
    pub path: PathBuf,
    /// What times the nodes, and why that is not what was asked for, if it is not.
    pub sources: SessionSources,
    /// How far it is.
    pub progress: Arc<Progress>,
}

/// A recording that runs. Dropping this leaves it running: it ends with its window, by [`Engine::stop_profile`], or
/// with the engine.
#[derive(Debug)]
pub struct Profile {
    started: SessionStarted,
    engine: Engine,
    ended: mpsc::Receiver<Result<SpoolSummary, ProfileError>>,
}

impl Profile {
    /// Its id, its file, what times its nodes, how far it is.
    pub fn started(&self) -> &SessionStarted {
        &self.started
    }

    /// Stops it. Blocks until its file is whole.
    pub fn stop(self) -> Result<SpoolSummary, ProfileError> {
        // Where it is refused, it has ended by itself, or the engine ends, and with it the recording.
        let _ = self.engine.stop_profile(Some(&self.started.id));
        self.wait()
    }

    /// Blocks until it ends by itself, or because somebody stops it.
    pub fn wait(self) -> Result<SpoolSummary, ProfileError> {
        let Profile { started, engine, ended } = self;
        ended.recv().unwrap_or_else(|_| match engine.is_alive() {
            true => Err(ProfileError::NotClosed { id: started.id }),
            false => Err(ProfileError::EngineStopped),
        })
    }
}

/// Why recording could not start or stop.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// A session runs already.
    #[error("profile {id} is running already: stop it first")]
    Running {
        /// The session that runs.
        id: String,
    },
    /// Somebody else starts one.
    #[error("another profile is being started: try again in a moment")]
    Starting,
    /// The session before is not on the disk yet.
    #[error("profile {id} is being closed: start again in a moment")]
    Closing {
        /// The session before.
        id: String,
    },
    /// No session runs.
    #[error("no profile is running")]
    NotRunning,
    /// There was no thread to close it, or that thread panicked.
    #[error("profile {id} could not be closed: its file has no end")]
    NotClosed {
        /// The session.
        id: String,
    },
    /// Another session runs.
    #[error("profile {asked} is not running: {running} is")]
    Other {
        /// The session asked for.
        asked: String,
        /// The session that runs.
        running: String,
    },
    /// The engine samples no node times.
    #[error("node times are not sampled here: start the server with --profile-sample N")]
    NotSampled,
    /// The recorder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The device's roofs could not be measured.
    #[error("could not measure the device: {0}")]
    Device(#[from] DeviceError),
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    EngineStopped,
}
