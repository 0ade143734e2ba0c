//! What the driver's profiling library does not see, sees twice, or sees of nothing that is known.

use vitrum::report::{ActivityCompleteness, Completeness, Format, Report, Table, stats};
use vitrum::trace::activity::{Activity, DriverCall, NodeActivity};
use vitrum::trace::session::TraceSource;

use super::library::{Library, Said, correlation, record_seen};
use super::sources::{ALONE, BOTH};
use super::synthetic::Plan;

type Edit = fn(&mut Said);

/// A plan of few steps as the library sees it and `edit` leaves it: the counts, and the table's words.
fn seen(name: &str, library: Library, edit: Edit) -> (Completeness, ActivityCompleteness, String) {
    let plan = Plan { steps: 5, ..Plan::default() };
    let report = Report::load(&record_seen(name, &plan, library, edit)).expect("a report");
    let text = stats(&report, Some(Table::Completeness), Format::Text);
    let activity = report.completeness.activity.clone().expect("a source");
    assert_eq!(activity.expected, Some(plan.steps * plan.step_nodes()));
    (report.completeness, activity, text)
}

/// The nodes of the first replay.
fn is_first(activity: &Activity) -> bool {
    matches!(activity, Activity::Node(node) if node.correlation == correlation(1))
}

fn node(said: &mut Said, ordinal: u32) -> &mut NodeActivity {
    let mut nodes = said.activity.iter_mut().filter(|record| is_first(record)).map(|record| match record {
        Activity::Node(node) => node,
        other => panic!("{other:?}"),
    });
    nodes.find(|node| node.ordinal == ordinal).expect("a node")
}

#[test]
fn a_missing_node_is_missing() {
    let edit = |said: &mut Said| {
        said.activity.retain(|record| !matches!(record, Activity::Node(node) if is_first(record) && node.ordinal == 3));
    };
    let (all, activity, text) = seen("missing-alone", ALONE, edit);
    assert_eq!((all.complete, all.missing, activity.missing, activity.complete), (false, 1, 1, false), "{all:?}");
    assert_eq!(all.expected, Some(all.received + 1));
    assert!(text.contains("INCOMPLETE: 1 node times missing") && !text.contains("\nComplete"), "{text}");
    assert_eq!(all.to_string(), format!("the recording is incomplete: {} of {} node times", 114, 115));
    let (all, activity, text) = seen("missing-both", BOTH, edit);
    assert_eq!((all.complete, all.missing, activity.missing, activity.complete), (true, 0, 1, false), "{all:?}");
    assert!(text.contains("\nComplete: ") && text.contains("WARNING: 1 nodes of the activity missing"), "{text}");
    assert!(text.contains("A LIBRARY 13.0 timed 114 of 115 nodes, beside their stamps."), "{text}");
}

#[test]
fn a_node_without_times_is_invalid() {
    let edit = |said: &mut Said| node(said, 2).start_ns = 0;
    let (all, activity, text) = seen("invalid-alone", ALONE, edit);
    assert_eq!((all.complete, all.invalid, all.missing, activity.invalid), (false, 1, 0, 1), "{all:?}");
    assert!(text.contains("INCOMPLETE: 1 node times were no times"), "{text}");
    let (all, activity, text) = seen("invalid-both", BOTH, edit);
    assert_eq!((all.complete, all.invalid, activity.invalid, activity.missing), (true, 0, 1, 0), "{all:?}");
    assert!(text.contains("WARNING: 1 nodes of the activity without times"), "{text}");
}

#[test]
fn a_second_time_of_a_node_is_surplus() {
    let edit = |said: &mut Said| {
        let mut second = *node(said, 2);
        second.end_ns += 1;
        said.activity.push(Activity::Node(second));
    };
    let (all, activity, text) = seen("twice-alone", ALONE, edit);
    assert_eq!((all.complete, all.surplus, all.missing, activity.surplus), (false, 1, 0, 1), "{all:?}");
    assert!(text.contains("1 too many"), "{text}");
    let (all, activity, text) = seen("twice-both", BOTH, edit);
    assert_eq!((all.complete, all.surplus, activity.surplus, activity.complete), (true, 0, 1, false), "{all:?}");
    assert!(text.contains("WARNING: 1 nodes of the activity too many"), "{text}");
    assert_eq!(Some(activity.received), activity.expected, "the first one is kept");
}

#[test]
fn a_node_of_no_launch_is_unresolved() {
    let edits: [(&str, Edit); 3] = [
        ("correlation", |said| node(said, 2).correlation = 99),
        ("graph", |said| node(said, 2).graph = 2),
        ("ordinal", |said| node(said, 2).ordinal = 21),
    ];
    for (what, edit) in edits {
        let (all, activity, text) = seen(&format!("unresolved-alone-{what}"), ALONE, edit);
        assert_eq!((all.complete, all.missing, activity.unresolved), (false, 1, 1), "{what}: {all:?}");
        assert!(text.contains("INCOMPLETE: 1 nodes of the activity whose launch"), "{text}");
        let (all, activity, text) = seen(&format!("unresolved-both-{what}"), BOTH, edit);
        assert_eq!((all.complete, activity.missing, activity.unresolved), (true, 1, 1), "{what}: {all:?}");
        assert!(text.contains("WARNING: 1 nodes of the activity whose launch"), "{text}");
    }
}

#[test]
fn a_launch_without_its_call_leaves_its_nodes_unresolved() {
    let edit = |said: &mut Said| {
        said.activity.retain(|record| !matches!(record, Activity::Call(call) if call.correlation == correlation(3)));
    };
    let forward = Plan::default().forward_nodes();
    let (all, activity, _) = seen("no-call-alone", ALONE, edit);
    assert_eq!((all.complete, all.missing, activity.unresolved), (false, forward, forward), "{all:?}");
    let (all, activity, _) = seen("no-call-both", BOTH, edit);
    assert_eq!((all.complete, activity.missing, activity.unresolved), (true, forward, forward), "{all:?}");
    // A call that failed launched nothing, and takes no other's replay.
    let failed = |said: &mut Said| {
        let first = said.activity.iter().find_map(|record| match record {
            Activity::Call(call) if call.call == DriverCall::GraphLaunch => Some(*call),
            _ => None,
        });
        let mut call = first.expect("a launch");
        (call.correlation, call.status, call.end_ns) = (5, 1, call.start_ns + 10);
        said.activity.push(Activity::Call(call));
    };
    let (all, activity, _) = seen("failed-call", ALONE, failed);
    assert!(all.complete && activity.complete, "{all:?}");
}

#[test]
fn a_copy_without_its_call_is_a_warning() {
    let edit = |said: &mut Said| {
        said.activity
            .retain(|record| !matches!(record, Activity::Call(call) if call.correlation == correlation(2) + 3));
    };
    let (all, activity, text) = seen("no-copy-call", ALONE, edit);
    assert!(all.complete && !activity.complete, "node times are all there: {all:?}");
    assert_eq!(activity.unlaunched_copies, 1);
    assert!(text.contains("WARNING: 1 copies whose call is not in the recording"), "{text}");
}

#[test]
fn what_the_library_says_of_itself_is_passed_on() {
    let edit = |said: &mut Said| {
        (said.counts.unknown, said.counts.dropped) = (2, 4);
        said.counts.given_up = Some("65 of 70 nodes had no times".into());
        said.counts.errors.push("a call failed".into());
    };
    let (all, activity, text) = seen("said", BOTH, edit);
    assert!(all.complete && !activity.complete, "{all:?}");
    for note in [
        "WARNING: 2 nodes of the activity of graphs that were not captured here.",
        "WARNING: 4 records that the library had no room for.",
        "WARNING: the library was given up: 65 of 70 nodes had no times.",
        "WARNING: a call failed.",
    ] {
        assert!(text.contains(note), "{note} is not in\n{text}");
    }
    // What the file had no room for is an error, whatever the source.
    let (all, activity, text) = seen("lost", BOTH, |said| said.counts.lost = 3);
    assert!(!all.complete && activity.lost == 3, "{all:?}");
    assert!(
        text.contains("INCOMPLETE: left out: 0 node times") && text.contains("3 records of the driver's"),
        "{text}"
    );
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let edit = |said: &mut Said| {
        said.sources.used = TraceSource::Stamps;
        said.sources.library = None;
        said.sources.absent = Some("no such library".into());
    };
    let (_, _, text) = seen("absent", BOTH, edit);
    let note = "WARNING: stamps and the driver's profiling library were asked for, stamps in use: no such library.";
    assert!(text.contains(note), "{text}");
}
