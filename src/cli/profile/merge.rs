//! `vitrum profile merge`: recordings of several servers as one trace.

use std::path::PathBuf;

use clap::Args;

use crate::cli::CommandResult;
use crate::console;
use crate::report::merge::merge;

#[derive(Args, Debug)]
pub(in crate::cli) struct MergeArgs {
    /// The recordings, .vtr files: two or more. The first one's clock is the trace's
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The trace, a .json.gz file; if it is not given, beside the first recording
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &MergeArgs) -> CommandResult {
    let merged = merge(&args.files, args.output.as_deref())?;
    console::print(&format!("{}\n{}\n", merged.sheet.to_text(), merged.path.display()));
    // A shortfall is an error, after what there is has been written.
    if merged.incomplete.is_empty() { Ok(()) } else { Err(merged.incomplete.join("; ").into()) }
}
