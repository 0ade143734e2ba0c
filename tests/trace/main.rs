//! From the recorder's calls to the files that users open, on sessions of which every nanosecond is known.

mod acceptance;
mod account;
mod allocation;
mod diff;
mod exports;
mod library;
mod merge;
mod page;
mod recorder;
mod ring;
mod shortfalls;
mod sources;
mod sources_json;
mod synthetic;
mod tables;
mod trace_json;
mod windows;

use std::path::{Path, PathBuf};

use serde_json::Value;
use vitrum::report::{Format, Report, Table, stats};
use vitrum::trace::record::Recorder;
use vitrum::trace::session::{SessionHeader, SessionOptions, SpoolSummary};

use self::synthetic::{Plan, header, options, play};

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder for the test");
    path
}

fn record_with(plan: &Plan, options: &SessionOptions) -> SpoolSummary {
    record_as(&header(), plan, options)
}

/// Records a plan of any server.
fn record_as(header: &SessionHeader, plan: &Plan, options: &SessionOptions) -> SpoolSummary {
    let graphs = plan.graphs();
    let mut recorder = Recorder::start(options, header, &graphs.each_ref()).expect("a recorder");
    let expected = play(plan, &mut recorder);
    recorder.stop(expected).expect("a summary")
}

/// Records a plan into a test's folder.
fn record(name: &str, plan: &Plan) -> SpoolSummary {
    record_with(plan, &options(&folder(name)))
}

/// The same, and what follows from the recording.
fn load(name: &str, plan: &Plan) -> Report {
    Report::load(&record(name, plan).path).expect("a report")
}

/// How much is left of recordings of so many bytes that are cut off: early, in the middle, at the last byte.
const CUTS: [fn(usize) -> usize; 3] = [|bytes| bytes / 3, |bytes| bytes / 2, |bytes| bytes - 1];

/// Copies what is left of a recording.
fn cut(spool: &Path, left: fn(usize) -> usize, to: &Path) {
    let bytes = std::fs::read(spool).expect("the spool");
    std::fs::write(to, &bytes[..left(bytes.len())]).expect("a copy");
}

/// A table's rows, by the columns' names.
fn rows(report: &Report, table: Table) -> Vec<Value> {
    serde_json::from_str(&stats(report, Some(table), Format::Json)).expect("a list of rows")
}
