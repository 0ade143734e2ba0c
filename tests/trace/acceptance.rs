//! The scripts of tests/acceptance that need nothing but Python: the trace's rules, and a count of every node by a
//! reader that shares no code with the writer.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vitrum::report;
use vitrum::trace::activity::Activity;
use vitrum::trace::session::SessionOptions;

use super::library::{Said, correlation, record_seen};
use super::sources::{ALONE, BOTH};
use super::synthetic::{Plan, options};
use super::{folder, record, record_with};

fn script(name: &str, arguments: &[&Path]) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acceptance").join(name);
    Command::new("python3").arg(path).args(arguments).output().expect("python3 is needed for the acceptance scripts")
}

pub(crate) fn assert_passes(name: &str, arguments: &[&Path]) {
    let output = script(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}\n{}", text(&output));
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn traces_pass_the_lint() {
    let odd = "a \"kernel\"\n\\ \u{1} é";
    let plans = [
        ("lint", Plan::default()),
        ("lint-overlap", Plan { overlap_ns: 1, ..Plan::default() }),
        ("lint-names", Plan { kernel: Some(odd.into()), ..Plan::default() }),
    ];
    for (name, plan) in plans {
        let rendered = report::render(&record(name, &plan).path).expect("a trace");
        assert_passes("lint_trace.py", &[&rendered.files[0]]);
    }
    for (name, library) in [("lint-alone", ALONE), ("lint-both", BOTH)] {
        for (overlap_ns, edit) in [(0, keep as fn(&mut Said)), (500, keep), (500, leave_out)] {
            let spool = record_seen(name, &Plan { overlap_ns, ..Plan::default() }, library, edit);
            assert_passes("lint_trace.py", &[&report::render(&spool).expect("a trace").files[0]]);
        }
    }
    let toggled = SessionOptions { toggle: true, ..options(&folder("lint-toggled")) };
    let rendered = report::render(&record_with(&Plan::default(), &toggled).path).expect("a trace");
    assert_passes("lint_trace.py", &[&rendered.files[0]]);
}

fn keep(_: &mut Said) {}

/// Leaves out the call of a launch and of a copy, and some nodes.
fn leave_out(said: &mut Said) {
    let calls = [correlation(3), correlation(4), correlation(4) + 1, correlation(8) + 3];
    said.activity.retain(|record| match record {
        Activity::Call(call) => !calls.contains(&call.correlation),
        Activity::Node(node) => node.ordinal % 7 != 6,
        _ => true,
    });
}

/// What the server's graph command and its two scrapes would say of a plan.
pub(crate) fn server_says(plan: &Plan, replays: u64, dir: &Path) -> [PathBuf; 3] {
    let paths = ["graphs.json", "before.txt", "after.txt"].map(|name| dir.join(name));
    let scrape = |forward: u64, sample: u64| {
        format!(
            "# TYPE vitrum:graph_replays counter\nvitrum:graph_replays_total{{graph=\"forward.decode.8\"}} {forward}\n\
             vitrum:graph_replays_total{{graph=\"sample.plain.8\"}} {sample}\n"
        )
    };
    let texts =
        [serde_json::to_string(&plan.graphs()).expect("JSON"), scrape(7, 9), scrape(7 + replays, 9 + plan.steps)];
    for (path, text) in paths.iter().zip(texts) {
        std::fs::write(path, text).expect("a file");
    }
    paths
}

#[test]
fn an_independent_reader_finds_every_node() {
    assert_passes("check_completeness.py", &[Path::new("--selftest")]);
    for toggle in [false, true] {
        let plan = Plan::default();
        let dir = folder(if toggle { "counted-toggled" } else { "counted" });
        let summary = record_with(&plan, &SessionOptions { toggle, ..options(&dir) });
        let trace = &report::render(&summary.path).expect("a trace").files[0];
        let [graphs, before, after] = server_says(&plan, plan.steps, &dir);
        assert_passes("check_completeness.py", &[trace, &graphs, &before, &after]);
        let [graphs, before, after] = server_says(&plan, plan.steps + 1, &dir);
        let output = script("check_completeness.py", &[trace, &graphs, &before, &after]);
        assert!(!output.status.success(), "a replay too few is noticed");
        assert!(
            text(&output).contains("forward.decode.8: 51 replays counted by the server, 50 in the trace"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn an_independent_reader_finds_every_node_of_the_activity() {
    for (name, library) in [("counted-alone", ALONE), ("counted-both", BOTH)] {
        let plan = Plan::default();
        let spool = record_seen(name, &plan, library, keep);
        let trace = &report::render(&spool).expect("a trace").files[0];
        let [graphs, before, after] = server_says(&plan, plan.steps, spool.parent().expect("a folder"));
        assert_passes("check_completeness.py", &[trace, &graphs, &before, &after]);
    }
    let plan = Plan::default();
    let spool = record_seen("counted-short", &plan, ALONE, leave_out);
    let trace = &report::render(&spool).expect("a trace").files[0];
    let [graphs, before, after] = server_says(&plan, plan.steps, spool.parent().expect("a folder"));
    let output = script("check_completeness.py", &[trace, &graphs, &before, &after]);
    assert!(!output.status.success() && text(&output).contains("nodes expected"), "{}", text(&output));
}
