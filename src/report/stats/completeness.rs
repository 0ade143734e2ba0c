//! Whether the recording is whole: node times expected and found.

use super::sum;
use crate::report::sheet::Cell;
use crate::report::{ActivityCompleteness, Completeness, Report, Sheet};
use crate::trace::session::{Keep, SessionSources};

/// Node times expected and found, graph by graph.
pub(super) fn completeness(name: &'static str, report: &Report) -> Sheet {
    let all = &report.completeness;
    let mut rows: Vec<Vec<Cell>> = all
        .graphs
        .iter()
        .map(|graph| {
            vec![
                Cell::Text(graph.key.map_or_else(|| format!("graph {}", graph.graph), |key| key.to_string())),
                Cell::Int(graph.nodes_per_replay),
                Cell::int(graph.replays_expected),
                Cell::Int(graph.replays_received),
                Cell::int(graph.expected),
                Cell::Int(graph.received),
                Cell::Int(graph.dropped),
                Cell::Int(graph.invalid),
                Cell::Int(graph.overwritten),
            ]
        })
        .collect();
    rows.push(vec![
        Cell::Text("all".into()),
        Cell::Missing,
        Cell::int(all.expected.map(|_| sum(all.graphs.iter().filter_map(|graph| graph.replays_expected)))),
        Cell::Int(all.graphs.iter().map(|graph| graph.replays_received).sum()),
        Cell::int(all.expected),
        Cell::Int(all.received),
        Cell::Int(all.dropped),
        Cell::Int(all.invalid),
        Cell::Int(sum([all.overwritten, all.trimmed])),
    ]);
    Sheet {
        name,
        columns: vec![
            "Graph",
            "Nodes",
            "Replays expected",
            "Replays received",
            "Expected",
            "Received",
            "Dropped",
            "Invalid",
            "Overwritten",
        ],
        rows,
        notes: completeness_notes(report),
    }
}

fn completeness_notes(report: &Report) -> Vec<String> {
    let all = &report.completeness;
    let mut notes = Vec::new();
    match all.whole_from_step {
        None if all.complete => notes.push("Complete: every node that the engine ran is here.".to_owned()),
        Some(step) if all.complete => {
            notes.push(format!("Complete from step {step} on: every node that the engine ran since then is here."));
        }
        _ => {}
    }
    if all.truncated {
        notes.push("TRUNCATED: the recording was cut off, so the engine's count is not in it.".to_owned());
    }
    let is_explained = !notes.is_empty();
    notes.extend(all.whole_from_step.map(|step| overwritten_note(all, step)));
    if all.limit_reached && all.keep == Keep::First {
        notes.push("INCOMPLETE: the file's limit was reached, and what came later was left out.".to_owned());
    }
    if all.missing > 0 || all.surplus > 0 {
        notes.push(format!("INCOMPLETE: {} node times missing, {} too many.", all.missing, all.surplus));
    }
    let dropped = &all.dropped_records;
    if dropped.total() > 0 {
        notes.push(format!(
            "INCOMPLETE: left out: {} node times, {} replays, {} steps, {} batch rows, {} spans, {} request moments, \
             {} records of the driver's profiling library.",
            dropped.nodes,
            dropped.replays,
            dropped.steps,
            dropped.members,
            dropped.spans,
            dropped.requests,
            dropped.activity
        ));
    }
    if all.invalid > 0 {
        notes.push(format!("INCOMPLETE: {} node times were no times.", all.invalid));
    }
    if all.orphans > 0 {
        notes.push(format!("DAMAGED: {} records refer to something that is not in the file.", all.orphans));
    }
    let activity = all.activity.as_ref().map(activity_notes).unwrap_or_default();
    let is_explained = is_explained
        || notes.iter().any(|note| note.starts_with("INCOMPLETE") || note.starts_with("DAMAGED"))
        || activity.iter().any(|note| note.starts_with("INCOMPLETE"));
    if !is_explained {
        notes.push("INCOMPLETE: the replays in the file are not those that the engine counted.".to_owned());
    }
    notes.extend(source_note(&report.recording.header.session.sources));
    notes.extend(activity);
    notes
}

/// What is not there because it was to go.
fn overwritten_note(all: &Completeness, step: u64) -> String {
    let gone = &all.overwritten_records;
    format!(
        "KEPT THE LAST: the file's limit was reached, and what came first was overwritten, as was asked for: {} node \
         times, {} replays, {} steps. {} node times more are of steps before step {step}, which are not whole any \
         more, and are left out.",
        gone.nodes, gone.replays, gone.steps, all.trimmed
    )
}

/// What times the nodes, where that is not what was asked for.
fn source_note(sources: &SessionSources) -> Option<String> {
    let reason = sources.absent.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    (sources.asked != sources.used || sources.absent.is_some())
        .then(|| format!("WARNING: {} were asked for, {} in use{reason}.", sources.asked.words(), sources.used.words()))
}

/// What the driver's profiling library was to see, and what is amiss with that.
fn activity_notes(activity: &ActivityCompleteness) -> Vec<String> {
    let library = activity.library.as_deref().unwrap_or("The driver's profiling library");
    let expected = activity.expected.map_or_else(|| "an unknown number of".into(), |expected| expected.to_string());
    let beside = if activity.alone { "" } else { ", beside their stamps" };
    let mut notes = vec![format!("{library} timed {} of {expected} nodes{beside}.", activity.received)];
    let shortfall = if activity.alone { "INCOMPLETE" } else { "WARNING" };
    let mut amiss = |word: &str, count: u64, what: &str| {
        if count > 0 {
            notes.push(format!("{word}: {count} {what}."));
        }
    };
    amiss(shortfall, activity.missing, "nodes of the activity missing");
    amiss(shortfall, activity.surplus, "nodes of the activity too many");
    amiss(shortfall, activity.invalid, "nodes of the activity without times");
    amiss(shortfall, activity.unresolved, "nodes of the activity whose launch is not in the recording");
    amiss("WARNING", activity.unknown, "nodes of the activity of graphs that were not captured here");
    amiss(
        "WARNING",
        activity.unlaunched_copies,
        "copies whose call is not in the recording: the trace leaves them out",
    );
    amiss("WARNING", activity.dropped, "records that the library had no room for");
    notes.extend(activity.given_up.as_ref().map(|why| format!("WARNING: the library was given up: {why}.")));
    notes.extend(activity.errors.iter().map(|error| format!("WARNING: {error}.")));
    notes
}
