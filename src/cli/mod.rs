//! The commands: what each flag means, and which parts a command is made of.

mod bench;
mod doctor;
mod engine_args;
mod generate;
mod generation_args;
mod graph;
mod loading;
mod profile;
mod serve;
mod template_worker;
mod trace_args;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::console;
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

/// Runs the command. An error is printed with its causes, and so is an output that could not be written; the exit code
/// is 1. Prints usage and exits if the command line is wrong.
pub fn run(config: Config) -> ExitCode {
    console::note_panics();
    let result = execute(config);
    let unwritten = console::stdout_error().map(|error| format!("standard output could not be written: {error}"));
    let errors: Vec<String> = result.err().map(|error| with_causes(&*error)).into_iter().chain(unwritten).collect();
    errors.iter().for_each(|error| console::note(&format!("error: {error}")));
    console::flush_stderr();
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn execute(config: Config) -> CommandResult {
    let bad_filter = |error| format!("VITRUM_LOG is {:?}: {error}", config.log_filter);
    let filter = EnvFilter::try_new(&config.log_filter).map_err(bad_filter)?;
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours);
    // A line that cannot be written would be answered by one that has to be.
    lines.log_internal_errors(false).with_writer(console::Log).init();
    let Config { args, models, profile_dir, toolkits, program, .. } = config;
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => {
            let help = help.render();
            let is_seen = std::io::stdout().is_terminal();
            console::print(&if is_seen { help.ansi().to_string() } else { help.to_string() });
            return Ok(());
        }
    };
    match args.command {
        Command::Serve(args) => serve::run(&args, &models, profile_dir, &toolkits, program),
        Command::Generate(args) => generate::run(&args, &models, profile_dir, &toolkits, program),
        Command::Bench(command) => bench::run(&command, &models, profile_dir, &toolkits),
        Command::Graph(args) => graph::run(&args, &models),
        Command::Doctor(args) => doctor::run(&args, &models.cache_dir, toolkits, program),
        Command::Profile(command) => profile::run(&command),
        Command::TemplateWorker(args) => template_worker::run(&args),
    }
}

/// What a command can fail with: it is only printed.
type CommandResult = Result<(), Box<dyn Error>>;

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
