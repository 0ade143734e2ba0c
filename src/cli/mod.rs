//! The commands: what each flag means, and which parts a command is made of.

mod bench;
mod doctor;
mod engine_args;
mod generate;
mod graph;
mod profile;
mod serve;
mod template_worker;
mod trace_args;

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::text::WORKER_COMMAND;

/// The command line of `vitrum`.
#[derive(Debug, Parser)]
#[command(name = "vitrum", version, about = "An LLM inference engine that you can see through")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model over the OpenAI API
    Serve(Box<serve::ServeArgs>),
    /// Complete one prompt and print the answer
    Generate(Box<generate::GenerateArgs>),
    /// Measure: a running server, or an engine in this process
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Print the captured graphs of a step: nodes, layers, kernels, costs
    Graph(Box<graph::GraphArgs>),
    /// See whether this machine's devices compute the right thing, and what they can do
    Doctor(doctor::DoctorArgs),
    /// Record a running server, and read recordings
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Render chat templates, asked by another process of this program
    #[command(name = WORKER_COMMAND, hide = true)]
    TemplateWorker(template_worker::TemplateWorkerArgs),
}

/// Runs the command. An error is printed with its causes; the exit code is 1. Prints usage and exits if the command
/// line is wrong.
pub fn run(config: Config) -> ExitCode {
    let filter = match EnvFilter::try_new(&config.log_filter) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("error: VITRUM_LOG is {:?}: {error}", config.log_filter);
            return ExitCode::FAILURE;
        }
    };
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours);
    lines.with_writer(std::io::stderr).init();
    let Config { args, cache_dir, profile_dir, toolkits, program, .. } = config;
    let result = match Args::parse_from(args).command {
        Command::Serve(args) => serve::run(&args, &cache_dir, profile_dir, &toolkits, program),
        Command::Generate(args) => generate::run(&args, &cache_dir, profile_dir, &toolkits, program),
        Command::Bench(command) => bench::run(&command, &cache_dir, profile_dir, &toolkits),
        Command::Graph(args) => graph::run(&args, &cache_dir),
        Command::Doctor(args) => doctor::run(&args, &cache_dir, toolkits, program),
        Command::Profile(command) => profile::run(&command),
        Command::TemplateWorker(args) => template_worker::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// What a command can fail with: it is only printed.
type CommandResult = Result<(), Box<dyn Error>>;

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> CommandResult {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
