//! `vitrum profile diff`: what takes longer in one recording than in another.

use std::path::PathBuf;

use clap::Args;

use crate::cli::CommandResult;
use crate::console;
use crate::report::diff::{Diff, Level};
use crate::report::{Format, Report};

#[derive(Args, Debug)]
pub(in crate::cli) struct DiffArgs {
    /// The recording to compare with, a .vtr file
    base: PathBuf,
    /// The recording that is compared, a .vtr file
    new: PathBuf,
    /// Print one table only: step, graph, op, layer, node
    #[arg(long, value_name = "WHAT")]
    by: Option<Level>,
    /// text, csv or json
    #[arg(short, long, default_value = "text")]
    format: Format,
    /// Exit with 1 if the median of a step or of an op is slower by more, beyond the interval of the change
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_above: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("it has to be 0 or more".into()) }
}

pub(super) fn run(args: &DiffArgs) -> CommandResult {
    let (base, new) = (Report::load(&args.base)?, Report::load(&args.new)?);
    let diff = Diff::new(&base, &new);
    for warning in &diff.warnings {
        console::note(&format!("warning: {warning}"));
    }
    console::print(&diff.print(args.by, args.format));
    // A shortfall is an error, after what there is has been printed.
    for (path, report) in [(&args.base, &base), (&args.new, &new)] {
        if !report.completeness.complete {
            return Err(format!("{}: {}", path.display(), report.completeness).into());
        }
    }
    match args.fail_above {
        Some(percent) => Ok(diff.check(percent)?),
        None => Ok(()),
    }
}
