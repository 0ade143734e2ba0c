//! The engine: one thread that owns the device, and the handle that everyone else talks to it through.
//!
//! The loop is in `run.rs`: receive → schedule → upload → replay → download → apply → emit. It runs one step ahead:
//! step N + 1 is submitted before the tokens of step N are read, which the device takes from the sequences' slots.
//! What it does is told to the recording, the metrics and the watcher of steps in one place, `observers.rs`.

mod handle;
pub mod metrics;
mod observers;
mod pages;
mod recording;
mod run;
mod scheduler;
mod sequence;
mod stream;
mod watch;

use std::num::NonZeroU32;
use std::sync::Arc;

use thiserror::Error;

pub use self::handle::{
    Command, Engine, EngineInfo, Inbox, Profile, ProfileError, QueueSlot, SessionEnd, SessionStarted, StartRequest,
    Submission,
};
use self::metrics::{CacheSizes, EngineMetrics};
use self::run::EngineLoop;
pub use self::stream::{TokenSender, TokenStream};
pub use self::watch::StepDone;
use crate::device::{Device, DeviceOptions, monotonic_ns};
use crate::kernels::params::PAGE_TOKENS;
use crate::model::Checkpoint;
use crate::step::{Precision, StepError, StepLimits, StepRunner};
use crate::trace::record::Sampler;
use crate::trace::session::RecordError;

/// Whether this build can record; one that cannot refuses [`Engine::start_profile`].
pub const CAN_RECORD: bool = crate::trace::record::ENABLED;

/// How to run an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The name that metrics are labelled with.
    pub served_name: String,
    /// The device.
    pub device: DeviceOptions,
    /// Number formats.
    pub precision: Precision,
    /// Sizes.
    pub limits: StepLimits,
    /// The most of the device's free memory that the KV cache gets, where the device can tell; `limits.kv_pages` bounds
    /// it too.
    pub kv_fraction: Option<f64>,
    /// The most prompt rows of one sequence in one step.
    pub prompt_chunk: usize,
    /// The most requests that wait; one more is refused.
    pub max_waiting: usize,
    /// Capture every graph at start instead of when it is first needed.
    pub capture_all: bool,
    /// Time the nodes of one step in so many, for as long as the engine runs; of none if there is no number.
    pub sample_every: Option<NonZeroU32>,
}

/// Why an engine could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The device, or the model on it.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Too few pages for one sequence of the greatest length.
    #[error(
        "the KV cache has {pages} pages, and one sequence of max_model_len = {max_model_len} tokens takes {needed}: \
         lower --max-model-len or give the KV cache more memory (--kv-cache-memory-bytes, on a GPU also \
         --gpu-memory-utilization)"
    )]
    KvTooSmall {
        /// Pages in all.
        pages: usize,
        /// The longest sequence.
        max_model_len: usize,
        /// Its pages.
        needed: usize,
    },
    /// No node times can be sampled.
    #[error(transparent)]
    Sample(#[from] RecordError),
    /// The operating system gave no thread.
    #[error("could not start the engine's thread: {0}")]
    Thread(std::io::Error),
}

/// Opens the device, packs the weights and starts the engine's thread. It ends with [`Engine::shutdown`], or when the
/// last handle is dropped.
pub fn start(checkpoint: &Checkpoint, options: &EngineOptions) -> Result<Engine, StartError> {
    let sampler = options.sample_every.map(|every| Sampler::start(every, monotonic_ns())).transpose()?;
    check_kv_pages(&options.limits)?;
    let device = Device::open(&options.device).map_err(StepError::from)?;
    let mut runner = StepRunner::open(device, checkpoint, &options.limits, options.precision, options.kv_fraction)?;
    let limits = *runner.limits();
    check_kv_pages(&limits)?;
    if options.capture_all {
        runner.capture_all()?;
    }
    let info = EngineInfo {
        model: checkpoint.config().clone(),
        device: runner.device_info().clone(),
        limits,
        max_waiting: options.max_waiting,
    };
    let cache = CacheSizes { page_tokens: PAGE_TOKENS as usize, pages: limits.kv_pages };
    let samples = sampler.as_ref().map(Sampler::samples);
    let metrics = EngineMetrics::new(&options.served_name, cache).with_samples(samples.clone());
    let (engine, inbox) = Engine::from_parts(info, Arc::new(metrics));
    let engine = engine.with_samples(samples);
    let engine_loop = EngineLoop::new(runner, options.prompt_chunk, inbox, &engine, sampler);
    std::thread::Builder::new()
        .name("vitrum-engine".into())
        .spawn(move || engine_loop.run())
        .map_err(StartError::Thread)?;
    Ok(engine)
}

/// The KV cache has room for one sequence of the greatest length.
fn check_kv_pages(limits: &StepLimits) -> Result<(), StartError> {
    let (pages, needed, max_model_len) = (limits.kv_pages, limits.pages_per_seq(), limits.max_model_len);
    if pages < needed { Err(StartError::KvTooSmall { pages, max_model_len, needed }) } else { Ok(()) }
}
