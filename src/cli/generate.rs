//! `vitrum generate`: one prompt, its answer on standard output as it comes.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::CommandResult;
use super::engine_args::{EngineArgs, LoadedModel};
use super::generation_args::GenerationArgs;
use super::loading;
use super::trace_args::TraceArgs;
use crate::console;
use crate::engine::{self, Engine, Profile};
use crate::report;
use crate::request::{SamplingParams, TokenEvent, TokenId};
use crate::text::{ChatLimits, ChatMessage, ChatRenderer, Detokenizer, TemplateSource};
use crate::trace::session::{RecordError, SessionOptions, TraceSource};
use crate::weights::GenerationConfig;
use crate::weights::hub::Sources;

const MAX_TOKENS_DEFAULT: u32 = 128;

/// Completes one prompt.
#[derive(Args, Debug)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// The prompt
    #[arg(short, long)]
    prompt: String,
    /// Put the prompt into the model's chat template, as the user's message
    #[arg(long)]
    chat: bool,
    /// The most tokens to generate [default: 128, or less if the model has room for less]
    #[arg(long)]
    max_tokens: Option<u32>,
    /// 0: the most likely token each time [default: as --generation-config says, else 0]
    #[arg(long)]
    temperature: Option<f32>,
    /// Draw among the k most likely tokens; 0 is off [default: as --generation-config says, else 0]
    #[arg(long)]
    top_k: Option<u32>,
    /// Draw among the most likely tokens that together have this probability [default: as --generation-config says,
    /// else 1]
    #[arg(long)]
    top_p: Option<f32>,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Seed of the draws
    #[arg(long)]
    seed: Option<u64>,
    /// End the answer before this text
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Go on past the end-of-sequence token
    #[arg(long)]
    ignore_eos: bool,
    /// Record the answer's steps: the recording and its trace are named on standard error
    #[arg(long)]
    profile: bool,
    /// The folder for the recording [default: VITRUM_PROFILE_DIR, else the current folder]
    #[arg(long, requires = "profile")]
    profile_dir: Option<PathBuf>,
    #[command(flatten)]
    trace: TraceArgs,
}

pub(super) fn run(
    args: &GenerateArgs,
    models: &Sources,
    profile_dir: Option<PathBuf>,
    toolkits: &[PathBuf],
    program: PathBuf,
) -> CommandResult {
    let start = Instant::now();
    if args.profile && !engine::CAN_RECORD {
        return Err(format!("--profile: {}", RecordError::NotCompiledIn).into());
    }
    if args.trace.is_given() && !args.profile {
        return Err("--trace-source and --graph-trace are for --profile only".into());
    }
    let source = args.trace.prepare(&args.engine, toolkits, TraceSource::Stamps)?;
    let model = args.engine.load(models)?;
    let generation = args.generation.config(&model.checkpoint)?;
    let prompt = match (args.chat, model.checkpoint.tokenizer()) {
        (true, Some(spec)) => {
            let message = ChatMessage { role: "user".into(), content: args.prompt.clone() };
            let limits = ChatLimits::of_bodies(args.prompt.len());
            let renderer = ChatRenderer::new(program, TemplateSource::from_spec(spec)?, limits);
            model.tokenizer.encode(&renderer.render(&[message], true)?, false)?
        }
        (true, None) => return Err("--chat: this model has no tokenizer, and so no chat template".into()),
        (false, _) => model.tokenizer.encode(&args.prompt, true)?,
    };
    let mut options = args.engine.options(&model, &args.engine.model)?;
    options.device.activity = source.names_nodes();
    let engine = loading::start_engine(&model.checkpoint, &options)?;
    let room = engine.info().limits.max_model_len.saturating_sub(prompt.len());
    if let Some(max_tokens) = args.max_tokens.filter(|max_tokens| *max_tokens as usize > room) {
        let tokens = prompt.len();
        return Err(
            format!("--max-tokens is {max_tokens}, and behind a prompt of {tokens} there is room for {room}").into()
        );
    }
    let sampling = args.sampling(&generation, room);
    let prompt_tokens = prompt.len();
    let session = SessionOptions {
        prefix: "generate".into(),
        source: source.on(model.device)?,
        granularity: args.trace.granularity(),
        ..SessionOptions::new(args.profile_dir.clone().or(profile_dir).unwrap_or_else(|| PathBuf::from(".")))
    };
    let profile = args.profile.then(|| engine.start_profile(session)).transpose()?;
    let answer = complete(args, &model, &engine, prompt, sampling, start);
    // Whatever the answer came to, the recording is whole.
    let recorded = profile.map(save);
    engine.shutdown();
    answer?.report(prompt_tokens);
    recorded.unwrap_or(Ok(()))
}

/// Prints the answer as it comes.
fn complete(
    args: &GenerateArgs,
    model: &LoadedModel,
    engine: &Engine,
    prompt: Vec<TokenId>,
    sampling: SamplingParams,
    start: Instant,
) -> Result<Answer, Box<dyn Error>> {
    let mut stream = engine.submit(prompt, sampling)?;
    let mut detokenizer = Detokenizer::new(model.tokenizer.clone(), args.stop.clone(), true);
    let mut answer = Answer { loaded: start, first: None, tokens: 0 };
    while let Some(event) = stream.blocking_next() {
        match event {
            TokenEvent::Token { token, last, .. } => {
                answer.token();
                let piece = detokenizer.push(token);
                console::print(&piece.text);
                // Nobody reads on, or a stop string was reached.
                if console::stdout_is_closed() || piece.stopped.is_some() {
                    break;
                }
                if last.is_some() {
                    console::print(&detokenizer.finish());
                }
            }
            TokenEvent::Failed(error) => return Err(error.into()),
        }
    }
    console::print("\n");
    Ok(answer)
}

impl GenerateArgs {
    /// How to draw, behind a prompt that leaves room for so many tokens.
    fn sampling(&self, model: &GenerationConfig, room: usize) -> SamplingParams {
        let default = MAX_TOKENS_DEFAULT.min(room.max(1) as u32).min(model.max_new_tokens.unwrap_or(u32::MAX));
        SamplingParams {
            temperature: self.temperature.or(model.temperature).unwrap_or(0.0),
            top_k: self.top_k.or(model.top_k).unwrap_or(0),
            top_p: self.top_p.or(model.top_p).unwrap_or(1.0),
            seed: self.seed,
            max_tokens: self.max_tokens.unwrap_or(default),
            ignore_eos: self.ignore_eos,
            ..SamplingParams::default()
        }
    }
}

/// Ends a recording, makes its trace and names both.
fn save(profile: Profile) -> CommandResult {
    let summary = profile.stop()?;
    let rendered = report::render(&summary.path)?;
    [summary.path].iter().chain(&rendered.files).for_each(|file| console::note(&file.display().to_string()));
    let completeness = rendered.completeness;
    if completeness.complete { Ok(()) } else { Err(completeness.to_string().into()) }
}

/// When tokens came.
struct Answer {
    loaded: Instant,
    first: Option<Instant>,
    tokens: usize,
}

impl Answer {
    fn token(&mut self) {
        self.first.get_or_insert_with(Instant::now);
        self.tokens += 1;
    }

    fn report(&self, prompt_tokens: usize) {
        let Some(first) = self.first else { return };
        let later = self.tokens - 1;
        let then = match later {
            0 => String::new(), // one token has no rate
            _ => format!(", then {:.1} tokens/s", later as f64 / first.elapsed().as_secs_f64()),
        };
        tracing::info!(
            "{prompt_tokens} prompt tokens, first token {:.3} s after the start{then}",
            first.duration_since(self.loaded).as_secs_f64()
        );
    }
}
