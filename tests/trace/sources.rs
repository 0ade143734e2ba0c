//! Two sources of node times: the activity alone says what the stamps say, and both are compared.

use serde_json::Value;
use vitrum::report::stats::SourceComparison;
use vitrum::report::{Format, Report, Table, stats};
use vitrum::trace::session::TraceSource;

use super::library::{LIBRARY, Library, record_seen};
use super::synthetic::{COPIES_NS, Plan};
use super::{load, rows};

pub(crate) const ALONE: Library = Library { source: TraceSource::Activity, offset_ns: 0, hides_overlap: false };
/// As far as its times lie behind the stamps'.
pub(crate) const OFFSET_NS: u64 = 250;
pub(crate) const BOTH: Library = Library { source: TraceSource::Both, offset_ns: OFFSET_NS, hides_overlap: true };

#[test]
fn the_activity_alone_says_what_the_stamps_say() {
    let plan = Plan { overlap_ns: 500, ..Plan::default() };
    let stamps = load("alone-stamps", &plan);
    let alone = Report::load(&record_seen("alone", &plan, ALONE, |_| {})).expect("a report");
    assert!(alone.completeness.complete, "{:?}", alone.completeness);
    let activity = alone.completeness.activity.as_ref().expect("a source");
    assert!(activity.complete && activity.alone, "{activity:?}");
    let nodes = plan.steps * plan.step_nodes();
    assert_eq!((activity.expected, activity.received), (Some(nodes), nodes));
    assert_eq!(activity.library.as_deref(), Some(LIBRARY));
    assert!(stamps.completeness.activity.is_none());

    let times = |report: &Report| -> Vec<_> {
        let nodes = report.recording.nodes.iter();
        nodes.map(|node| (node.replay, node.ordinal, node.start_ns, node.end_ns, node.excl_ns)).collect()
    };
    assert_eq!(times(&alone), times(&stamps));
    assert_eq!(alone.recording.steps, stamps.recording.steps, "copies of the activity are the steps' copies");
    assert_eq!(alone.account.total, stamps.account.total);
    assert_eq!(alone.account.steps, stamps.account.steps);
    for same in [Table::KernSum, Table::StepSum, Table::Account] {
        assert_eq!(rows(&alone, same), rows(&stamps, same), "{}", same.as_str());
    }
    assert!(alone.recording.seen.nodes.is_empty(), "no node stands twice in memory");
    assert_eq!(SourceComparison::of(&alone.recording), None);
    assert!(rows(&alone, Table::SourceSum).is_empty());
}

#[test]
fn overlap_that_the_library_hides_is_said() {
    let plan = Plan { overlap_ns: 500, ..Plan::default() };
    let stamps = load("both-stamps", &plan);
    let both = Report::load(&record_seen("both", &plan, BOTH, |_| {})).expect("a report");
    assert!(both.completeness.complete, "{:?}", both.completeness);
    let activity = both.completeness.activity.as_ref().expect("a source");
    assert!(activity.complete && !activity.alone, "{activity:?}");
    assert_eq!(activity.received, plan.steps * plan.step_nodes());
    assert_eq!(both.recording.nodes, stamps.recording.nodes, "the nodes are the stamps");
    assert_eq!(both.account.total, stamps.account.total);

    let rows = rows(&both, Table::SourceSum);
    assert_eq!(rows.len(), 3 + 5 * plan.layers as usize);
    let columns: Vec<&String> = rows[0].as_object().expect("a row").keys().collect();
    assert_eq!(
        columns,
        [
            "Layer",
            "Op",
            "Count (stamps)",
            "Count (activity)",
            "Med start difference (ns)",
            "Med by stamps (ns)",
            "Med by activity (ns)",
            "Ratio",
            "Overlap by stamps (ns)",
            "Overlap by activity (ns)"
        ]
    );
    for row in &rows {
        let place = (row["Layer"].as_i64(), row["Op"].as_str().expect("an op"));
        // The first node of each graph has none before it in its graph.
        let (graph, ordinal) = match place {
            (None, "embed") => (1, 0),
            (None, "lm_head") => (2, 0),
            (None, _) => (2, 1),
            (Some(layer), op) => {
                let ops = ["attn.qkv", "attn.core", "attn.out", "mlp.up", "mlp.down"];
                (1, 1 + 5 * layer as u64 + ops.iter().position(|known| *known == op).expect("an op") as u64)
            }
        };
        let hidden_ns = if ordinal == 0 { 0 } else { plan.overlap_ns };
        let node_ns = plan.node_ns(graph, ordinal);
        assert_eq!(row["Count (stamps)"].as_u64(), Some(plan.steps), "{row}");
        assert_eq!(row["Count (activity)"].as_u64(), Some(plan.steps), "{row}");
        assert_eq!(row["Med start difference (ns)"].as_f64(), Some((OFFSET_NS + hidden_ns) as f64), "{row}");
        assert_eq!(row["Med by stamps (ns)"].as_f64(), Some(node_ns as f64), "{row}");
        assert_eq!(row["Med by activity (ns)"].as_f64(), Some((node_ns - hidden_ns) as f64), "{row}");
        let ratio = (node_ns - hidden_ns) as f64 / node_ns as f64;
        assert!((row["Ratio"].as_f64().expect("a ratio") - ratio).abs() < 1e-12, "{row}");
        assert_eq!(row["Overlap by stamps (ns)"].as_u64(), Some(plan.steps * hidden_ns), "{row}");
        assert_eq!(row["Overlap by activity (ns)"].as_u64(), Some(0), "{row}");
    }
    let whole = SourceComparison::of(&both.recording).expect("two sources");
    assert_eq!((whole.stamps, whole.activity), (plan.steps * plan.step_nodes(), plan.steps * plan.step_nodes()));
    assert_eq!(whole.start_difference_ns, Some((OFFSET_NS + plan.overlap_ns) as f64));
    assert_eq!(whole.stamps_overlap_ns, plan.steps * (plan.step_nodes() - 2) * plan.overlap_ns);
    let shown = Library { hides_overlap: false, ..BOTH };
    let shown = Report::load(&record_seen("both-shown", &plan, shown, |_| {})).expect("a report");
    let shown = SourceComparison::of(&shown.recording).expect("two sources");
    assert_eq!((shown.ratio, shown.start_difference_ns), (Some(1.0), Some(OFFSET_NS as f64)));
    assert_eq!(shown.stamps_overlap_ns, shown.activity_overlap_ns, "the library may show it, too");
}

#[test]
fn calls_and_copies_have_the_tables_of_nsys() {
    let plan = Plan::default();
    let report = Report::load(&record_seen("nsys", &plan, BOTH, |_| {})).expect("a report");
    let csv = stats(&report, Some(Table::ApiSum), Format::Csv);
    assert!(
        csv.starts_with("Time (%),Total Time (ns),Num Calls,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"),
        "{csv}"
    );
    let calls = rows(&report, Table::ApiSum);
    let of = |rows: &[Value], column: &str, name: &str| -> Value {
        rows.iter().find(|row| row[column] == name).unwrap_or_else(|| panic!("{name} in {rows:?}")).clone()
    };
    let launches = of(&calls, "Name", "cuGraphLaunch");
    assert_eq!(launches["Num Calls"].as_u64(), Some(2 * plan.steps));
    // The submission takes 4009 ns, its first half 2004 and its second 2005; the call all of it but 1000.
    assert_eq!(launches["Total Time (ns)"].as_u64(), Some(plan.steps * (1004 + 1005)));
    assert_eq!((launches["Min (ns)"].as_u64(), launches["Max (ns)"].as_u64()), (Some(1004), Some(1005)));
    assert_eq!(launches["Med (ns)"].as_f64(), Some(1004.5));
    assert_eq!(of(&calls, "Name", "cuStreamSynchronize")["Num Calls"].as_u64(), Some(1));

    let csv = stats(&report, Some(Table::MemTimeSum), Format::Csv);
    assert!(
        csv.starts_with("Time (%),Total Time (ns),Count,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Operation\n"),
        "{csv}"
    );
    let copies = rows(&report, Table::MemTimeSum);
    let up = of(&copies, "Operation", "[CUDA memcpy Host-to-Device]");
    assert_eq!(up["Count"].as_u64(), Some(2 * plan.steps), "as the library saw them");
    assert_eq!(up["Total Time (ns)"].as_u64(), Some(plan.steps * COPIES_NS[0]));
    let fills = of(&copies, "Operation", "[CUDA memset]");
    assert_eq!(fills["Total Time (ns)"].as_u64(), Some(plan.steps * 50));
    assert_eq!(copies.len(), 3);

    let stamps = load("nsys-stamps", &plan);
    assert!(rows(&stamps, Table::ApiSum).is_empty());
    let copies = rows(&stamps, Table::MemTimeSum);
    let up = of(&copies, "Operation", "[CUDA memcpy Host-to-Device]");
    assert_eq!(up["Count"].as_u64(), Some(plan.steps), "as the device stamped them");
    assert_eq!(of(&copies, "Operation", "[CUDA memcpy Device-to-Host]")["Avg (ns)"].as_f64(), Some(303.0));
    assert_eq!(copies.len(), 2);
}
