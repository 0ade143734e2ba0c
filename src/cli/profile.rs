//! `vitrum profile`: what a recording says.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CommandResult;
use crate::report::stats::Table;
use crate::report::{self, Format, Report};

/// Reads recordings.
#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Print tables: kernels (the columns of `nsys stats`), nodes by layer and op, steps, the account of their time
    Stats(StatsArgs),
    /// Write the trace for Perfetto and HTA beside the recording
    Export(ExportArgs),
}

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// The recording, a .vtr file
    file: PathBuf,
    /// Print this table only: cuda_gpu_kern_sum, node_sum, op_sum, layer_sum, step_sum, account, completeness,
    /// perturbation
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
            print!("{}", report::stats(&args.file, args.report, args.format)?);
            if args.report.is_none() && args.format == Format::Text {
                println!("{}", report::dominates(&Report::load(&args.file)?));
            }
        }
        ProfileCommand::Export(args) => {
            let rendered = report::render(&args.file)?;
            rendered.files.iter().for_each(|file| println!("{}", file.display()));
        }
    }
    Ok(())
}
