//! `vitrum serve`: an engine behind the HTTP server.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::CommandResult;
use super::engine_args::EngineArgs;
use super::generation_args::GenerationArgs;
use super::loading;
use super::trace_args::TraceArgs;
use crate::engine;
use crate::http::{self, FolderQuota, ProfileOptions, ServeOptions};
use crate::model::Checkpoint;
use crate::report;
use crate::request::SamplingDefaults;
use crate::text::{ChatLimits, ChatRenderer, TemplateSource};
use crate::trace::session::{Keep, RecordError, TraceSource};
use crate::weights::WeightsError;
use crate::weights::hub::Sources;

/// Serves a model over the OpenAI API.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    generation: GenerationArgs,
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
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = bytes)]
    max_body_bytes: usize,
    /// The most bytes of all bodies together; beyond them long ones get 503 [default: 67108864, or two bodies]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_bodies_bytes: Option<usize>,
    /// The most connections; beyond them only health, metrics and profile routes are answered
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = connections)]
    max_connections: usize,
    /// The most connections of one peer, by its IP address; 0 is no limit, for a server behind a proxy
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_connections_per_peer: usize,
    /// Seconds that a piece of an answer may wait for a client that does not read
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    write_timeout_sec: u64,
    /// A name that clients know this server by; requests that change something are taken under its addresses,
    /// localhost, the machine's name, --host and these only
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Seconds that running requests may go on after the server was asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    drain_timeout_sec: u64,
    /// The folder for recordings [default: VITRUM_PROFILE_DIR]. Without one the server does not record: /start_profile
    /// refuses. With one it measures its device before it listens, which takes some seconds
    #[arg(long, value_name = "DIR")]
    profile_dir: Option<PathBuf>,
    /// The most files in that folder; a recording beyond them is refused, and nothing is deleted
    #[arg(long, value_name = "N", default_value_t = 1000)]
    profile_max_files: u64,
    /// The most bytes of the files in that folder
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 30)]
    profile_dir_max_bytes: u64,
    /// The most bytes of a recording
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range(1..))]
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
    models: &Sources,
    profile_dir: Option<PathBuf>,
    toolkits: &[PathBuf],
    program: PathBuf,
) -> CommandResult {
    let start = Instant::now();
    let sample_every = args.sample_every()?;
    let bodies_bytes_max = args.bodies_bytes_max()?;
    let source = args.trace.prepare(&args.engine, toolkits, TraceSource::Both)?;
    let model = args.engine.load(models)?;
    let sampling = args.sampling(&model.checkpoint)?;
    let names = match args.served_model_name.as_slice() {
        [] => vec![args.engine.model.clone()],
        names => names.to_vec(),
    };
    let template = match model.checkpoint.tokenizer() {
        Some(spec) if spec.chat_template().is_some() => Some(args.renderer(program, TemplateSource::from_spec(spec)?)),
        _ => None,
    };
    let profile = args.profile_options(profile_dir, source.on(model.device)?)?;
    let records = profile.is_some();
    let options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        owned_by: args.owned_by.clone(),
        body_bytes_max: args.max_body_bytes,
        bodies_bytes_max,
        connections_max: args.max_connections,
        connections_per_peer_max: Some(args.max_connections_per_peer).filter(|limit| *limit > 0),
        write_timeout: Duration::from_secs(args.write_timeout_sec),
        allowed_hosts: args.allowed_host.clone(),
        drain_timeout: Duration::from_secs(args.drain_timeout_sec),
        sampling,
        ..ServeOptions::new(names, model.root.display().to_string(), profile)
    };
    let served_name = &options.served_model_names[0];
    let mut engine_options = args.engine.options(&model, served_name)?;
    engine_options.device.activity = source.names_nodes();
    engine_options.sample_every = sample_every;
    let engine = loading::start_engine(&model.checkpoint, &engine_options)?;
    if engine::CAN_RECORD && records {
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
    drop(model.checkpoint);
    let served = http::run(options, engine.clone(), model.tokenizer, template);
    let failure = engine.failure();
    engine.shutdown();
    served?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// A number of bytes that memory can have.
fn bytes(text: &str) -> Result<usize, String> {
    const MOST: usize = 1 << 40;
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err(format!("a whole number from 1 to {MOST}")),
    }
}

/// A number of connections that a table of descriptors can have.
fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("a whole number from 1 to 1000000".into()),
    }
}

impl ServeArgs {
    /// All bodies together have room for one at least.
    fn bodies_bytes_max(&self) -> Result<usize, String> {
        const USUAL: usize = 64 << 20;
        let one = self.max_body_bytes;
        match self.max_bodies_bytes.unwrap_or(USUAL.max(2 * one)) {
            all if all < one => {
                Err(format!("--max-bodies-bytes is {all}, and has to be at least {one}, as --max-body-bytes is"))
            }
            all => Ok(all),
        }
    }

    /// How to record, where a folder is named; the log says which it is.
    fn profile_options(&self, dir: Option<PathBuf>, source: TraceSource) -> Result<Option<ProfileOptions>, String> {
        let Some(dir) = self.profile_dir.clone().or(dir) else {
            if engine::CAN_RECORD {
                tracing::info!("this server does not record: --profile-dir DIR, or VITRUM_PROFILE_DIR, lets it");
            }
            return Ok(None);
        };
        let dir = std::path::absolute(&dir).map_err(|error| format!("--profile-dir {}: {error}", dir.display()))?;
        if dir.to_str().is_none() {
            return Err(format!("--profile-dir {} is no UTF-8: answers could not name its files", dir.display()));
        }
        if !dir.is_dir() {
            tracing::warn!("there is no folder {}: /start_profile will fail until there is", dir.display());
        } else if engine::CAN_RECORD {
            tracing::info!("/start_profile records into {}", dir.display());
        }
        Ok(Some(ProfileOptions {
            dir,
            quota: FolderQuota { files_max: self.profile_max_files, bytes_max: self.profile_dir_max_bytes },
            bytes_max: self.profile_max_bytes,
            keep: self.profile_keep,
            source,
            granularity: self.trace.granularity(),
            render: |spool, cancel| Ok(report::render_unless(spool, cancel)?.files),
        }))
    }

    /// What parameters are for a request that does not give them.
    fn sampling(&self, checkpoint: &Checkpoint) -> Result<SamplingDefaults, WeightsError> {
        let (config, neutral) = (self.generation.config(checkpoint)?, SamplingDefaults::default());
        Ok(SamplingDefaults {
            temperature: config.temperature.unwrap_or(neutral.temperature),
            top_k: config.top_k.unwrap_or(neutral.top_k),
            top_p: config.top_p.unwrap_or(neutral.top_p),
            max_tokens_limit: config.max_new_tokens,
        })
    }

    /// What this build cannot do is said before a model is loaded.
    fn sample_every(&self) -> Result<Option<NonZeroU32>, String> {
        let every = NonZeroU32::new(self.profile_sample);
        if every.is_some() && !engine::CAN_RECORD {
            return Err(format!("--profile-sample: {}", RecordError::NotCompiledIn));
        }
        Ok(every)
    }

    /// Renders the model's chat template. One that is faulty does not keep prompts that are text from being completed.
    fn renderer(&self, program: PathBuf, source: TemplateSource) -> ChatRenderer {
        let renderer = ChatRenderer::new(program, source, ChatLimits::of_bodies(self.max_body_bytes));
        if let Err(error) = renderer.prepare() {
            tracing::warn!("conversations will be refused: {error}");
        }
        renderer
    }
}
