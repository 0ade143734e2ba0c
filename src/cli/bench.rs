//! `vitrum bench`: `serve` loads a running server, `latency` an engine in this process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use thiserror::Error;

use super::CommandResult;
use super::engine_args::EngineArgs;
use crate::bench::{latency, serve};
use crate::engine::{self, Engine, ProfileError};
use crate::report;
use crate::request::{RequestError, SamplingParams, TokenEvent, TokenId};
use crate::trace::session::SessionOptions;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Load a running server and report throughput and latency, as `vllm bench serve` does
    Serve(Box<serve::ServeArgs>),
    /// Measure one batch of requests in this process, as `vllm bench latency` does
    Latency(Box<LatencyCommand>),
}

#[derive(Args, Debug)]
pub(super) struct LatencyCommand {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    latency: latency::LatencyArgs,
}

pub(super) fn run(command: &BenchCommand, cache_dir: &Path, profile_dir: Option<PathBuf>) -> CommandResult {
    match command {
        BenchCommand::Serve(args) => Ok(serve::run(args)?),
        BenchCommand::Latency(args) => {
            let model = args.engine.load(cache_dir)?;
            let options = args.engine.options(&model, &args.engine.model)?;
            let longest = args.latency.input_len + args.latency.output_len as usize;
            if longest > options.limits.max_model_len {
                let limit = options.limits.max_model_len;
                return Err(format!("--input-len + --output-len is {longest}, and max_model_len is {limit}").into());
            }
            let engine = engine::start(&model.weights, &options)?;
            let profile_dir = profile_dir.unwrap_or_else(|| PathBuf::from("."));
            let mut batch = Batch { engine, args: args.latency.clone(), profile_dir };
            let result = latency::run(&args.latency, &mut batch, &mut std::io::stdout().lock());
            batch.engine.shutdown();
            Ok(result?)
        }
    }
}

/// One batch of equal requests on an engine in this process.
struct Batch {
    engine: Engine,
    args: latency::LatencyArgs,
    profile_dir: PathBuf,
}

#[derive(Debug, Error)]
enum BatchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Report(#[from] report::ReportError),
    #[error("a request gave {got} tokens of {expected}")]
    Short { got: usize, expected: usize },
}

impl latency::Workload for Batch {
    type Error = BatchError;

    fn iterate(&mut self) -> Result<Duration, BatchError> {
        let vocab = self.engine.info().model.vocab;
        let count = self.args.batch_size * self.args.n;
        let start = Instant::now();
        let mut streams = Vec::with_capacity(count);
        for request in 0..count {
            // Ids below 10,000, as vLLM's benchmark draws them; different for each prompt.
            let token = |i: usize| TokenId(((request * 7919 + i * 104_729) % vocab.min(10_000)) as u32);
            let prompt = (0..self.args.input_len).map(token).collect();
            let sampling = SamplingParams {
                temperature: 1.0,
                max_tokens: self.args.output_len,
                ignore_eos: true,
                seed: Some(request as u64),
                ..SamplingParams::default()
            };
            streams.push(self.engine.submit(prompt, sampling)?);
        }
        for mut stream in streams {
            let mut got = 0;
            while let Some(event) = stream.blocking_next() {
                match event {
                    TokenEvent::Token { .. } => got += 1,
                    TokenEvent::Finished { .. } => break,
                    TokenEvent::Failed(error) => return Err(error.into()),
                }
            }
            let expected = self.args.output_len as usize;
            if got != expected {
                return Err(BatchError::Short { got, expected });
            }
        }
        Ok(start.elapsed())
    }

    fn start_profile(&mut self) -> Result<(), BatchError> {
        let options = SessionOptions {
            dir: self.profile_dir.clone(),
            prefix: "latency".into(),
            max_bytes: 4 << 30,
            toggle: false,
        };
        self.engine.start_profile(options)?;
        Ok(())
    }

    fn stop_profile(&mut self) -> Result<PathBuf, BatchError> {
        let summary = self.engine.stop_profile()?;
        report::render(&summary.path)?;
        Ok(summary.path)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("args", &self.args).finish_non_exhaustive()
    }
}
