//! `vitrum serve`: an engine behind the HTTP server.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::CommandResult;
use super::engine_args::EngineArgs;
use super::trace_args::TraceArgs;
use crate::engine;
use crate::http::{self, ProfileOptions, ServeOptions};
use crate::report;
use crate::text::ChatTemplate;
use crate::trace::session::{Keep, RecordError, TraceSource};

/// Serves a model over the OpenAI API.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// The address or name to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Names that clients may ask for [default: MODEL]
    #[arg(long, num_args = 1..)]
    served_model_name: Vec<String>,
    /// Who owns the model, as /v1/models says it (some routers look for `vllm`)
    #[arg(long, default_value = "vitrum")]
    owned_by: String,
    /// The most bytes of a request's body
    #[arg(long, default_value_t = 8 << 20)]
    max_body_bytes: usize,
    /// Seconds that running requests may go on after the server was asked to end
    #[arg(long, default_value_t = 30)]
    drain_timeout_sec: u64,
    /// The folder for recordings [default: VITRUM_PROFILE_DIR, else the current folder]. Where one is named the server
    /// measures its device before it listens, which takes some seconds, else when it is first recorded
    #[arg(long)]
    profile_dir: Option<PathBuf>,
    /// The most bytes of a recording
    #[arg(long, default_value_t = 2 << 30)]
    profile_max_bytes: u64,
    /// What is kept of a recording that they are too few for, unless /start_profile says so: `first`, and the rest is
    /// left out, or `last`, and later records go over the oldest
    #[arg(long, value_enum, default_value = "first")]
    profile_keep: Keep,
    /// Time the nodes of one step in N for as long as the server runs, for /profile/nodes, /metrics and `vitrum profile
    /// top`; 0: of none
    #[arg(long, value_name = "N", default_value_t = 0)]
    profile_sample: u32,
}

pub(super) fn run(
    args: &ServeArgs,
    cache_dir: &Path,
    profile_dir: Option<PathBuf>,
    toolkits: &[PathBuf],
) -> CommandResult {
    let start = Instant::now();
    let sample_every = args.sample_every()?;
    let source = args.trace.prepare(&args.engine, toolkits, TraceSource::Both)?;
    let model = args.engine.load(cache_dir)?;
    let names = match args.served_model_name.as_slice() {
        [] => vec![args.engine.model.clone()],
        names => names.to_vec(),
    };
    let template = match model.weights.tokenizer() {
        Some(spec) if spec.chat_template.is_some() => Some(ChatTemplate::from_spec(spec)?),
        _ => None,
    };
    let has_profile_dir = profile_dir.is_some();
    let profile = ProfileOptions {
        dir: args.profile_dir.clone().or(profile_dir).unwrap_or_else(|| PathBuf::from(".")),
        bytes_max: args.profile_max_bytes,
        keep: args.profile_keep,
        source: source.on(model.device)?,
        granularity: args.trace.granularity(),
        render: |spool, cancel| Ok(report::render_unless(spool, cancel)?.files),
    };
    if !profile.dir.is_dir() {
        tracing::warn!("there is no folder {}: /start_profile will fail until there is", profile.dir.display());
    }
    let options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        owned_by: args.owned_by.clone(),
        body_bytes_max: args.max_body_bytes,
        drain_timeout: Duration::from_secs(args.drain_timeout_sec),
        ..ServeOptions::new(names, model.root.display().to_string(), profile)
    };
    let served_name = &options.served_model_names[0];
    let mut engine_options = args.engine.options(&model, served_name)?;
    engine_options.device.activity = source.names_nodes();
    engine_options.sample_every = sample_every;
    let engine = engine::start(&model.weights, &engine_options)?;
    if engine::CAN_RECORD && (args.profile_dir.is_some() || has_profile_dir) {
        // Now, so that no recording has to while requests run.
        if let Err(error) = engine.measure_peaks() {
            tracing::warn!("recordings have no peaks of the device: {error}");
        }
    }
    let info = engine.info();
    tracing::info!(
        "{} on {} ({}, {} workers), {} KV pages, max_model_len {}, ready after {:.2} s",
        info.model.name,
        info.device.name,
        info.device.isa,
        info.device.workers,
        info.limits.kv_pages,
        info.limits.max_model_len,
        start.elapsed().as_secs_f64()
    );
    drop(model.weights);
    let served = http::run(options, engine.clone(), model.tokenizer, template);
    let failure = engine.failure();
    engine.shutdown();
    served?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

impl ServeArgs {
    /// What this build cannot do is said before a model is loaded.
    fn sample_every(&self) -> Result<Option<NonZeroU32>, String> {
        let every = NonZeroU32::new(self.profile_sample);
        if every.is_some() && !engine::CAN_RECORD {
            return Err(format!("--profile-sample: {}", RecordError::NotCompiledIn));
        }
        Ok(every)
    }
}
