//! `vitrum bench`: `serve` loads a running server, `latency` an engine in this process.

mod batch;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::batch::Batch;
use super::CommandResult;
use super::engine_args::EngineArgs;
use super::loading;
use super::trace_args::TraceArgs;
use crate::bench::{latency, serve};
use crate::console;
use crate::engine::{self, EngineOptions};
use crate::trace::session::{RecordError, SessionOptions, TraceSource};
use crate::weights::hub::Sources;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Load a running server and report throughput and latency, as `vllm bench serve` does
    Serve(Box<serve::ServeArgs>),
    /// Measure one batch of requests in this process, as `vllm bench latency` does, and its decode steps
    Latency(Box<LatencyCommand>),
}

#[derive(Args, Debug)]
pub(super) struct LatencyCommand {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    latency: latency::LatencyArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

pub(super) fn run(
    command: &BenchCommand,
    models: &Sources,
    profile_dir: Option<PathBuf>,
    toolkits: &[PathBuf],
) -> CommandResult {
    match command {
        BenchCommand::Serve(args) => Ok(serve::run(args)?),
        BenchCommand::Latency(args) => {
            check_recorder(&args.latency)?;
            if args.trace.is_given() && !(args.latency.profile || args.latency.node_table) {
                return Err("--trace-source is for --profile or --node-table only, and so is --graph-trace".into());
            }
            let source = args.trace.prepare(&args.engine, toolkits, TraceSource::Stamps)?;
            let model = args.engine.load(models)?;
            let mut options = args.engine.options(&model, &args.engine.model)?;
            options.device.activity = source.names_nodes();
            let source = source.on(model.device)?;
            check_sizes(&args.latency, &options)?;
            let engine = loading::start_engine(&model.checkpoint, &options)?;
            let session = SessionOptions {
                prefix: "latency".into(),
                source,
                granularity: args.trace.granularity(),
                ..SessionOptions::new(profile_dir.unwrap_or_else(|| PathBuf::from(".")))
            };
            let mut batch = Batch::new(engine, args.latency.clone(), session);
            let result = latency::run(&args.latency, &mut batch, &mut console::Stdout);
            batch.shutdown();
            Ok(result?)
        }
    }
}

/// One batch is what runs at once, and its requests are no longer than the model takes.
fn check_sizes(args: &latency::LatencyArgs, options: &EngineOptions) -> CommandResult {
    let EngineOptions { limits, max_waiting, .. } = options;
    let (requests, longest) = (u128::from(args.requests()), args.input_len as u128 + u128::from(args.output_len));
    if longest > limits.max_model_len as u128 {
        let limit = limits.max_model_len;
        return Err(format!("--input-len + --output-len is {longest}, and max_model_len is {limit}").into());
    }
    if requests > limits.max_seqs as u128 {
        let limit = limits.max_seqs;
        return Err(format!(
            "--batch-size x --n is {requests} sequences, and --max-num-seqs is {limit}: they would not be one batch"
        )
        .into());
    }
    if requests > *max_waiting as u128 {
        return Err(format!(
            "--batch-size x --n is {requests} sequences, and --max-waiting is {max_waiting}: they are queued together"
        )
        .into());
    }
    Ok(())
}

/// What this build cannot do is said before a model is loaded.
fn check_recorder(args: &latency::LatencyArgs) -> CommandResult {
    let flags = [("--profile", args.profile), ("--node-table", args.node_table)];
    match flags.into_iter().find(|(_, given)| *given && !engine::CAN_RECORD) {
        Some((flag, _)) => Err(format!("{flag}: {}", RecordError::NotCompiledIn).into()),
        None => Ok(()),
    }
}
