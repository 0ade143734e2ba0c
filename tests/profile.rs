//! Recordings of a real engine: started and stopped under load, and against a known truth.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::temp::TempDir;
use support::tiny_engine::*;
use vitrum::device::{DeviceOptions, NodeDelay};
use vitrum::engine::{Engine, EngineOptions};
use vitrum::report::Report;
use vitrum::trace::schema::{GraphKind, Op, Place};
use vitrum::trace::session::SessionOptions;

fn session(dir: &Path) -> SessionOptions {
    SessionOptions { dir: dir.to_owned(), prefix: "test".into(), max_bytes: 1 << 30, toggle: false }
}

fn record(engine: &Engine, dir: &Path, load: impl FnOnce()) -> Report {
    engine.start_profile(session(dir)).expect("the folder is there");
    load();
    let summary = engine.stop_profile().expect("a recording runs");
    assert!(summary.is_complete(), "{summary:?}");
    Report::load(&summary.path).expect("the spool is whole")
}

/// Median duration of every place in the decode graphs, in µs.
fn medians_us(report: &Report) -> BTreeMap<(i32, &'static str), f64> {
    let mut times: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for node in &report.recording.nodes {
        let graph = &report.recording.graphs[report.recording.replays[node.replay as usize].graph];
        if graph.key.kind == GraphKind::ForwardDecode {
            let Place { layer, op } = graph.nodes[node.ordinal as usize].place;
            times.entry((layer, op.as_str())).or_default().push(node.excl_ns);
        }
    }
    let median = |mut times: Vec<u64>| {
        times.sort_unstable();
        times[times.len() / 2] as f64 / 1e3
    };
    times.into_iter().map(|(place, times)| (place, median(times))).collect()
}

#[test]
fn a_node_made_longer_is_longer_in_the_recording_and_no_other() {
    const DELAY_US: f64 = 200.0;
    let place = Place { layer: 1, op: Op::AttnCore };
    let dir = TempDir::new();
    let medians = |delay| {
        let device = DeviceOptions { delay, ..device_options() };
        let engine = engine(&EngineOptions { device, ..engine_options() });
        let report = record(&engine, dir.path(), || {
            run_all(&engine, &[(prompt(9, 1), greedy(600))]);
        });
        medians_us(&report)
    };
    let (plain, delayed) = (medians(None), medians(Some(NodeDelay { place, micros: DELAY_US as u32 })));
    assert_eq!(plain.len(), 1 + 3 * 5, "embedding and five ops in each of three layers");
    for (at, plain_us) in plain {
        let more_us = delayed[&at] - plain_us;
        let expected_us = if at == (place.layer, place.op.as_str()) { DELAY_US } else { 0.0 };
        assert!((more_us - expected_us).abs() <= 0.1 * DELAY_US, "{at:?} takes {more_us} µs more, not {expected_us}");
    }
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
