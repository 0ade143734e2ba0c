//! `vitrum profile`: what recordings say.

mod diff;
mod merge;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CommandResult;
use crate::report::stats::Table;
use crate::report::{self, Completeness, Format, Report};

/// Reads recordings.
#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Print tables: kernels (the columns of `nsys stats`), nodes by layer and op, steps, the account of their time
    Stats(StatsArgs),
    /// Write the trace for Perfetto and HTA beside the recording
    Export(ExportArgs),
    /// Write one trace of the recordings of several servers, on one timeline
    Merge(merge::MergeArgs),
    /// Compare two recordings, node by node: what takes longer, and whether that is more than noise
    Diff(diff::DiffArgs),
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
        ProfileCommand::Merge(args) => merge::run(args),
        ProfileCommand::Diff(args) => diff::run(args),
    }
}

/// A shortfall is an error, after what there is has been printed.
fn check(completeness: &Completeness) -> CommandResult {
    if completeness.complete { Ok(()) } else { Err(completeness.to_string().into()) }
}
