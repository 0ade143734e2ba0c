//! Nodes by place, that is by layer and op: the numbers of table `node_sum`, and what is above the roofs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::Report;
use crate::report::stats::nodes::NodeSums;
use crate::trace::schema::Op;

/// A place whose nodes were timed.
#[derive(Debug, Serialize)]
pub(super) struct PlaceSums {
    /// `None` outside the layers.
    layer: Option<u64>,
    op: Op,
    count: u64,
    /// Exclusive: what overlaps an earlier node counts once.
    total_ns: u64,
    /// Of the exclusive times.
    p50_ns: Option<f64>,
    p99_ns: Option<f64>,
    /// Least bytes and operations of nodes whose step's sizes are known, and their exclusive time.
    bytes: f64,
    flops: f64,
    costed_ns: u64,
    gb_s: Option<f64>,
    gflop_s: Option<f64>,
    read_peak_percent: Option<f64>,
    level: Option<&'static str>,
    /// What they take above the least time by the device's roofs; `None` where these were not measured.
    above_roof_ns: Option<f64>,
    /// Of the workers' time.
    wait_percent: Option<f64>,
}

/// What nodes are: places and kernels, and which of them each node of each graph is.
#[derive(Debug, Serialize)]
pub(super) struct Places<'a> {
    pub(super) places: Vec<PlaceSums>,
    pub(super) kernels: Vec<&'a str>,
    pub(super) graphs: Vec<Graph>,
}

/// A graph's nodes by ordinal.
#[derive(Debug, Serialize)]
pub(super) struct Graph {
    name: String,
    /// Indices of the places; −1 for a node that no time is there of.
    places: Vec<i64>,
    /// Indices of the kernels.
    kernels: Vec<usize>,
}

impl Places<'_> {
    pub(super) fn of(report: &Report) -> Places<'_> {
        let recording = &report.recording;
        let sums = NodeSums::by_place(recording);
        let index: BTreeMap<(i32, Op), usize> = sums.keys().enumerate().map(|(at, place)| (*place, at)).collect();
        let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
        let mut names = Vec::new();
        let mut kernel = |name| {
            *kernels.entry(name).or_insert_with(|| {
                names.push(name);
                names.len() - 1
            })
        };
        let graphs: Vec<Graph> = recording
            .graphs
            .iter()
            .map(|graph| Graph {
                name: graph.key.to_string(),
                places: graph
                    .nodes
                    .iter()
                    .map(|node| index.get(&(node.place.layer, node.place.op)).map_or(-1, |at| *at as i64))
                    .collect(),
                kernels: graph.nodes.iter().map(|node| kernel(node.kernel.as_str())).collect(),
            })
            .collect();
        let workers = recording.header.session.device.workers;
        let places = sums.into_iter().map(|(of, sums)| place(of, sums, workers)).collect();
        Places { places, kernels: names, graphs }
    }
}

fn place((layer, op): (i32, Op), mut sums: NodeSums, workers: u32) -> PlaceSums {
    let [p50_ns, p99_ns] = sums.quantiles_ns([0.5, 0.99]);
    let worker_ns = sums.duration_ns as f64 * f64::from(workers.max(1));
    PlaceSums {
        layer: u64::try_from(layer).ok(),
        op,
        count: sums.count,
        total_ns: sums.excl_ns,
        p50_ns,
        p99_ns,
        bytes: sums.bytes,
        flops: sums.flops,
        costed_ns: sums.costed_ns,
        gb_s: finite(sums.gb_s()),
        gflop_s: finite(sums.gflop_s()),
        read_peak_percent: finite(sums.read_peak_percent()),
        level: sums.level(),
        above_roof_ns: finite(Some(sums.costed_ns as f64 - sums.least_ns)).filter(|_| sums.least_ns > 0.0),
        wait_percent: finite(Some(100.0 * sums.wait_ns as f64 / worker_ns)),
    }
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}
