//! The two sources of node times, side by side: what the graph's own stamps say, and the driver's profiling library.

use std::collections::BTreeMap;

use serde::Serialize;

use super::nodes::layer_cell;
use crate::report::perturbation::median;
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
}

impl SourceComparison {
    /// Of the whole recording; `None` unless both sources timed some of its nodes.
    pub fn of(recording: &Recording) -> Option<SourceComparison> {
        if recording.seen.nodes.is_empty() {
            return None;
        }
        compare(recording, |_| ()).remove(&())
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
        let places = compare(recording, |place| (place.layer, place.op));
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

/// The nodes that a stamp has, of replays that both sources timed, with what the library saw of them.
fn pairs(recording: &Recording) -> impl Iterator<Item = (&NodeTime, Option<&SeenNode>)> {
    let replays = recording.replays.iter().filter(|replay| replay.has_both());
    replays.flat_map(|replay| {
        let nodes = recording.nodes[replay.nodes.clone()].iter();
        nodes.map(|node| (node, recording.seen.node(replay, node.ordinal)))
    })
}

/// Compares node by node, and sums up by place.
fn compare<K: Ord>(recording: &Recording, key: impl Fn(Place) -> K) -> BTreeMap<K, SourceComparison> {
    let mut sums: BTreeMap<K, SourceComparison> = BTreeMap::new();
    for (node, _) in pairs(recording) {
        let sums = sums.entry(key(recording.info(node).place)).or_default();
        sums.stamps += 1;
        let overlap_ns = node.end_ns - node.start_ns - node.excl_ns;
        sums.stamps_overlap_ns = sums.stamps_overlap_ns.saturating_add(overlap_ns);
    }
    add_activity(recording, &key, &mut sums);
    // One after the other, because each holds a number for every node.
    let difference = |node: &NodeTime, seen: &SeenNode| i128::from(seen.start_ns) - i128::from(node.start_ns);
    for (key, median) in medians(recording, &key, difference) {
        sums.entry(key).or_default().start_difference_ns = Some(median);
    }
    for (key, median) in medians(recording, &key, |node, _| i128::from(node.end_ns - node.start_ns)) {
        sums.entry(key).or_default().stamps_ns = Some(median);
    }
    for (key, median) in medians(recording, &key, |_, seen| i128::from(seen.end_ns - seen.start_ns)) {
        sums.entry(key).or_default().activity_ns = Some(median);
    }
    for sums in sums.values_mut() {
        let ratio = sums.activity_ns.zip(sums.stamps_ns).map(|(activity, stamps)| activity / stamps);
        sums.ratio = ratio.filter(|ratio| ratio.is_finite());
    }
    sums
}

/// What the library saw, with the rule of [`NodeTime::excl_ns`].
fn add_activity<K: Ord>(recording: &Recording, key: impl Fn(Place) -> K, sums: &mut BTreeMap<K, SourceComparison>) {
    let nodes = &recording.seen.nodes;
    let mut by_start: Vec<u32> = (0..nodes.len() as u32).collect();
    by_start.sort_by_key(|at| nodes[*at as usize].start_ns);
    let mut latest_end_ns = 0;
    for at in by_start {
        let node = &nodes[at as usize];
        let graph = recording.replays[node.replay as usize].graph;
        let sums = sums.entry(key(recording.graphs[graph].nodes[node.ordinal as usize].place)).or_default();
        let overlap_ns = node.end_ns.min(latest_end_ns).saturating_sub(node.start_ns);
        sums.activity += 1;
        sums.activity_overlap_ns = sums.activity_overlap_ns.saturating_add(overlap_ns);
        latest_end_ns = latest_end_ns.max(node.end_ns);
    }
}

fn medians<K: Ord>(
    recording: &Recording,
    key: impl Fn(Place) -> K,
    value: impl Fn(&NodeTime, &SeenNode) -> i128,
) -> BTreeMap<K, f64> {
    let mut values: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    for (node, seen) in pairs(recording) {
        let Some(seen) = seen else { continue };
        values.entry(key(recording.info(node).place)).or_default().push(value(node, seen) as f64);
    }
    values.into_iter().map(|(key, mut values)| (key, median(&mut values))).collect()
}
