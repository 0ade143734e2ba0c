//! What the driver's profiling library said of replays of chains: which nodes, by which ids, and when.

use std::collections::{BTreeMap, BTreeSet};

use super::chains::{NODES, distance_ns};
use super::median;
use crate::trace::activity::{Watched, WatchedNode};
use crate::trace::record::KnownGraph;

/// Counts of the records of replays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Replays that there were.
    pub replays: u64,
    /// Nodes that ran in them.
    pub nodes: u64,
    /// Records of nodes.
    pub records: u64,
    /// Records whose node was found by the id that it has in the executable graph: that graph's id above the captured
    /// node's own.
    pub by_executable: u64,
    /// Records that name the captured node besides, and whose node was found by that.
    pub by_captured: u64,
    /// Records whose one id is that of the captured node.
    pub unchanged: u64,
    /// Records whose node was found by none of these.
    pub unfound: u64,
    /// Correlation ids with as many records as a replay has nodes.
    pub one_id_replays: u64,
    /// Those of them with one record of every node.
    pub whole_replays: u64,
    /// Those with one record of every node whose id is that of a call that launched a graph.
    pub called_replays: u64,
    /// Records without times.
    pub untimed: u64,
    /// Records that the library had no room for.
    pub dropped: u64,
}

/// Times by the records of a chain's replays, in nanoseconds: medians.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordTimes {
    /// Of a node, from its start to its end.
    pub node_ns: f64,
    /// How long before the end of the node ahead a node starts: below zero, how long after it.
    pub overlap_ns: f64,
}

impl RecordCounts {
    /// Adds those of other replays.
    pub fn add(&mut self, other: &RecordCounts) {
        let RecordCounts {
            replays,
            nodes,
            records,
            by_executable,
            by_captured,
            unchanged,
            unfound,
            one_id_replays,
            whole_replays,
            called_replays,
            untimed,
            dropped,
        } = self;
        *replays += other.replays;
        *nodes += other.nodes;
        *records += other.records;
        *by_executable += other.by_executable;
        *by_captured += other.by_captured;
        *unchanged += other.unchanged;
        *unfound += other.unfound;
        *one_id_replays += other.one_id_replays;
        *whole_replays += other.whole_replays;
        *called_replays += other.called_replays;
        *untimed += other.untimed;
        *dropped += other.dropped;
    }
}

/// A record, and by which ids its node was found: which graph of those given, and the ordinal in it.
struct Placed<'a> {
    record: &'a WatchedNode,
    by_executable: Option<(usize, u32)>,
    by_captured: Option<(usize, u32)>,
    unchanged: Option<(usize, u32)>,
}

impl Placed<'_> {
    fn place(&self) -> Option<(usize, u32)> {
        self.by_executable.or(self.by_captured).or(self.unchanged)
    }
}

fn placed<'a>(record: &'a WatchedNode, graphs: &[&KnownGraph]) -> Placed<'a> {
    let find = |id: Option<u64>, ordinal: fn(&KnownGraph, u64) -> Option<u32>| {
        let mut numbered = graphs.iter().enumerate();
        numbered.find_map(|(graph, known)| Some((graph, ordinal(known, id?)?)))
    };
    Placed {
        record,
        by_executable: find(Some(record.id), KnownGraph::in_executable),
        by_captured: find(record.source, KnownGraph::at_capture),
        unchanged: find(Some(record.id), KnownGraph::at_capture),
    }
}

/// What was seen of so many replays of these chains: counts of all, times by the records of each.
pub(super) fn examine(watched: &Watched, graphs: &[&KnownGraph], replays: u64) -> (RecordCounts, Vec<RecordTimes>) {
    let all: Vec<Placed<'_>> = watched.nodes.iter().map(|record| placed(record, graphs)).collect();
    let of = |is_it: fn(&Placed<'_>) -> bool| all.iter().filter(|placed| is_it(placed)).count() as u64;
    let mut counts = RecordCounts {
        replays,
        nodes: replays * NODES as u64,
        records: all.len() as u64,
        by_executable: of(|placed| placed.by_executable.is_some()),
        by_captured: of(|placed| placed.by_captured.is_some()),
        unchanged: of(|placed| placed.unchanged.is_some()),
        unfound: of(|placed| placed.place().is_none()),
        untimed: of(|placed| !placed.record.is_valid()),
        dropped: watched.dropped,
        ..RecordCounts::default()
    };
    let mut by_launch = BTreeMap::<u32, Vec<&Placed<'_>>>::new();
    for placed in &all {
        by_launch.entry(placed.record.correlation).or_default().push(placed);
    }
    let mut times = vec![(Vec::new(), Vec::new()); graphs.len()];
    for (correlation, mut replay) in by_launch {
        counts.one_id_replays += u64::from(replay.len() == NODES);
        let Some(graph) = whole(&replay) else { continue };
        counts.whole_replays += 1;
        counts.called_replays += u64::from(watched.launches.contains(&correlation));
        replay.sort_by_key(|placed| placed.place());
        let (nodes_ns, overlaps_ns) = &mut times[graph];
        let timed = |placed: &&Placed<'_>| placed.record.is_valid();
        nodes_ns.extend(
            replay.iter().copied().filter(timed).map(|node| distance_ns(node.record.start_ns, node.record.end_ns)),
        );
        let pairs = replay.windows(2).filter(|pair| pair.iter().all(timed));
        overlaps_ns.extend(pairs.map(|pair| distance_ns(pair[1].record.start_ns, pair[0].record.end_ns)));
    }
    let times = times
        .into_iter()
        .map(|(nodes_ns, overlaps_ns)| RecordTimes { node_ns: median(nodes_ns), overlap_ns: median(overlaps_ns) });
    (counts, times.collect())
}

/// The graph of which these records are one replay: one of every node, and no other.
fn whole(replay: &[&Placed<'_>]) -> Option<usize> {
    let places: BTreeSet<_> = replay.iter().filter_map(|placed| placed.place()).collect();
    let (first, last) = (places.first()?.0, places.last()?.0);
    (replay.len() == NODES && places.len() == NODES && first == last).then_some(first)
}
