//! Recordings that keep what comes last: which steps are there, and that every node is accounted for.

use std::time::Duration;

use vitrum::report::{self, Completeness, Export, Format, Report, Table};
use vitrum::trace::record::Recorder;
use vitrum::trace::schema::{GraphKey, GraphKind, GraphTable, NodeSources, NodeStamp, ReplayRecord};
use vitrum::trace::session::{Expected, ExpectedGraph, Keep, RecordError, SessionOptions, SpoolSummary, TraceSource};

use super::acceptance::{assert_passes, server_says};
use super::synthetic::{Plan, header, options, play};
use super::trace_json::parse;
use super::{folder, record_with};

fn last(name: &str, max_bytes: u64) -> SessionOptions {
    SessionOptions { keep: Keep::Last, max_bytes, ..options(&folder(name)) }
}

/// Rests, so that blocks are never missing: simulated time is faster than any disk.
fn long(steps: u64) -> Plan {
    Plan { steps, rest: Duration::from_micros(200), ..Plan::default() }
}

fn load(summary: &SpoolSummary) -> Report {
    assert_eq!(summary.bytes, summary.path.metadata().expect("the file").len());
    Report::load(&summary.path).expect("a report")
}

/// What the engine counted is here, or overwritten, or left out with what was overwritten; graph by graph.
fn assert_closes(counted: &Completeness, summary: &SpoolSummary) {
    assert!(counted.complete && summary.is_complete(), "{counted:?} {summary:?}");
    let overwritten = summary.overwritten.expect("it went round");
    assert_eq!(counted.expected, Some(summary.expected));
    assert_eq!(counted.received + counted.trimmed, summary.received);
    assert_eq!(counted.overwritten, overwritten.records.nodes);
    assert_eq!(counted.overwritten_records, overwritten.records);
    assert_eq!(counted.whole_from_step, Some(overwritten.whole_from_step));
    assert_eq!((counted.keep, summary.keep, counted.limit_reached), (Keep::Last, Keep::Last, true));
    for graph in &counted.graphs {
        assert_eq!(graph.expected, Some(graph.received + graph.overwritten), "{graph:?}");
        assert_eq!(graph.replays_expected, Some(graph.replays_received + graph.replays_overwritten), "{graph:?}");
        assert!(graph.overwritten > 0 && graph.received > 0, "{graph:?}");
    }
}

#[test]
fn a_ring_filled_many_times_has_the_last_steps_and_its_account_closes() {
    let (plan, max_bytes) = (long(6000), 400_000);
    let summary = record_with(&plan, &last("ring", max_bytes));
    assert!(summary.bytes <= max_bytes && summary.bytes > 300_000, "{summary:?}");
    let report = load(&summary);
    assert_closes(&report.completeness, &summary);
    let recording = &report.recording;
    let from = report.completeness.whole_from_step.expect("it went round");
    let end = plan.first_step + plan.steps;
    assert!(from > end - 600 && from + 100 < end, "about 350 kB of 900 bytes a step: from {from} to {end}");
    assert!(recording.steps.iter().map(|step| step.step).eq(from..end), "every step since then");
    assert_eq!(recording.nodes.len() as u64, (end - from) * plan.step_nodes());
    assert_eq!(recording.replays.len() as u64, 2 * (end - from));
    assert_eq!(recording.members.len() as u64, 2 * (end - from));
    assert!(recording.spans.iter().all(|span| (from..end).contains(&span.step)));
    assert_eq!(recording.orphans, 0);
    // Where the time went, of every one of them.
    let account = &report.account;
    assert_eq!(account.steps.len() as u64, end - from);
    assert_eq!(account.unaccounted, report::Unaccounted::default());
    for step in &account.steps {
        assert_eq!(step.parts.named().iter().map(|part| part.ns).sum::<u64>(), step.parts.wall_ns);
    }
    assert!(report.completeness.trimmed <= 2 * plan.step_nodes(), "{:?}", report.completeness);
}

#[test]
fn a_ring_says_what_it_kept_in_tables_and_in_the_trace() {
    let summary = record_with(&long(3000), &last("ring-words", 300_000));
    let report = load(&summary);
    assert_closes(&report.completeness, &summary);
    let from = report.completeness.whole_from_step.expect("it went round");
    let text = report::stats(&report, Some(Table::Completeness), Format::Text);
    assert!(text.contains(&format!("Complete from step {from} on")), "{text}");
    assert!(text.contains("KEPT THE LAST: the file's limit was reached") && !text.contains("INCOMPLETE"), "{text}");
    assert!(text.contains(&format!("{} node times, ", report.completeness.overwritten)), "{text}");
    assert!(
        report.completeness.to_string().contains(&format!("complete from step {from} on")),
        "{}",
        report.completeness
    );
    let trace = &report::render(&summary.path).expect("a trace").files[0];
    assert_passes("lint_trace.py", &[trace]);
    let plan = long(3000);
    let [graphs, before, after] = server_says(&plan, plan.steps, summary.path.parent().expect("a folder"));
    assert_passes("check_completeness.py", &[trace, &graphs, &before, &after]);
    for format in [Export::Sqlite, Export::Speedscope] {
        let rendered = report::export(&summary.path, format, None).expect("an export");
        assert_eq!(rendered.nodes, report.recording.nodes.len() as u64);
    }
    let trace = parse(trace);
    let counted = &trace["vitrum"]["completeness"];
    assert_eq!((&counted["keep"], counted["whole_from_step"].as_u64()), (&"last".into(), Some(from)));
    assert_eq!(counted["overwritten"].as_u64(), Some(report.completeness.overwritten));
}

#[test]
fn a_short_recording_that_keeps_the_last_has_everything() {
    let plan = Plan { steps: 300, ..Plan::default() };
    let summary = record_with(&plan, &last("ring-short", 1 << 30));
    assert!(summary.is_complete() && !summary.limit_reached, "{summary:?}");
    assert_eq!((summary.overwritten, summary.received), (None, summary.expected));
    assert!(summary.bytes < 600_000, "no longer than it has to be: {summary:?}");
    let report = load(&summary);
    assert!(report.completeness.complete && report.recording.lost.is_none(), "{:?}", report.completeness);
    assert_eq!(report.completeness.whole_from_step, None);
    let first = record_with(&plan, &options(&folder("ring-short-first")));
    let first = Report::load(&first.path).expect("a report");
    assert_eq!(report.recording.nodes, first.recording.nodes);
    assert_eq!(report.account.total, first.account.total);
}

#[test]
fn a_limit_for_less_than_two_blocks_is_refused() {
    let graphs = Plan::default().graphs();
    let start = |max_bytes| Recorder::start(&last("ring-small", max_bytes), &header(), &graphs.each_ref());
    let RecordError::LimitTooSmall { least, .. } = start(1000).expect_err("too small") else { panic!("not said") };
    assert!(matches!(start(least - 1), Err(RecordError::LimitTooSmall { .. })));
    let mut recorder = start(least).expect("a recorder");
    let plan = long(1000);
    let expected = play(&plan, &mut recorder);
    let summary = recorder.stop(expected).expect("a summary");
    assert!(summary.bytes <= least, "{summary:?}");
    assert_closes(&load(&summary).completeness, &summary);
}

/// A graph of so many nodes, all alike.
fn large_graph(id: u32, nodes: usize) -> GraphTable {
    let [forward, _] = Plan::default().graphs();
    let key = GraphKey { kind: GraphKind::ForwardMixed, bucket: id };
    GraphTable { id, key, nodes: vec![forward.nodes[1].clone(); nodes] }
}

/// A replay of the graph in a step of its own. So many of its nodes have times.
fn replay(recorder: &mut Recorder, number: u64, graph: &GraphTable, valid: u64) {
    let at = 1000 * number;
    let record = ReplayRecord {
        replay: number,
        step: number,
        graph: graph.id,
        sources: NodeSources::STAMPS,
        launch_start_ns: at,
        launch_end_ns: at + 1,
    };
    let stamps: Vec<NodeStamp> = (0..graph.nodes.len() as u64)
        .map(|node| NodeStamp { start_ns: at + node, end_ns: if node < valid { at + node } else { 1 }, wait_ns: 0 })
        .collect();
    recorder.replay(&record, &stamps);
}

#[test]
fn a_graph_captured_while_a_ring_goes_round_stays_and_what_it_has_no_place_for_is_dropped() {
    let graphs = [2, 3, 4].map(|id| large_graph(id, 250));
    let mut recorder = Recorder::start(&last("ring-graph", 440_000), &header(), &[]).expect("a recorder");
    let mut counted: Vec<ExpectedGraph> = Vec::new();
    for round in 0..300 {
        for (at, graph) in graphs.iter().enumerate() {
            if round == 50 * at as u64 {
                recorder.graph(graph);
                counted.push(ExpectedGraph { graph: graph.id, ..ExpectedGraph::default() });
            }
            if let Some(counted) = counted.get_mut(at) {
                counted.replays += 1;
                counted.traced_replays += 1;
                counted.nodes += 250;
                replay(&mut recorder, 3 * round + at as u64 + 1, graph, 250);
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let summary = recorder.stop(Expected { graphs: counted }).expect("a summary");
    assert!(summary.bytes <= 440_000, "{summary:?}");
    let report = load(&summary);
    let all = &report.completeness;
    // Four of six places, and each graph takes two: the third has no room.
    let described: Vec<u32> = report.recording.graphs.iter().map(|graph| graph.id).collect();
    let without = all.graphs.iter().filter(|graph| !described.contains(&graph.graph)).count();
    assert_eq!((described, without), (vec![2, 3], 1), "{all:?}");
    assert_eq!((all.missing, all.surplus, all.orphans), (0, 0, 0), "{all:?}");
    assert_eq!(all.dropped, 200 * 250, "{all:?}");
    for table in &report.recording.graphs {
        assert_eq!(table, &graphs[table.id as usize - 2]);
        let graph = all.graphs.iter().find(|graph| graph.graph == table.id).expect("it was replayed");
        assert_eq!(graph.expected, Some(graph.received + graph.overwritten + graph.dropped), "{graph:?}");
    }
    assert_eq!(all.expected, Some(all.received + all.overwritten + all.trimmed + all.dropped), "{all:?}");
}

#[test]
fn a_replay_whose_begin_was_overwritten_is_not_half_there() {
    // Longer than two blocks, with nodes that are no times.
    let graph = large_graph(2, 6000);
    let mut recorder = Recorder::start(&last("ring-long-replay", 4 << 20), &header(), &[&graph]).expect("a recorder");
    let replays = 50; // 7 MB: as much as the blocks hold, however slow the disk is
    for number in 1..=replays {
        replay(&mut recorder, number, &graph, 5940);
    }
    let nodes = replays * 6000;
    let counted = ExpectedGraph { graph: 2, replays, traced_replays: replays, nodes, ..ExpectedGraph::default() };
    let summary = recorder.stop(Expected { graphs: vec![counted] }).expect("a summary");
    let report = load(&summary);
    let all = &report.completeness;
    assert_eq!((all.missing, all.surplus, all.orphans, all.dropped), (0, 0, 0, 0), "{all:?}");
    assert!(!all.complete && all.invalid > 0, "what is no time is not forgiven: {all:?}");
    assert_eq!(all.invalid, summary.invalid);
    assert_eq!(all.expected, Some(all.received + all.overwritten + all.trimmed + all.invalid), "{all:?}");
    let text =
        format!("of {nodes} node times, and {} were overwritten, as was asked for", all.overwritten + all.trimmed);
    assert!(all.to_string().starts_with("the recording is incomplete: ") && all.to_string().ends_with(&text), "{all}");
    let numbers: Vec<u64> = report.recording.replays.iter().map(|replay| replay.record.replay).collect();
    let from = all.whole_from_step.expect("it went round");
    assert!(numbers.iter().copied().eq(from..=replays), "{from}: {numbers:?}");
    assert!(report.recording.replays.iter().all(|replay| replay.nodes.len() == 5940 && replay.invalid == 60));
}

#[test]
fn a_ring_that_nobody_closed_says_what_is_whole() {
    let plan = long(3000);
    let graphs = plan.graphs();
    let mut recorder = Recorder::start(&last("ring-open", 400_000), &header(), &graphs.each_ref()).expect("a recorder");
    let path = recorder.path().to_owned();
    play(&plan, &mut recorder);
    drop(recorder);
    // The writer ends on its own; wait for the last block's bytes.
    let last_step = plan.first_step + plan.steps - 1;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let report = loop {
        // While a block is being written, the file may be anything.
        let report = Report::load(&path).ok();
        if let Some(report) = report.filter(|report| report.recording.step(last_step).is_some()) {
            break report;
        }
        assert!(std::time::Instant::now() < deadline, "the last step did not come");
        std::thread::sleep(Duration::from_millis(5));
    };
    let all = &report.completeness;
    assert!(all.truncated && !all.complete && all.expected.is_none(), "{all:?}");
    let from = all.whole_from_step.expect("it went round");
    assert!(report.recording.steps.iter().map(|step| step.step).eq(from..=last_step));
    // Nothing was dropped, so all that was ever recorded is known.
    assert_eq!(all.received + all.trimmed + all.overwritten, plan.steps * plan.step_nodes(), "{all:?}");
    let text = format!("and {} were overwritten, as was asked for", all.overwritten + all.trimmed);
    assert!(all.to_string().starts_with("the recording was cut off: ") && all.to_string().ends_with(&text), "{all}");
    let text = report::stats(&report, Some(Table::Completeness), Format::Text);
    assert!(text.contains("TRUNCATED") && text.contains("KEPT THE LAST"), "{text}");
}

#[test]
fn a_ring_has_stamps_alone_and_says_so() {
    let options = SessionOptions { source: TraceSource::Both, ..last("ring-source", 1 << 20) };
    let recorder = Recorder::start(&options, &header(), &[]).expect("a recorder");
    let sources = recorder.sources();
    assert_eq!((sources.asked, sources.used), (TraceSource::Both, TraceSource::Stamps));
    assert!(sources.absent.as_ref().is_some_and(|why| why.contains("keeps what comes last")), "{sources:?}");
}
