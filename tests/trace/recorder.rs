//! What starts, what is refused, what is counted.

use vitrum::report;
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{NodeSources, NodeStamp, ReplayRecord};
use vitrum::trace::session::{Expected, ExpectedGraph, RecordError, SessionOptions};
use vitrum::trace::spool::{Reader, Record};

use super::synthetic::{Plan, header, options, play};
use super::{folder, record, record_with};

#[test]
fn a_session_is_complete_and_says_so() {
    let plan = Plan::default();
    let summary = record("complete", &plan);
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(summary.expected, plan.steps * plan.step_nodes());
    assert_eq!((summary.steps, summary.replays), (plan.steps, 2 * plan.steps));
    assert_eq!(summary.bytes, summary.path.metadata().expect("the file").len());
    let name = summary.path.file_name().expect("a name").to_string_lossy();
    assert_eq!(name, format!("synthetic.{}.vtr", summary.id));
    assert!(summary.id.bytes().all(|byte| byte.is_ascii_digit()));
    let report = report::Report::load(&summary.path).expect("a report");
    assert!(report.completeness.complete, "{:?}", report.completeness);
}

#[test]
fn sessions_started_at_once_have_files_of_their_own() {
    let dir = folder("at-once");
    let start = || Recorder::start(&options(&dir), &header(), &[]).expect("a recorder");
    let recorders = [start(), start(), start()];
    let mut paths: Vec<_> = recorders.iter().map(|recorder| recorder.path().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 3);
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let dir = folder("refused");
    let start = |options: &SessionOptions| Recorder::start(options, &header(), &[]).expect_err("a refusal");
    let missing = start(&options(&dir.join("no-such-folder")));
    assert!(missing.to_string().contains("no-such-folder/synthetic."), "{missing}");
    for prefix in ["../escape", "", ".hidden", "a/b", "a b"] {
        let refused = start(&SessionOptions { prefix: prefix.into(), ..options(&dir) });
        assert!(matches!(refused, RecordError::Prefix { .. }), "{prefix:?}: {refused}");
    }
    let small = start(&SessionOptions { max_bytes: 1000, ..options(&dir) });
    assert!(matches!(small, RecordError::LimitTooSmall { max_bytes: 1000, .. }), "{small}");
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 0, "a refusal leaves no file");
}

#[test]
fn the_limit_keeps_what_came_first() {
    let plan = Plan { steps: 1000, ..Plan::default() };
    let max_bytes = 300_000;
    let summary = record_with(&plan, &SessionOptions { max_bytes, ..options(&folder("limit")) });
    assert!(summary.limit_reached && !summary.is_complete(), "{summary:?}");
    assert!(summary.bytes <= max_bytes, "{summary:?}");
    assert!(summary.received > 0 && summary.dropped > 0, "{summary:?}");
    assert_eq!(summary.received + summary.dropped, summary.expected, "{summary:?}");
    let report = report::Report::load(&summary.path).expect("a report");
    let counted = &report.completeness;
    assert!(!counted.complete && counted.limit_reached && !counted.truncated, "{counted:?}");
    assert_eq!((counted.missing, counted.surplus), (0, 0), "{counted:?}");
    assert_eq!((counted.received, counted.dropped), (summary.received, summary.dropped));
    assert_eq!(report.recording.steps[0].step, plan.first_step, "the first steps are there");
    let table = report::stats(&report, Some(report::Table::Completeness), report::Format::Text);
    assert!(table.contains("the file's limit was reached"), "{table}");
    assert!(table.contains(&format!("{} node times, ", summary.dropped)), "{table}");
}

#[test]
fn what_is_no_time_is_invalid_and_never_shown() {
    let plan = Plan { steps: 1, ..Plan::default() };
    let [graph, _] = plan.graphs();
    let nodes = graph.nodes.len();
    let mut recorder = Recorder::start(&options(&folder("invalid")), &header(), &[&graph]).expect("a recorder");
    let replay = |replay| ReplayRecord {
        replay,
        step: 1,
        graph: 1,
        sources: NodeSources::STAMPS,
        launch_start_ns: 5,
        launch_end_ns: 6,
    };
    let good = NodeStamp { start_ns: 100, end_ns: 200, wait_ns: 0 };
    let mut stamps = vec![good; nodes];
    stamps[3] = NodeStamp { start_ns: 0, ..good };
    stamps[4] = NodeStamp { end_ns: 99, ..good };
    recorder.replay(&replay(1), &stamps);
    recorder.replay(&replay(2), &stamps[1..]);
    let expected = 2 * nodes as u64;
    let counted =
        ExpectedGraph { graph: 1, replays: 2, traced_replays: 2, nodes: expected, ..ExpectedGraph::default() };
    let summary = recorder.stop(Expected { graphs: vec![counted] }).expect("a summary");
    assert_eq!((summary.received, summary.invalid), (nodes as u64 - 2, nodes as u64 + 2), "{summary:?}");
    assert!(!summary.is_complete());
    let report = report::Report::load(&summary.path).expect("a report");
    assert_eq!(report.completeness.invalid, summary.invalid);
    assert_eq!(report.completeness.missing, 0);
    assert_eq!(report.recording.nodes.len(), nodes - 2);
}

#[test]
fn a_replay_that_never_came_is_missing() {
    let plan = Plan::default();
    let graphs = plan.graphs();
    let mut recorder =
        Recorder::start(&options(&folder("missing")), &header(), &graphs.each_ref()).expect("a recorder");
    let mut expected = play(&plan, &mut recorder);
    // The engine counted one more than it told the recorder of.
    expected.graphs[0].replays += 1;
    expected.graphs[0].nodes += plan.forward_nodes();
    let summary = recorder.stop(expected).expect("a summary");
    assert!(!summary.is_complete(), "{summary:?}");
    let counted = report::Report::load(&summary.path).expect("a report").completeness;
    assert_eq!((counted.missing, counted.complete), (plan.forward_nodes(), false), "{counted:?}");
}

#[test]
fn a_graph_captured_while_recording_is_described() {
    let plan = Plan::default();
    let graphs = plan.graphs();
    let mut recorder = Recorder::start(&options(&folder("captured")), &header(), &[&graphs[0]]).expect("a recorder");
    recorder.graph(&graphs[1]);
    let expected = play(&plan, &mut recorder);
    let summary = recorder.stop(expected).expect("a summary");
    assert!(summary.is_complete(), "{summary:?}");
    let report = report::Report::load(&summary.path).expect("a report");
    assert_eq!(report.recording.graphs, graphs);
    assert!(report.completeness.complete, "{:?}", report.completeness);
}

#[test]
fn replays_of_an_unknown_graph_are_dropped_and_counted() {
    let plan = Plan::default();
    let graphs = plan.graphs();
    let mut recorder = Recorder::start(&options(&folder("unknown")), &header(), &[&graphs[0]]).expect("a recorder");
    let expected = play(&plan, &mut recorder);
    let summary = recorder.stop(expected).expect("a summary");
    assert_eq!((summary.dropped, summary.dropped_records.replays), (2 * plan.steps, plan.steps), "{summary:?}");
    let counted = report::Report::load(&summary.path).expect("a report").completeness;
    assert_eq!((counted.dropped, counted.missing, counted.complete), (2 * plan.steps, 0, false), "{counted:?}");
}

#[test]
fn a_recorder_that_is_dropped_leaves_a_readable_spool() {
    let plan = Plan::default();
    let graphs = plan.graphs();
    let mut recorder =
        Recorder::start(&options(&folder("dropped")), &header(), &graphs.each_ref()).expect("a recorder");
    let path = recorder.path().to_owned();
    play(&plan, &mut recorder);
    drop(recorder);
    // The writer ends on its own; wait for the last block's bytes.
    let nodes = plan.steps * plan.step_nodes();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let report = report::Report::load(&path).expect("a report");
        assert!(report.completeness.truncated && !report.completeness.complete);
        assert_eq!(report.completeness.expected, None);
        if report.completeness.received == nodes {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", report.completeness);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_toggled_session_leaves_out_what_the_coin_says() {
    let plan = Plan { steps: 400, ..Plan::default() };
    let summary = record_with(&plan, &SessionOptions { toggle: true, ..options(&folder("toggled")) });
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(summary.replays, 2 * plan.steps, "replays are recorded without nodes too");
    let mut reader = Reader::open(&summary.path).expect("a spool");
    assert!(reader.header().toggle_seed.is_some());
    let mut traced = 0;
    while let Some(record) = reader.read().expect("a record") {
        if let Record::Step(step) = record {
            traced += u64::from(step.traced);
        }
    }
    assert_eq!(summary.expected, traced * plan.step_nodes());
    assert!((100..300).contains(&traced), "{traced} of 400 steps");
    assert!(report::Report::load(&summary.path).expect("a report").completeness.complete);
}
