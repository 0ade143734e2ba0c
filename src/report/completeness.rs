//! Is every node time there? Expected comes from the engine's own count in the closing block, received from counting
//! what is in the file; the recorder only says what it left out, and why.
//!
//! A ring was asked to let old records go. What is gone is counted, and so is what is left of steps that are not whole
//! any more; it is complete if it has everything else.
//!
//! A node's time is its stamp, or what the driver's profiling library saw of it where it has no stamp. What the library
//! was to see beside stamps is counted apart: what it did not see leaves the recording whole, what the file had no room
//! for does not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::model::{Lost, Recording};
use super::stats::sum;
use crate::trace::schema::{GraphKey, GraphTable};
use crate::trace::session::{Closing, Counts, Keep};
use crate::trace::spool::SpoolHeader;

/// Node times expected and found.
#[derive(Clone, Debug, Serialize)]
pub struct Completeness {
    /// Whether every expected node time is there, and is a time.
    pub complete: bool,
    /// What the engine counted; `None` if the recording was cut off before its counts.
    pub expected: Option<u64>,
    /// Valid node times in the recording.
    pub received: u64,
    /// Node times that the recorder left out: queue or file full.
    pub dropped: u64,
    /// Node times that the graph did not write, or not as times.
    pub invalid: u64,
    /// Node times that later records went over, in a ring.
    pub overwritten: u64,
    /// Node times of steps that are not whole because of that: they are in the file, and in nothing made of it.
    pub trimmed: u64,
    /// Expected, and nothing of all that.
    pub missing: u64,
    /// More than expected.
    pub surplus: u64,
    /// The recording was cut off: the engine's count is not in it.
    pub truncated: bool,
    /// The recording's file was full, so what came later was left out, or went over what came first.
    pub limit_reached: bool,
    /// Which of the two it was to be.
    pub keep: Keep,
    /// Records of every kind that later ones went over.
    pub overwritten_records: Counts,
    /// Of this step and all later ones no record was overwritten; `None` if none of any was.
    pub whole_from_step: Option<u64>,
    /// Records of every kind that the recorder left out.
    pub dropped_records: Counts,
    /// Records in the file that refer to something which is not in it.
    pub orphans: u64,
    /// Whether what the driver's profiling library was to see is there, if it was to see something.
    pub activity: Option<ActivityCompleteness>,
    /// Graph by graph.
    pub graphs: Vec<GraphCompleteness>,
}

/// The nodes that the driver's profiling library was to see, and what it did see.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ActivityCompleteness {
    /// Its name and version.
    pub library: Option<String>,
    /// Whether it timed nodes that nothing else timed: its shortfall is the recording's then.
    pub alone: bool,
    /// Whether every node that it was to see is there once, with times, and no record was left out or names nothing.
    pub complete: bool,
    /// Nodes that the engine counted; `None` if the recording was cut off before its counts.
    pub expected: Option<u64>,
    /// Nodes with times.
    pub received: u64,
    /// Nodes without.
    pub invalid: u64,
    /// Expected, and neither received nor invalid.
    pub missing: u64,
    /// More than expected, or there twice.
    pub surplus: u64,
    /// Nodes whose launch is not in the recording, or is one of another graph.
    pub unresolved: u64,
    /// Nodes of graphs that nobody captured here; they are not in the recording.
    pub unknown: u64,
    /// Copies whose call is not in the recording.
    pub unlaunched_copies: u64,
    /// Records that the library had no room for.
    pub dropped: u64,
    /// Records that the recording had no room for.
    pub lost: u64,
    /// Why the library was given up before the recording's end, if it was.
    pub given_up: Option<String>,
    /// Calls of the library that failed.
    pub errors: Vec<String>,
}

/// Node times of one graph, expected and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GraphCompleteness {
    /// The graph's number.
    pub graph: u32,
    /// Its name; `None` if the recording does not describe it.
    #[serde(serialize_with = "key_as_text")]
    pub key: Option<GraphKey>,
    /// Its nodes.
    pub nodes_per_replay: u64,
    /// Replays that the engine counted.
    pub replays_expected: Option<u64>,
    /// Replays in the recording.
    pub replays_received: u64,
    /// Node times that the engine counted.
    pub expected: Option<u64>,
    /// Valid node times in the recording.
    pub received: u64,
    /// Left out by the recorder.
    pub dropped: u64,
    /// No times.
    pub invalid: u64,
    /// Overwritten, or of steps that are not whole because others were.
    pub overwritten: u64,
    /// Their replays.
    pub replays_overwritten: u64,
    /// Those among the invalid that are of the activity.
    #[serde(skip)]
    invalid_activity: u64,
}

impl fmt::Display for Completeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.received;
        let gone = sum([self.overwritten, self.trimmed]);
        if let Some(step) = self.whole_from_step.filter(|_| self.complete) {
            return write!(
                f,
                "the recording is complete from step {step} on: {received} node times; {gone} before them were \
                 overwritten, as was asked for"
            );
        }
        match self.expected {
            _ if self.complete => write!(f, "the recording is complete: {received} node times"),
            Some(expected) => write!(f, "the recording is incomplete: {received} of {expected} node times"),
            None => write!(f, "the recording was cut off: {received} node times, and not how many there should be"),
        }?;
        // The others are not what it lacks.
        if gone > 0 { write!(f, ", and {gone} were overwritten, as was asked for") } else { Ok(()) }
    }
}

/// What is in a recording, counted window by window.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By the graph's place among the recording's.
    graphs: Vec<FoundOfGraph>,
    /// Replays of which the driver's profiling library was to see the nodes, and whether it alone was to see some.
    has_seen: bool,
    has_alone: bool,
    seen: u64,
    seen_invalid: u64,
    /// Nodes with times and without that the library saw, by the graph's number.
    seen_of: BTreeMap<u32, u64>,
    surplus: [u64; 2],
    orphans: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct FoundOfGraph {
    replays: u64,
    nodes: u64,
    invalid: u64,
    /// Those among the invalid that are of the activity.
    invalid_activity: u64,
}

impl Found {
    /// Adds a window, or a whole recording.
    pub(super) fn add(&mut self, recording: &Recording) {
        self.graphs.resize(recording.graphs.len(), FoundOfGraph::default());
        for replay in &recording.replays {
            let graph = &mut self.graphs[replay.graph];
            graph.replays += 1;
            graph.nodes += replay.nodes.len() as u64;
            graph.invalid += replay.invalid;
            graph.invalid_activity += if replay.is_activity_alone() { replay.invalid } else { 0 };
            if replay.record.sources.activity {
                self.has_seen = true;
                self.has_alone |= replay.is_activity_alone();
                self.seen = self.seen.saturating_add(replay.seen_nodes());
                self.seen_invalid = self.seen_invalid.saturating_add(replay.seen_invalid);
                let of_graph = self.seen_of.entry(replay.record.graph).or_default();
                *of_graph = sum([*of_graph, replay.seen_nodes(), replay.seen_invalid]);
            }
        }
        self.orphans = self.orphans.saturating_add(recording.orphans);
        for (own, more) in self.surplus.iter_mut().zip(recording.seen.surplus) {
            *own = own.saturating_add(more);
        }
    }
}

/// What is known of a whole recording beside that.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub(super) header: &'a SpoolHeader,
    pub(super) graphs: &'a [GraphTable],
    pub(super) closing: Option<&'a Closing>,
    pub(super) lost: Option<&'a Lost>,
    /// Node times without a replay that are in no window.
    pub(super) orphans: u64,
    /// Nodes of the profiling library that are of no replay, and copies of no call.
    pub(super) unresolved: u64,
    pub(super) unlaunched_copies: u64,
}

impl Completeness {
    /// Counts a recording's nodes and compares.
    pub fn of(recording: &Recording) -> Completeness {
        let mut found = Found::default();
        found.add(recording);
        Completeness::new(
            &found,
            &Whole {
                header: &recording.header,
                graphs: &recording.graphs,
                closing: recording.closing.as_ref(),
                lost: recording.lost.as_ref(),
                orphans: 0,
                unresolved: recording.seen.unresolved,
                unlaunched_copies: recording.seen.unlaunched_copies,
            },
        )
    }

    /// Compares what was found in all windows.
    pub(super) fn new(found: &Found, whole: &Whole<'_>) -> Completeness {
        let closing = whole.closing;
        let mut graphs = count_received(found, whole);
        if let Some(closing) = closing {
            merge_counts(&mut graphs, closing);
        }
        graphs.retain(|graph| {
            [graph.replays_received, graph.replays_overwritten] != [0; 2] || graph.replays_expected > Some(0)
        });
        let sum = |count: fn(&GraphCompleteness) -> u64| graphs.iter().map(count).fold(0, u64::saturating_add);
        let dropped_records = closing.map(|closing| closing.dropped).unwrap_or_default();
        // Of graphs that the recording does not describe, the recorder's sum is all that is known.
        let dropped_elsewhere = dropped_records.nodes.saturating_sub(sum(|graph| graph.dropped));
        let lost = whole.lost.cloned().unwrap_or_default();
        let overwritten = lost.overwritten.records;
        // What the recorder says of its graphs is what the oldest block in the file says of all of them.
        let by_graph = sum(|graph| graph.overwritten).saturating_sub(lost.trimmed.nodes);
        let unclear = if closing.is_some() { overwritten.nodes.abs_diff(by_graph) } else { 0 };
        let mut completeness = Completeness {
            complete: false,
            expected: closing.map(|_| sum(|graph| graph.expected.unwrap_or(0))),
            received: sum(|graph| graph.received),
            dropped: dropped_records.nodes,
            invalid: sum(|graph| graph.invalid),
            overwritten: overwritten.nodes,
            trimmed: lost.trimmed.nodes,
            missing: sum(GraphCompleteness::missing).saturating_sub(dropped_elsewhere).saturating_add(unclear),
            surplus: sum(GraphCompleteness::surplus).saturating_add(found.surplus[1]),
            truncated: closing.is_none(),
            limit_reached: closing.is_some_and(|closing| closing.limit_reached) || whole.lost.is_some(),
            keep: if whole.header.ring.is_some() { Keep::Last } else { Keep::First },
            overwritten_records: overwritten,
            whole_from_step: whole.lost.map(|lost| lost.overwritten.whole_from_step),
            dropped_records,
            orphans: found.orphans.saturating_add(whole.orphans),
            activity: ActivityCompleteness::of(found, whole),
            graphs,
        };
        completeness.complete = completeness.holds();
        completeness
    }

    fn holds(&self) -> bool {
        !self.truncated
            && self.expected == Some(sum([self.received, self.overwritten, self.trimmed]))
            && [self.invalid, self.missing, self.surplus, self.orphans, self.dropped_records.total()] == [0; 5]
            && self.activity.as_ref().is_none_or(|activity| !activity.alone || activity.unresolved == 0)
            && self.graphs.iter().all(|graph| graph.replays_expected == Some(graph.replays_found()))
    }
}

impl GraphCompleteness {
    fn found(&self) -> u64 {
        sum([self.received, self.dropped, self.invalid, self.overwritten])
    }

    fn replays_found(&self) -> u64 {
        self.replays_received.saturating_add(self.replays_overwritten)
    }

    fn missing(&self) -> u64 {
        self.expected.unwrap_or(0).saturating_sub(self.found())
    }

    fn surplus(&self) -> u64 {
        self.expected.map_or(0, |expected| self.found().saturating_sub(expected))
    }
}

impl ActivityCompleteness {
    /// `None` if the library was no source.
    fn of(found: &Found, whole: &Whole<'_>) -> Option<ActivityCompleteness> {
        let (sources, closing) = (&whole.header.session.sources, whole.closing);
        let counts = closing.and_then(|closing| closing.activity.clone());
        let expected_alone = closing.is_some_and(|closing| closing.expected.graphs.iter().any(|g| g.activity_only > 0));
        let is_source = sources.used.has_activity() || counts.is_some() || found.has_seen;
        if !is_source && whole.unresolved == 0 {
            return None;
        }
        let counts = counts.unwrap_or_default();
        let mut activity = ActivityCompleteness {
            library: sources.library.clone(),
            alone: expected_alone || found.has_alone,
            expected: closing.map(|closing| sum(closing.expected.graphs.iter().map(|graph| graph.activity))),
            received: found.seen,
            invalid: found.seen_invalid,
            surplus: sum(found.surplus),
            unresolved: whole.unresolved,
            unknown: counts.unknown,
            unlaunched_copies: whole.unlaunched_copies,
            dropped: counts.dropped,
            lost: counts.lost,
            given_up: counts.given_up,
            errors: counts.errors,
            ..ActivityCompleteness::default()
        };
        if let Some(closing) = closing {
            activity.compare(&found.seen_of, closing);
        }
        Some(activity)
    }

    /// What the engine counted, with what is there, graph by graph: one graph's surplus makes up for no other's
    /// shortfall.
    fn compare(&mut self, found: &BTreeMap<u32, u64>, closing: &Closing) {
        let mut expected: BTreeMap<u32, u64> = found.keys().map(|graph| (*graph, 0)).collect();
        for graph in &closing.expected.graphs {
            let sum = expected.entry(graph.graph).or_default();
            *sum = sum.saturating_add(graph.activity);
        }
        for (graph, expected) in expected {
            let found = found.get(&graph).copied().unwrap_or(0);
            self.missing = self.missing.saturating_add(expected.saturating_sub(found));
            self.surplus = self.surplus.saturating_add(found.saturating_sub(expected));
        }
        let amiss = [self.invalid, self.missing, self.surplus, self.unresolved, self.unknown, self.unlaunched_copies];
        self.complete = self.expected == Some(self.received) && amiss == [0; 6] && [self.dropped, self.lost] == [0; 2];
    }
}

fn count_received(found: &Found, whole: &Whole<'_>) -> Vec<GraphCompleteness> {
    let trimmed = |graph: u32| whole.lost.and_then(|lost| lost.trimmed_of.get(&graph));
    let counted = |(at, table): (usize, &GraphTable)| {
        let [replays_overwritten, overwritten] = trimmed(table.id).copied().unwrap_or_default();
        let found = found.graphs.get(at).copied().unwrap_or_default();
        GraphCompleteness {
            graph: table.id,
            key: Some(table.key),
            nodes_per_replay: table.nodes.len() as u64,
            replays_received: found.replays,
            received: found.nodes,
            invalid: found.invalid,
            overwritten,
            replays_overwritten,
            invalid_activity: found.invalid_activity,
            ..GraphCompleteness::default()
        }
    };
    whole.graphs.iter().enumerate().map(counted).collect()
}

fn merge_counts(graphs: &mut Vec<GraphCompleteness>, closing: &Closing) {
    for expected in &closing.expected.graphs {
        let at = graphs.iter().position(|graph| graph.graph == expected.graph).unwrap_or_else(|| {
            graphs.push(GraphCompleteness { graph: expected.graph, ..GraphCompleteness::default() });
            graphs.len() - 1
        });
        graphs[at].replays_expected = Some(expected.replays);
        graphs[at].expected = Some(expected.nodes);
    }
    for graph in graphs {
        // A graph that the engine did not count was not replayed.
        graph.replays_expected.get_or_insert(0);
        graph.expected.get_or_insert(0);
        if let Some(recorded) = closing.graphs.iter().find(|recorded| recorded.graph == graph.graph) {
            graph.dropped = recorded.dropped;
            graph.overwritten = graph.overwritten.saturating_add(recorded.overwritten);
            graph.replays_overwritten = graph.replays_overwritten.saturating_add(recorded.overwritten_replays);
            // Includes replays that came with a wrong number of times, which are not in the file.
            graph.invalid = graph.invalid_activity.saturating_add(recorded.invalid);
        }
    }
}

fn key_as_text<S: Serializer>(key: &Option<GraphKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(key),
        None => serializer.serialize_none(),
    }
}
