//! Tables of node times against the device's roofs: by layer and op, by op, by layer.

use std::collections::{BTreeMap, HashMap};

use super::durations::Spread;
use super::{percent, sum};
use crate::report::sheet::Cell;
use crate::report::{NodeTime, Recording, Report, Sheet};
use crate::trace::schema::{LaunchFacts, Op};

/// What the nodes of one place, or of several, add up to.
#[derive(Clone, Debug, Default)]
pub(in crate::report) struct NodeSums {
    pub(in crate::report) count: u64,
    pub(in crate::report) excl_ns: u64,
    /// Each node's.
    all_excl_ns: Vec<u64>,
    pub(in crate::report) duration_ns: u64,
    pub(in crate::report) wait_ns: u64,
    /// Of nodes whose step's sizes are known, and their exclusive time.
    pub(in crate::report) bytes: f64,
    pub(in crate::report) flops: f64,
    pub(in crate::report) costed_ns: u64,
    /// The time that `bytes` take at the read peak of the level they come from; 0 without peaks.
    pub(in crate::report) roof_ns: f64,
    /// The least time of the same nodes by the higher of the two roofs, reading and arithmetic; 0 without peaks.
    pub(in crate::report) least_ns: f64,
    pub(in crate::report) from_cache: u64,
    pub(in crate::report) from_memory: u64,
}

impl NodeSums {
    /// Sums by layer and op.
    pub(in crate::report) fn by_place(recording: &Recording) -> BTreeMap<(i32, Op), NodeSums> {
        let step_bytes = bytes_by_step(recording);
        let mut sums: BTreeMap<(i32, Op), NodeSums> = BTreeMap::new();
        for node in &recording.nodes {
            let place = recording.info(node).place;
            sums.entry((place.layer, place.op)).or_default().add(recording, node, &step_bytes);
        }
        sums
    }

    fn add(&mut self, recording: &Recording, node: &NodeTime, step_bytes: &HashMap<u64, f64>) {
        self.count += 1;
        self.excl_ns += node.excl_ns;
        self.all_excl_ns.push(node.excl_ns);
        self.duration_ns = self.duration_ns.saturating_add(node.end_ns - node.start_ns);
        self.wait_ns = self.wait_ns.saturating_add(node.wait_ns);
        let number = recording.replays[node.replay as usize].record.step;
        let Some(step) = recording.step(number) else { return };
        let cost = &recording.info(node).cost;
        let (bytes, flops) = (cost.bytes.at(&step.sizes), cost.flops.at(&step.sizes));
        self.bytes += bytes;
        self.flops += flops;
        self.costed_ns += node.excl_ns;
        if let Some(peaks) = recording.header.session.peaks {
            let step_bytes = step_bytes.get(&number).copied().unwrap_or(f64::INFINITY);
            *(if peaks.is_cached(step_bytes) { &mut self.from_cache } else { &mut self.from_memory }) += 1;
            let by_peak = |amount: f64, peak: f64| if peak > 0.0 { amount / peak } else { 0.0 };
            let read_ns = by_peak(bytes, peaks.read_gb_s(step_bytes));
            self.roof_ns += read_ns;
            self.least_ns += read_ns.max(by_peak(flops, peaks.arithmetic_gop_s()));
        }
    }

    pub(in crate::report) fn merge(&mut self, other: &NodeSums) {
        self.count += other.count;
        self.excl_ns += other.excl_ns;
        self.all_excl_ns.extend_from_slice(&other.all_excl_ns);
        self.duration_ns = self.duration_ns.saturating_add(other.duration_ns);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
        self.bytes += other.bytes;
        self.flops += other.flops;
        self.costed_ns += other.costed_ns;
        self.roof_ns += other.roof_ns;
        self.least_ns += other.least_ns;
        self.from_cache += other.from_cache;
        self.from_memory += other.from_memory;
    }

    /// GB/s, which is bytes per nanosecond.
    pub(in crate::report) fn gb_s(&self) -> Option<f64> {
        (self.costed_ns > 0).then(|| self.bytes / self.costed_ns as f64)
    }

    pub(in crate::report) fn gflop_s(&self) -> Option<f64> {
        (self.costed_ns > 0).then(|| self.flops / self.costed_ns as f64)
    }

    /// Percent of the read peak.
    pub(in crate::report) fn read_peak_percent(&self) -> Option<f64> {
        percent(self.roof_ns, self.costed_ns as f64).filter(|_| self.roof_ns > 0.0)
    }

    pub(in crate::report) fn level(&self) -> Option<&'static str> {
        match (self.from_cache, self.from_memory) {
            (0, 0) => None,
            (0, _) => Some("memory"),
            (_, 0) => Some("cache"),
            _ => Some("both"),
        }
    }

    /// The exclusive times below which these shares of the nodes lie; `None` without nodes.
    pub(in crate::report) fn quantiles_ns<const N: usize>(&mut self, shares: [f64; N]) -> [Option<f64>; N] {
        self.all_excl_ns.sort_unstable();
        shares.map(|share| Spread::quantile(&self.all_excl_ns, share))
    }

    fn cells(&mut self, total_ns: u64, workers: u32) -> Vec<Cell> {
        let worker_ns = self.duration_ns as f64 * f64::from(workers.max(1));
        let [p50_ns, p99_ns] = self.quantiles_ns([0.5, 0.99]);
        vec![
            Cell::Int(self.count),
            Cell::Int(self.excl_ns),
            Cell::Real(self.excl_ns as f64 / self.count.max(1) as f64, 1),
            Cell::real(p50_ns, 1),
            Cell::real(p99_ns, 1),
            Cell::real(percent(self.excl_ns as f64, total_ns as f64), 1),
            Cell::real(self.gb_s(), 2),
            Cell::real(self.read_peak_percent(), 1),
            self.level().map_or(Cell::Missing, |level| Cell::Text(level.into())),
            Cell::real(self.gflop_s(), 2),
            Cell::real(percent(self.wait_ns as f64, worker_ns), 1),
        ]
    }
}

/// Least bytes that each step's recorded nodes move.
fn bytes_by_step(recording: &Recording) -> HashMap<u64, f64> {
    let mut bytes: HashMap<u64, f64> = HashMap::new();
    for replay in recording.replays.iter().filter(|replay| !replay.nodes.is_empty()) {
        if let Some(step) = recording.step(replay.record.step) {
            let nodes = &recording.graphs[replay.graph].nodes;
            *bytes.entry(step.step).or_default() +=
                nodes.iter().map(|node| node.cost.bytes.at(&step.sizes)).sum::<f64>();
        }
    }
    bytes
}

const SUM_COLUMNS: [&str; 11] = [
    "Count",
    "Total (ns)",
    "Avg (ns)",
    "P50 (ns)",
    "P99 (ns)",
    "Time (%)",
    "GB/s",
    "Read peak (%)",
    "Level",
    "GFLOP/s",
    "Wait (%)",
];

/// By layer and op, with what is known of their launches.
pub(super) fn node_sum(name: &'static str, report: &Report) -> Sheet {
    let sums = NodeSums::by_place(&report.recording);
    let places: Vec<(i32, Op)> = sums.keys().copied().collect();
    let keys = |(layer, op): (i32, Op)| vec![layer_cell(layer), Cell::Text(op.to_string())];
    let rows = sums.into_iter().map(|(place, sums)| (keys(place), sums)).collect();
    let launches = launches_by_place(&report.recording);
    let mut sheet = sum_sheet(name, vec!["Layer", "Op"], rows, report);
    sheet.columns.extend(["Reg/Trd", "StcSMem (B)", "DymSMem (B)"]);
    for (row, place) in sheet.rows.iter_mut().zip(&places) {
        let facts = launches.get(place).map_or(&[][..], Vec::as_slice);
        row.extend([
            range_cell(facts, |facts| facts.registers),
            range_cell(facts, |facts| facts.static_shared_bytes),
            range_cell(facts, |facts| facts.dynamic_shared_bytes),
        ]);
    }
    sheet
}

/// How a GPU launches the nodes of each place, in the graphs that were replayed.
fn launches_by_place(recording: &Recording) -> BTreeMap<(i32, Op), Vec<LaunchFacts>> {
    let mut is_replayed = vec![false; recording.graphs.len()];
    recording.replays.iter().for_each(|replay| is_replayed[replay.graph] = true);
    let mut launches: BTreeMap<(i32, Op), Vec<LaunchFacts>> = BTreeMap::new();
    let graphs = recording.graphs.iter().zip(is_replayed).filter(|(_, is_replayed)| *is_replayed);
    for node in graphs.flat_map(|(graph, _)| &graph.nodes) {
        launches.entry((node.place.layer, node.place.op)).or_default().extend(node.launch);
    }
    launches
}

/// One number, or the least and the largest where graphs differ.
fn range_cell(facts: &[LaunchFacts], number: fn(&LaunchFacts) -> u32) -> Cell {
    match (facts.iter().map(number).min(), facts.iter().map(number).max()) {
        (Some(least), Some(most)) if least < most => Cell::Text(format!("{least}-{most}")),
        (least, _) => Cell::int(least.map(u64::from)),
    }
}

/// By op.
pub(super) fn op_sum(name: &'static str, report: &Report) -> Sheet {
    let sums = merged(report, |(_, op)| op);
    let rows = sums.into_iter().map(|(op, sums)| (vec![Cell::Text(op.to_string())], sums)).collect();
    sum_sheet(name, vec!["Op"], rows, report)
}

/// By layer.
pub(super) fn layer_sum(name: &'static str, report: &Report) -> Sheet {
    let sums = merged(report, |(layer, _)| layer);
    let rows = sums.into_iter().map(|(layer, sums)| (vec![layer_cell(layer)], sums)).collect();
    sum_sheet(name, vec!["Layer"], rows, report)
}

/// Sums of places that have the same key.
pub(super) fn merged<K: Ord>(report: &Report, key: impl Fn((i32, Op)) -> K) -> BTreeMap<K, NodeSums> {
    let mut merged: BTreeMap<K, NodeSums> = BTreeMap::new();
    for (place, sums) in NodeSums::by_place(&report.recording) {
        merged.entry(key(place)).or_default().merge(&sums);
    }
    merged
}

/// Outside the layers there is no number.
pub(super) fn layer_cell(layer: i32) -> Cell {
    u64::try_from(layer).map_or(Cell::Missing, Cell::Int)
}

fn sum_sheet(name: &'static str, keys: Vec<&'static str>, rows: Vec<(Vec<Cell>, NodeSums)>, report: &Report) -> Sheet {
    let total_ns = sum(rows.iter().map(|(_, sums)| sums.excl_ns));
    let workers = report.recording.header.session.device.workers;
    let row = |(mut cells, mut sums): (Vec<Cell>, NodeSums)| {
        cells.extend(sums.cells(total_ns, workers));
        cells
    };
    let mut notes = vec!["Times are exclusive: what overlaps an earlier node counts once.".to_owned()];
    match report.recording.header.session.peaks {
        Some(peaks) if peaks.memory_gb_s > 0.0 => notes.push(format!(
            "Read peaks measured here: memory {:.1} GB/s, last-level cache {:.1} GB/s (steps of up to {} bytes).",
            peaks.memory_gb_s, peaks.cache_gb_s, peaks.cache_bytes
        )),
        _ => notes.push("The device's peaks were not measured.".to_owned()),
    }
    Sheet {
        name,
        columns: keys.into_iter().chain(SUM_COLUMNS).collect(),
        rows: rows.into_iter().map(row).collect(),
        notes,
    }
}
