//! Recordings of a real engine: started and stopped under load, and of chosen steps.

mod lifecycle;
#[path = "../support/mod.rs"]
mod support;
mod windows;

use std::path::Path;

use support::temp::TempDir;
use support::tiny_engine::*;
use vitrum::engine::Engine;
use vitrum::report::Report;
use vitrum::trace::session::SessionOptions;

fn session(dir: &Path) -> SessionOptions {
    SessionOptions { prefix: "test".into(), ..SessionOptions::new(dir) }
}

fn record(engine: &Engine, dir: &Path, load: impl FnOnce()) -> Report {
    let profile = engine.start_profile(session(dir)).expect("the folder is there");
    load();
    let summary = profile.stop().expect("a recording runs");
    assert!(summary.is_complete(), "{summary:?}");
    Report::load(&summary.path).expect("the spool is whole")
}

#[test]
fn a_recording_starts_and_stops_under_load() {
    let dir = TempDir::new();
    let engine = engine(&engine_options());
    let requests: Vec<_> = (0..8).map(|i| (prompt(30, i), greedy(900))).collect();
    let expected = run_all(&engine, &requests);
    let streams: Vec<_> = requests
        .iter()
        .map(|(prompt, sampling)| engine.submit(prompt.clone(), sampling.clone()).expect("a good request"))
        .collect();
    // The first session measures the device, which takes about a second: steps under way are finished before.
    for _ in 0..3 {
        let report = record(&engine, dir.path(), || std::thread::sleep(std::time::Duration::from_millis(20)));
        assert!(report.completeness.complete);
    }
    let answers: Vec<_> = streams.into_iter().map(answer).collect();
    assert_eq!(answers, expected, "no token changed");
}
