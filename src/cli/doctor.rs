//! `vitrum doctor`: whether this machine's devices compute the right thing, and what they can do.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};

use super::CommandResult;
use crate::console;
use crate::device::DeviceChoice;
use crate::doctor::{self, Check, DoctorOptions, ModelChoice, Outcome, Report};
use crate::weights::hub;

/// The model that is looked at without being named.
const MODEL: &str = "smollm2";

/// Columns of a table whose terminal is not known.
const WIDTH: u16 = 120;

/// Examines this machine.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// What to examine; `auto`: the CPU, and the GPU if there is one; `cuda`: the GPU, which has to be there
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
    /// Print JSON: one object with all checks, questions and their figures
    #[arg(long)]
    json: bool,
    /// A .gguf file, or `smollm2`, whose tokens are compared; nothing is fetched [default: smollm2, if it was fetched]
    #[arg(long)]
    model: Option<String>,
    /// Ask what using the GPU costs, and check no kernels and models
    #[arg(long)]
    questions: bool,
    /// Replay chains of nodes on the GPU, print what they take as one line of JSON, and do nothing else
    #[arg(long, hide = true)]
    measure_chains: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeviceArg {
    Auto,
    Cpu,
    Cuda,
}

pub(super) fn run(args: &DoctorArgs, cache_dir: &Path, toolkits: Vec<PathBuf>, program: PathBuf) -> CommandResult {
    if args.measure_chains {
        console::print(&format!("{}\n", serde_json::to_string(&doctor::measure_chains()?)?));
        return Ok(());
    }
    let choice = match args.device {
        DeviceArg::Auto => DeviceChoice::Auto,
        DeviceArg::Cpu => DeviceChoice::Cpu,
        DeviceArg::Cuda => DeviceChoice::Cuda,
    };
    let (model, questions_only) = (model(args.model.as_deref(), cache_dir)?, args.questions);
    let report = doctor::examine(&DoctorOptions { choice, model, questions_only, toolkits, program });
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { as_text(&report) };
    console::print(&text);
    let failed = report.failed();
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed: {}", failed.len(), failed.join(", ")).into()) }
}

/// The model with real weights. One that is named has to be there.
fn model(named: Option<&str>, cache_dir: &Path) -> Result<ModelChoice, String> {
    let cached = |name: &str| hub::named(name).and_then(|model| hub::cached(model, cache_dir));
    let absent = || format!("{MODEL} is not in {}: `vitrum generate {MODEL} -p Hello` fetches it", cache_dir.display());
    match named {
        None => Ok(cached(MODEL).map_or_else(|| ModelChoice::Absent(absent()), ModelChoice::Found)),
        Some(MODEL) => cached(MODEL).map(ModelChoice::Named).ok_or_else(|| format!("--model: {}", absent())),
        Some(path) if Path::new(path).is_file() => Ok(ModelChoice::Named(PathBuf::from(path))),
        Some(path) => Err(format!("--model: {path} is neither a .gguf file nor the name {MODEL}")),
    }
}

fn as_text(report: &Report) -> String {
    let mut text = format!("{}\n", table(&report.checks, "check"));
    if !report.questions.is_empty() {
        text += &format!("\n{}\n", table(&report.questions, "question"));
    }
    if report.software {
        text += "\nSoftware stands for the GPU here: what it computes counts, its times and rates are not a GPU's.\n";
    }
    let of = |outcome| report.checks.iter().filter(|check| check.outcome == outcome).count();
    let counts = [Outcome::Passed, Outcome::Failed, Outcome::NotRun].map(of);
    text + &format!("\n{} checks passed, {} failed, {} not run\n", counts[0], counts[1], counts[2])
}

fn table(checks: &[Check], what: &str) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header([what, "device", "", "what was found"]);
    for check in checks {
        let outcome = match check.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::NotRun => "NOT RUN",
        };
        let software = if check.software { "software: " } else { "" };
        table.add_row([&check.name, check.device, outcome, &format!("{software}{}", check.note)]);
    }
    // Names and words stay whole; what was found is broken into lines.
    table.to_string()
}
