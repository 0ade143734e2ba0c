//! `vitrum profile`: drives the recordings of a running server, and says what is in them.

mod remote;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CommandResult;
use crate::report::stats::Table;
use crate::report::{self, Completeness, Format, Report};

/// Makes and reads recordings.
#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Start to record a running server: all steps, or those that the flags say
    Start(Box<remote::StartArgs>),
    /// Stop recording, and wait for the files
    Stop(remote::StopArgs),
    /// Say how far a recording is
    Status(remote::StatusArgs),
    /// List the recordings of a running server
    Sessions(remote::SessionsArgs),
    /// Print tables: kernels (the columns of `nsys stats`), nodes by layer and op, steps, the account of their time
    Stats(StatsArgs),
    /// Write the trace for Perfetto and HTA beside the recording
    Export(ExportArgs),
}

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// The recording, a .vtr file
    file: PathBuf,
    /// Print this table only: cuda_gpu_kern_sum, cuda_api_sum, cuda_gpu_mem_time_sum, node_sum, op_sum, layer_sum,
    /// step_sum, account, completeness, source_sum, perturbation
    #[arg(short, long)]
    report: Option<Table>,
    /// text, csv or json
    #[arg(short, long, default_value = "text")]
    format: Format,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The recording, a .vtr file
    file: PathBuf,
}

pub(super) fn run(command: &ProfileCommand) -> CommandResult {
    match command {
        ProfileCommand::Start(args) => remote::start(args),
        ProfileCommand::Stop(args) => remote::stop(args),
        ProfileCommand::Status(args) => remote::status(args),
        ProfileCommand::Sessions(args) => remote::sessions(args),
        ProfileCommand::Stats(args) => {
            let report = Report::load(&args.file)?;
            let mut text = report::stats(&report, args.report, args.format);
            if args.report.is_none() && args.format == Format::Text {
                text += &format!("{}\n", report::dominates(&report));
            }
            super::print(&text)?;
            check(&report.completeness)
        }
        ProfileCommand::Export(args) => {
            let rendered = report::render(&args.file)?;
            let files: String = rendered.files.iter().map(|file| format!("{}\n", file.display())).collect();
            super::print(&files)?;
            check(&rendered.completeness)
        }
    }
}

/// A shortfall is an error, after what there is has been printed.
fn check(completeness: &Completeness) -> CommandResult {
    if completeness.complete { Ok(()) } else { Err(completeness.to_string().into()) }
}
