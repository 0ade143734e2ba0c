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

/// Notes below a table.
#[derive(Default)]
struct Notes {
    texts: Vec<String>,
    /// Whether one of them says that the recording is whole, or why it is not.
    is_explained: bool,
}

impl Notes {
    fn say(&mut self, text: impl Into<String>) {
        self.texts.push(text.into());
    }

    fn explain(&mut self, text: impl Into<String>) {
        self.say(text);
        self.is_explained = true;
    }
}

fn completeness_notes(report: &Report) -> Vec<String> {
    let all = &report.completeness;
    let mut notes = Notes::default();
    match all.whole_from_step {
        None if all.complete => notes.explain("Complete: every node that the engine ran is here."),
        Some(step) if all.complete => {
            notes.explain(format!("Complete from step {step} on: every node that the engine ran since then is here."));
        }
        _ => {}
    }
    if all.truncated {
        notes.explain("TRUNCATED: the recording was cut off, so the engine's count is not in it.");
    }
    if let Some(step) = all.whole_from_step {
        notes.say(overwritten_note(all, step));
    }
    shortfalls(all, &mut notes);
    let activity = all.activity.as_ref().map(activity_notes).unwrap_or_default();
    if !notes.is_explained && !activity.is_explained {
        notes.say("INCOMPLETE: the replays in the file are not those that the engine counted.");
    }
    notes.texts.extend(source_note(&report.recording.header.session.sources));
    notes.texts.extend(activity.texts);
    notes.texts
}

/// What a recording lacks, or has and should not have.
fn shortfalls(all: &Completeness, notes: &mut Notes) {
    if all.limit_reached && all.keep == Keep::First {
        notes.explain("INCOMPLETE: the file's limit was reached, and what came later was left out.");
    }
    if all.missing > 0 || all.surplus > 0 {
        notes.explain(format!("INCOMPLETE: {} node times missing, {} too many.", all.missing, all.surplus));
    }
    let dropped = &all.dropped_records;
    if dropped.total() > 0 {
        notes.explain(format!(
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
        notes.explain(format!("INCOMPLETE: {} node times were no times.", all.invalid));
    }
    if all.orphans > 0 {
        notes.explain(format!("DAMAGED: {} records refer to something that is not in the file.", all.orphans));
    }
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
fn activity_notes(activity: &ActivityCompleteness) -> Notes {
    let library = activity.library.as_deref().unwrap_or("The driver's profiling library");
    let expected = activity.expected.map_or_else(|| "an unknown number of".into(), |expected| expected.to_string());
    let beside = if activity.alone { "" } else { ", beside their stamps" };
    let mut notes = Notes::default();
    notes.say(format!("{library} timed {} of {expected} nodes{beside}.", activity.received));
    for (count, what) in [
        (activity.missing, "missing"),
        (activity.surplus, "too many"),
        (activity.invalid, "without times"),
        (activity.unresolved, "whose launch is not in the recording"),
    ] {
        // Of what nothing else timed, the shortfall is the recording's.
        match (count, activity.alone) {
            (0, _) => {}
            (_, true) => notes.explain(format!("INCOMPLETE: {count} nodes of the activity {what}.")),
            (_, false) => notes.say(format!("WARNING: {count} nodes of the activity {what}.")),
        }
    }
    for (count, what) in [
        (activity.unknown, "nodes of the activity of graphs that were not captured here"),
        (activity.unlaunched_copies, "copies whose call is not in the recording: the trace leaves them out"),
        (activity.dropped, "records that the library had no room for"),
    ] {
        if count > 0 {
            notes.say(format!("WARNING: {count} {what}."));
        }
    }
    notes.texts.extend(activity.given_up.as_ref().map(|why| format!("WARNING: the library was given up: {why}.")));
    notes.texts.extend(activity.errors.iter().map(|error| format!("WARNING: {error}.")));
    notes
}
