//! The two sources of node times, side by side: what the graph's own stamps say, and the driver's profiling library.

use std::collections::BTreeMap;

use serde::Serialize;

use super::nodes::layer_cell;
use super::tally::Tally;
use crate::report::sheet::Cell;
use crate::report::{NodeTime, Recording, Report, SeenNode, Sheet};
use crate::trace::schema::{Op, Place};

/// Node times of replays that both sources timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SourceComparison {
    /// Nodes with a stamp.
    pub stamps: u64,
    /// Nodes that the library saw.
    pub activity: u64,
    /// Median over the nodes that have both of (begin by the library) − (begin by the stamp).
    pub start_difference_ns: Option<f64>,
    /// Median duration of the same nodes, by stamps.
    pub stamps_ns: Option<f64>,
    /// The same by the library.
    pub activity_ns: Option<f64>,
    /// Of these two medians, the library's over the stamps'.
    pub ratio: Option<f64>,
    /// Time during which an earlier node was still running, in all, by stamps.
    pub stamps_overlap_ns: u64,
    /// The same by the library.
    pub activity_overlap_ns: u64,
    /// Set where the times above are so many that they had to be rounded: to multiples of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded_to_ns: Option<u64>,
}

impl SourceComparison {
    /// Of the whole recording; `None` unless both sources timed some of its nodes.
    pub fn of(recording: &Recording) -> Option<SourceComparison> {
        let mut comparison = Comparison::default();
        comparison.add(recording, |_| ());
        comparison.end().remove(&())
    }

    fn cells(&self) -> [Cell; 8] {
        [
            Cell::Int(self.stamps),
            Cell::Int(self.activity),
            Cell::real(self.start_difference_ns, 1),
            Cell::real(self.stamps_ns, 1),
            Cell::real(self.activity_ns, 1),
            Cell::real(self.ratio, 3),
            Cell::Int(self.stamps_overlap_ns),
            Cell::Int(self.activity_overlap_ns),
        ]
    }
}

/// Both sources by layer and op.
pub(super) fn source_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let mut rows = Vec::new();
    let mut notes = vec!["Needs a recording of which both stamps and the driver's profiling library are sources."];
    if !recording.seen.nodes.is_empty() {
        let mut comparison = Comparison::default();
        comparison.add(recording, |place| (place.layer, place.op));
        let places = comparison.end();
        let row = |((layer, op), sums): ((i32, Op), SourceComparison)| {
            let place = [layer_cell(layer), Cell::Text(op.to_string())];
            place.into_iter().chain(sums.cells()).collect()
        };
        rows = places.into_iter().map(row).collect();
        notes = vec![
            "The same nodes by their own stamps and by the driver's profiling library (activity). A stamp is taken by \
             the node's threads, first to last; the library's time is the driver's, from launch to completion.",
            "Overlap is time during which an earlier node was still running. Where the stamps have more of it, nodes \
             began before the one ahead of them had ended, and the library took that away: either it does not show \
             such overlap, or nodes do not overlap while it records.",
        ];
    }
    Sheet {
        name,
        columns: vec![
            "Layer",
            "Op",
            "Count (stamps)",
            "Count (activity)",
            "Med start difference (ns)",
            "Med by stamps (ns)",
            "Med by activity (ns)",
            "Ratio",
            "Overlap by stamps (ns)",
            "Overlap by activity (ns)",
        ],
        rows,
        notes: notes.into_iter().map(str::to_owned).collect(),
    }
}

/// Compares nodes one by one, and sums up by what `K` says of their places.
#[derive(Debug)]
pub(in crate::report) struct Comparison<K> {
    sums: BTreeMap<K, Sums>,
    /// Begins, ends and places that the library saw and that were not looked at in the order of time yet.
    seen: Vec<(u64, u64, K)>,
    latest_end_ns: u64,
}

/// Of one place.
#[derive(Debug, Default)]
struct Sums {
    counts: SourceComparison,
    start_difference_ns: Tally,
    stamps_ns: Tally,
    activity_ns: Tally,
}

impl<K> Default for Comparison<K> {
    fn default() -> Comparison<K> {
        Comparison { sums: BTreeMap::new(), seen: Vec::new(), latest_end_ns: 0 }
    }
}

impl<K: Ord> Comparison<K> {
    /// Adds a whole recording.
    fn add(&mut self, recording: &Recording, key: impl Fn(Place) -> K) {
        // The nodes that a stamp has, of replays that both sources timed, with what the library saw of them.
        for replay in recording.replays.iter().filter(|replay| replay.has_both()) {
            for node in &recording.nodes[replay.nodes.clone()] {
                let place = recording.info(node).place;
                self.stamped(key(place), node, node.excl_ns, recording.seen.node(replay, node.ordinal));
            }
        }
        self.seen(recording, None, key);
    }

    /// A node by its stamp, with the part of it during which no other one was running, and what the library saw of it.
    pub(in crate::report) fn stamped(&mut self, key: K, node: &NodeTime, excl_ns: u64, seen: Option<&SeenNode>) {
        let sums = self.sums.entry(key).or_default();
        let ns = node.end_ns - node.start_ns;
        sums.counts.stamps += 1;
        sums.counts.stamps_overlap_ns = sums.counts.stamps_overlap_ns.saturating_add(ns - excl_ns);
        if let Some(seen) = seen {
            sums.start_difference_ns.add(i128::from(seen.start_ns) - i128::from(node.start_ns));
            sums.stamps_ns.add(ns.into());
            sums.activity_ns.add((seen.end_ns - seen.start_ns).into());
        }
    }

    /// What the library saw in a window, with the rule of [`NodeTime::excl_ns`]; up to where the next one begins.
    pub(in crate::report) fn seen(&mut self, recording: &Recording, until_ns: Option<u64>, key: impl Fn(Place) -> K) {
        self.seen.extend(recording.seen.nodes.iter().map(|node| {
            let graph = recording.replays[node.replay as usize].graph;
            (node.start_ns, node.end_ns, key(recording.graphs[graph].nodes[node.ordinal as usize].place))
        }));
        self.seen.sort_by_key(|(start_ns, ..)| *start_ns);
        let due = self.seen.partition_point(|(start_ns, ..)| until_ns.is_none_or(|until_ns| *start_ns < until_ns));
        for (start_ns, end_ns, key) in self.seen.drain(..due) {
            let counts = &mut self.sums.entry(key).or_default().counts;
            let overlap_ns = end_ns.min(self.latest_end_ns).saturating_sub(start_ns);
            counts.activity += 1;
            counts.activity_overlap_ns = counts.activity_overlap_ns.saturating_add(overlap_ns);
            self.latest_end_ns = self.latest_end_ns.max(end_ns);
        }
    }

    /// By place; nothing unless the library saw a node that has a stamp.
    pub(in crate::report) fn end(self) -> BTreeMap<K, SourceComparison> {
        let has_seen = self.sums.values().any(|sums| sums.counts.activity > 0);
        let compared = |(key, sums): (K, Sums)| {
            let [start_difference_ns, stamps_ns, activity_ns] =
                [&sums.start_difference_ns, &sums.stamps_ns, &sums.activity_ns].map(Tally::median);
            let ratio = activity_ns.zip(stamps_ns).map(|(activity, stamps)| activity / stamps);
            let ratio = ratio.filter(|ratio| ratio.is_finite());
            let grain = [&sums.start_difference_ns, &sums.stamps_ns, &sums.activity_ns].map(Tally::grain);
            let rounded_to_ns = grain.into_iter().max().filter(|grain| *grain > 1);
            let medians = SourceComparison { start_difference_ns, stamps_ns, activity_ns, ratio, ..sums.counts };
            (key, SourceComparison { rounded_to_ns, ..medians })
        };
        self.sums.into_iter().filter(|_| has_seen).map(compared).collect()
    }
}
