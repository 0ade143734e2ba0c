//! `vitrum profile`: drives the recordings of a running server, says what is in them, and what the server samples.

mod remote;
mod top;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::CommandResult;
use crate::report::stats::Table;
use crate::report::{self, Completeness, Format, Report, html};

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
    /// Print the node times that a running server samples (`vitrum serve --profile-sample N`)
    Top(top::TopArgs),
    /// Print tables: kernels (the columns of `nsys stats`), nodes by layer and op, steps, the account of their time
    Stats(StatsArgs),
    /// Write the trace for Perfetto and HTA beside the recording
    Export(ExportArgs),
    /// Write one page, for any browser, that shows where the time went
    Report(ReportArgs),
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

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// The recording, a .vtr file
    file: PathBuf,
    /// The page [default: the recording's name with .html]
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub(super) fn run(command: &ProfileCommand) -> CommandResult {
    match command {
        ProfileCommand::Start(args) => remote::start(args),
        ProfileCommand::Stop(args) => remote::stop(args),
        ProfileCommand::Status(args) => remote::status(args),
        ProfileCommand::Sessions(args) => remote::sessions(args),
        ProfileCommand::Top(args) => top::run(args),
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
        ProfileCommand::Report(args) => {
            let page = args.output.clone().unwrap_or_else(|| args.file.with_extension("html"));
            if is_same_file(&page, &args.file) {
                return Err(format!("--output {} is the recording itself", page.display()).into());
            }
            let report = Report::load(&args.file)?;
            html::write(&report, &page)?;
            super::print(&format!("{}\n", page.display()))?;
            check(&report.completeness)
        }
    }
}

/// Whether two paths lead to one file that exists.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// A shortfall is an error, after what there is has been printed.
fn check(completeness: &Completeness) -> CommandResult {
    if completeness.complete { Ok(()) } else { Err(completeness.to_string().into()) }
}
