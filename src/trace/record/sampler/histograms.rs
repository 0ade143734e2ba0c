//! The times of one graph: a histogram for each of its nodes, and one for all of it.
//!
//! The engine's thread enters times, others read: a lock for each graph, which the engine's thread never waits for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use hdrhistogram::Histogram;

use crate::trace::sample::{By, GraphSample, SampleRow, Times};
use crate::trace::schema::{GraphTable, LinearCost, NodeInfo, NodeStamp, StepSizes};
use crate::trace::session::SessionPeaks;

/// Times are told apart from so many nanoseconds on, and to two digits from a hundred times that on.
const TIME_NS_LEAST: u64 = 16;
/// What is longer counts as this long.
const TIME_NS_MOST: u64 = 1_000_000_000;
const DIGITS: u8 = 2;

/// A graph that is sampled.
#[derive(Debug)]
pub(super) struct SampledGraph {
    pub(super) table: GraphTable,
    /// Of all its nodes.
    pub(super) bytes: LinearCost,
    times: Mutex<GraphTimes>,
}

/// What was sampled of a graph.
#[derive(Debug)]
pub(super) struct GraphTimes {
    replays: u64,
    /// Sizes of the steps, summed: costs are linear in them.
    sizes: StepSizes,
    /// Bytes that the steps moved, with their other graph's, summed.
    step_bytes: f64,
    whole: NodeTimes,
    nodes: Vec<NodeTimes>,
}

/// Times of one thing.
#[derive(Clone, Debug)]
struct NodeTimes {
    histogram: Histogram<u32>,
    sum_ns: u64,
    max_ns: u64,
}

impl SampledGraph {
    /// Allocates all that it will ever need.
    pub(super) fn new(table: &GraphTable) -> SampledGraph {
        let times = GraphTimes {
            replays: 0,
            sizes: StepSizes::default(),
            step_bytes: 0.0,
            whole: NodeTimes::new(),
            nodes: vec![NodeTimes::new(); table.nodes.len()],
        };
        let bytes = table.nodes.iter().map(|node| node.cost.bytes).sum();
        SampledGraph { table: table.clone(), bytes, times: Mutex::new(times) }
    }

    /// Its times, unless somebody else has them.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, GraphTimes>> {
        match self.times.try_lock() {
            Ok(times) => Some(times),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()), // counts are counts
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Its times, for whoever may wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, GraphTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was sampled of it.
    pub(super) fn read(&self, by: By, peaks: Option<&SessionPeaks>) -> GraphSample {
        let times = self.lock();
        let peak_gb_s = peaks.and_then(|peaks| times.peak_gb_s(peaks));
        let mut rows: BTreeMap<(i64, usize), Group> = BTreeMap::new();
        for (ordinal, (info, node)) in self.table.nodes.iter().zip(&times.nodes).enumerate() {
            let key = match by {
                By::Node => (0, ordinal),
                By::Layer => (i64::from(info.place.layer), 0),
                By::Op => (info.place.op as i64, 0),
            };
            let bytes = times.bytes_per_replay(&info.cost.bytes);
            rows.entry(key).or_insert_with(|| Group::new(ordinal as u32, info)).add(node, bytes);
        }
        GraphSample {
            graph: self.table.key,
            replays: times.replays,
            times: times.whole.times(),
            nodes: rows.into_values().map(|group| group.row(by, peak_gb_s)).collect(),
        }
    }
}

impl GraphTimes {
    /// A replay of a step of these sizes, which moved so many bytes in all.
    pub(super) fn replay(&mut self, sizes: &StepSizes, step_bytes: f64, whole: &NodeStamp) {
        self.replays += 1;
        self.sizes.add_saturating(sizes);
        self.step_bytes += step_bytes;
        self.whole.add(whole.end_ns - whole.start_ns);
    }

    /// How long a node took, of the replay before.
    pub(super) fn node(&mut self, ordinal: usize, excl_ns: u64) {
        self.nodes[ordinal].add(excl_ns);
    }

    pub(super) fn reset(&mut self) {
        (self.replays, self.sizes, self.step_bytes) = (0, StepSizes::default(), 0.0);
        self.whole.reset();
        self.nodes.iter_mut().for_each(NodeTimes::reset);
    }

    /// The mean over the sampled replays.
    fn bytes_per_replay(&self, cost: &LinearCost) -> f64 {
        let replays = self.replays as f64;
        if self.replays == 0 { 0.0 } else { (cost.at(&self.sizes) + cost.constant * (replays - 1.0)) / replays }
    }

    /// Of the level that holds what a step moves, in the mean over the sampled replays.
    fn peak_gb_s(&self, peaks: &SessionPeaks) -> Option<f64> {
        let peak_gb_s = peaks.read_gb_s(self.step_bytes / self.replays.max(1) as f64);
        (peak_gb_s > 0.0).then_some(peak_gb_s)
    }
}

impl NodeTimes {
    fn new() -> NodeTimes {
        let histogram = Histogram::new_with_bounds(TIME_NS_LEAST, TIME_NS_MOST, DIGITS);
        NodeTimes { histogram: histogram.expect("the bounds are in order"), sum_ns: 0, max_ns: 0 }
    }

    fn add(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    fn merge(&mut self, other: &NodeTimes) {
        self.histogram.add(&other.histogram).expect("the bounds are the same");
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn reset(&mut self) {
        self.histogram.reset();
        (self.sum_ns, self.max_ns) = (0, 0);
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        let histogram = &self.histogram;
        // The middle of the bucket: half of its width is the most that it is wrong by.
        let ns = histogram.median_equivalent(histogram.value_at_quantile(quantile));
        if histogram.is_empty() { 0.0 } else { ns.min(self.max_ns) as f64 / 1e3 }
    }

    fn times(&self) -> Times {
        Times {
            mean_us: self.sum_ns as f64 / self.histogram.len().max(1) as f64 / 1e3,
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            max_us: self.max_ns as f64 / 1e3,
        }
    }
}

/// Nodes of one row.
struct Group {
    /// The first of them.
    ordinal: u32,
    info: NodeInfo,
    nodes: u32,
    times: NodeTimes,
    /// Of a replay.
    bytes: f64,
    replay_us: f64,
}

impl Group {
    fn new(ordinal: u32, info: &NodeInfo) -> Group {
        Group { ordinal, info: info.clone(), nodes: 0, times: NodeTimes::new(), bytes: 0.0, replay_us: 0.0 }
    }

    fn add(&mut self, node: &NodeTimes, bytes: f64) {
        self.nodes += 1;
        self.times.merge(node);
        self.bytes += bytes;
        self.replay_us += node.quantile_us(0.5);
    }

    fn row(self, by: By, peak_gb_s: Option<f64>) -> SampleRow {
        let place = self.info.place;
        // Bytes per nanosecond are GB/s.
        let gb_s = (self.replay_us > 0.0).then(|| self.bytes / (self.replay_us * 1e3));
        SampleRow {
            ordinal: (by == By::Node).then_some(self.ordinal),
            layer: (by != By::Op).then_some(place.layer),
            op: (by != By::Layer).then_some(place.op),
            kernel: (by == By::Node).then_some(self.info.kernel),
            nodes: self.nodes,
            count: self.times.histogram.len(),
            times: self.times.times(),
            replay_us: self.replay_us,
            gb_s,
            read_peak_percent: gb_s.zip(peak_gb_s).map(|(gb_s, peak)| 100.0 * gb_s / peak),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::record::mix;

    fn near(found_us: f64, exact_ns: u64) {
        let exact_us = exact_ns as f64 / 1e3;
        let error = (found_us - exact_us).abs();
        assert!(error <= (0.01 * exact_us).max(TIME_NS_LEAST as f64 / 1e3), "{found_us} µs is not {exact_us}");
    }

    #[test]
    fn numbers_are_those_of_sorted_values_within_a_hundredth() {
        // From 20 ns to 0.7 s, evenly over the magnitudes; and all alike; and one.
        let spread = |i: u64| (20.0 * 35_000_000_f64.powf((mix(i) >> 11) as f64 / (1_u64 << 53) as f64)) as u64;
        let sets: [Vec<u64>; 3] = [(0..5000).map(spread).collect(), vec![123_457; 100], vec![1]];
        for mut values in sets {
            let mut times = NodeTimes::new();
            values.iter().for_each(|ns| times.add(*ns));
            values.sort_unstable();
            let found = times.times();
            let at = |quantile: f64| values[((values.len() as f64 * quantile).ceil() as usize).max(1) - 1];
            near(found.p50_us, at(0.5));
            near(found.p90_us, at(0.9));
            near(found.p99_us, at(0.99));
            let mean_us = values.iter().sum::<u64>() as f64 / values.len() as f64 / 1e3;
            assert!((found.mean_us - mean_us).abs() <= 1e-9 * mean_us, "the mean is exact");
            assert_eq!(found.max_us, *values.last().unwrap() as f64 / 1e3, "the longest is exact");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_is_kept_at_them() {
        let mut times = NodeTimes::new();
        [0, u64::MAX, u64::MAX].into_iter().for_each(|ns| times.add(ns));
        assert_eq!(times.histogram.len(), 3);
        let found = times.times();
        assert!((0.99e6..1.01e6).contains(&found.p50_us), "{found:?}");
        assert_eq!(found.max_us, u64::MAX as f64 / 1e3);
        times.reset();
        assert_eq!(times.times(), Times::default());
    }

    #[test]
    fn memory_is_bounded() {
        let times = NodeTimes::new();
        assert_eq!(times.histogram.distinct_values(), 2560, "of 4 bytes");
        assert!(!times.histogram.is_auto_resize());
    }
}
