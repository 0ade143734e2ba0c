//! Is every node time there? Expected comes from the engine's own count in the closing block, received from counting
//! what is in the file; the recorder only says what it left out, and why.

use std::fmt;

use serde::{Serialize, Serializer};

use super::model::Recording;
use crate::trace::schema::GraphKey;
use crate::trace::session::{Closing, Counts};

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
    /// Expected, and neither received nor dropped nor invalid.
    pub missing: u64,
    /// More than expected.
    pub surplus: u64,
    /// The recording was cut off: the engine's count is not in it.
    pub truncated: bool,
    /// The recording's file was full, so what came later was left out.
    pub limit_reached: bool,
    /// Records of every kind that the recorder left out.
    pub dropped_records: Counts,
    /// Records in the file that refer to something which is not in it.
    pub orphans: u64,
    /// Graph by graph.
    pub graphs: Vec<GraphCompleteness>,
}

/// Node times of one graph, expected and found.
#[derive(Clone, Debug, Serialize)]
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
}

impl fmt::Display for Completeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.received;
        match self.expected {
            _ if self.complete => write!(f, "the recording is complete: {received} node times"),
            Some(expected) => write!(f, "the recording is incomplete: {received} of {expected} node times"),
            None => write!(f, "the recording was cut off: {received} node times, and not how many there should be"),
        }
    }
}

impl Completeness {
    /// Counts a recording's nodes and compares.
    pub fn of(recording: &Recording) -> Completeness {
        let closing = recording.closing.as_ref();
        let mut graphs = count_received(recording);
        if let Some(closing) = closing {
            merge_counts(&mut graphs, closing);
        }
        graphs.retain(|graph| graph.replays_received > 0 || graph.replays_expected > Some(0));
        let sum = |count: fn(&GraphCompleteness) -> u64| graphs.iter().map(count).fold(0, u64::saturating_add);
        let dropped_records = closing.map(|closing| closing.dropped).unwrap_or_default();
        // Of graphs that the recording does not describe, the recorder's sum is all that is known.
        let dropped_elsewhere = dropped_records.nodes.saturating_sub(sum(|graph| graph.dropped));
        let mut completeness = Completeness {
            complete: false,
            expected: closing.map(|_| sum(|graph| graph.expected.unwrap_or(0))),
            received: sum(|graph| graph.received),
            dropped: dropped_records.nodes,
            invalid: sum(|graph| graph.invalid),
            missing: sum(GraphCompleteness::missing).saturating_sub(dropped_elsewhere),
            surplus: sum(GraphCompleteness::surplus),
            truncated: closing.is_none(),
            limit_reached: closing.is_some_and(|closing| closing.limit_reached),
            dropped_records,
            orphans: recording.orphans,
            graphs,
        };
        completeness.complete = completeness.holds();
        completeness
    }

    fn holds(&self) -> bool {
        !self.truncated
            && self.expected == Some(self.received)
            && [self.invalid, self.missing, self.surplus, self.orphans, self.dropped_records.total()] == [0; 5]
            && self.graphs.iter().all(|graph| graph.replays_expected == Some(graph.replays_received))
    }
}

impl GraphCompleteness {
    fn found(&self) -> u64 {
        self.received.saturating_add(self.dropped).saturating_add(self.invalid)
    }

    fn missing(&self) -> u64 {
        self.expected.unwrap_or(0).saturating_sub(self.found())
    }

    fn surplus(&self) -> u64 {
        self.expected.map_or(0, |expected| self.found().saturating_sub(expected))
    }
}

fn count_received(recording: &Recording) -> Vec<GraphCompleteness> {
    let counted = |table: &crate::trace::schema::GraphTable| GraphCompleteness {
        graph: table.id,
        key: Some(table.key),
        nodes_per_replay: table.nodes.len() as u64,
        replays_expected: None,
        replays_received: 0,
        expected: None,
        received: 0,
        dropped: 0,
        invalid: 0,
    };
    let mut graphs: Vec<GraphCompleteness> = recording.graphs.iter().map(counted).collect();
    for replay in &recording.replays {
        let graph = &mut graphs[replay.graph];
        graph.replays_received += 1;
        graph.received += replay.nodes.len() as u64;
        graph.invalid += replay.invalid;
    }
    graphs
}

fn merge_counts(graphs: &mut Vec<GraphCompleteness>, closing: &Closing) {
    for expected in &closing.expected.graphs {
        let at = graphs.iter().position(|graph| graph.graph == expected.graph).unwrap_or_else(|| {
            graphs.push(GraphCompleteness {
                graph: expected.graph,
                key: None,
                nodes_per_replay: 0,
                replays_expected: None,
                replays_received: 0,
                expected: None,
                received: 0,
                dropped: 0,
                invalid: 0,
            });
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
            // Includes replays that came with a wrong number of times, which are not in the file.
            graph.invalid = recorded.invalid;
        }
    }
}

fn key_as_text<S: Serializer>(key: &Option<GraphKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(key),
        None => serializer.serialize_none(),
    }
}
