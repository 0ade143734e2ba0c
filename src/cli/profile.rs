//! `vitrum profile`: drives the recordings of a running server, says what is in them, and what the server samples.

mod diff;
mod merge;
mod remote;
mod top;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::CommandResult;
use crate::console;
use crate::report::stats::{self, Table};
use crate::report::{self, Completeness, Export, Format, Report};

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
    /// Print tables, with the options of `nsys stats`: kernels, nodes by layer and op, steps, requests, the account of
    /// time
    Stats(StatsArgs),
    /// Write a recording in another format: a trace for Perfetto and HTA, flame graphs for speedscope, SQLite
    Export(ExportArgs),
    /// Write one page, for any browser, that shows where the time went
    Report(ReportArgs),
    /// Write one trace of the recordings of several servers, on one timeline
    Merge(merge::MergeArgs),
    /// Compare two recordings, node by node: what takes longer, and whether that is more than noise
    Diff(diff::DiffArgs),
}

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// The recording, a .vtr file
    file: PathBuf,
    /// Print these tables, named once or several times, with commas between them: cuda_gpu_kern_sum, cuda_api_sum,
    /// cuda_gpu_mem_time_sum, cuda_gpu_trace, nvtx_sum, node_sum, op_sum, layer_sum, step_sum, request_sum, account,
    /// completeness, source_sum, perturbation [default: all but cuda_gpu_trace, which has a row for every node and
    /// every copy]
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    report: Vec<Table>,
    /// table (or text), csv or json
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Write to FILE in place of standard output, which is -; several tables as csv to one file each, FILE_NAME.csv
    /// (a .csv at the end of FILE is left out)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The recording, a .vtr file
    file: PathBuf,
    /// chrome: the trace for Perfetto and HTA; speedscope: flame graphs; sqlite: a file to query, with the tables of
    /// nsys and vitrum_nodes, vitrum_steps, vitrum_requests and others
    #[arg(short, long, value_enum, default_value_t = ExportFormat::Chrome)]
    format: ExportFormat,
    /// The file to write [default: beside the recording]; JSON is gzipped if its name ends in .gz
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    Chrome,
    Speedscope,
    Sqlite,
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
            args.print(&report)?;
            check(&report.completeness)
        }
        ProfileCommand::Export(args) => {
            let format = match args.format {
                ExportFormat::Chrome => Export::Chrome,
                ExportFormat::Speedscope => Export::Speedscope,
                ExportFormat::Sqlite => Export::Sqlite,
            };
            export(&args.file, format, args.output.as_deref())
        }
        ProfileCommand::Report(args) => export(&args.file, Export::Page, args.output.as_deref()),
        ProfileCommand::Merge(args) => merge::run(args),
        ProfileCommand::Diff(args) => diff::run(args),
    }
}

impl StatsArgs {
    /// Prints the tables, or writes them and prints the names of the files.
    fn print(&self, report: &Report) -> CommandResult {
        let tables = if self.report.is_empty() { Table::usual() } else { self.report.clone() };
        if let Some(file) = self.output.as_ref().filter(|file| file.as_os_str() != "-") {
            console::print(&lines(&report::write_stats(&self.file, report, &tables, self.format, file)?));
            return Ok(());
        }
        let mut out = BufWriter::new(console::Stdout);
        stats::write(report, &tables, self.format, &mut out)?;
        if self.report.is_empty() && self.format == Format::Text {
            writeln!(out, "{}", report::dominates(report))?;
        }
        Ok(out.flush()?)
    }
}

fn export(recording: &Path, format: Export, file: Option<&Path>) -> CommandResult {
    let rendered = report::export(recording, format, file)?;
    console::print(&lines(&rendered.files));
    check(&rendered.completeness)
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("{}\n", file.display())).collect()
}

/// A shortfall is an error, after what there is has been printed.
fn check(completeness: &Completeness) -> CommandResult {
    if completeness.complete { Ok(()) } else { Err(completeness.to_string().into()) }
}
