//! `cuda_gpu_trace`: every node and every copy in the order of time, in the columns of nsys, with what vitrum knows
//! besides behind them.

use super::durations::operation;
use super::nodes::layer_cell;
use crate::report::copies::{CopySlice, by_start};
use crate::report::layout::{CONTEXT, DEVICE, Layout, STREAM};
use crate::report::sheet::{Cell, Listing, Rows};
use crate::report::{NodeTime, Recording, Report};
use crate::trace::activity::CopyKind;
use crate::trace::schema::NodeInfo;

/// Bytes of a MB, which is nsys' unit.
const MB: f64 = 1e6;

const COLUMNS: [&str; 26] = [
    "Start (ns)",
    "Duration (ns)",
    "CorrId",
    "GrdX",
    "GrdY",
    "GrdZ",
    "BlkX",
    "BlkY",
    "BlkZ",
    "Reg/Trd",
    "StcSMem (MB)",
    "DymSMem (MB)",
    "Bytes (MB)",
    "Throughput (MB/s)",
    "SrcMemKd",
    "DstMemKd",
    "Device",
    "Ctx",
    "GreenCtx",
    "Strm",
    "Name",
    "Layer",
    "Op",
    "Step",
    "Graph",
    "Excl (ns)",
];

/// Rows are made one by one; begins are relative to the recording's.
pub(super) fn gpu_trace<'a>(name: &'static str, report: &'a Report) -> Listing<'a> {
    let recording = &report.recording;
    let (base_ns, _) = recording.span();
    let session = &recording.header.session;
    let device = format!("{} ({DEVICE})", session.device.name);
    let graphs: Vec<String> = recording.graphs.iter().map(|graph| graph.key.to_string()).collect();
    Listing {
        name,
        columns: COLUMNS.to_vec(),
        rows: Box::new(move || rows(recording, Frame { base_ns, device: device.clone(), graphs: graphs.clone() })),
    }
}

/// What rows have in common.
struct Frame {
    base_ns: u64,
    device: String,
    /// The graphs' names.
    graphs: Vec<String>,
}

fn rows(recording: &Recording, frame: Frame) -> Rows<'_> {
    let mut copies = by_start(recording, &Layout::alone(recording)).into_iter().peekable();
    let mut nodes = recording.nodes_by_start.iter().map(|at| &recording.nodes[*at as usize]).peekable();
    Box::new(std::iter::from_fn(move || {
        let node_ns = nodes.peek().map_or(u64::MAX, |node| node.start_ns);
        match copies.next_if(|copy| copy.start_ns <= node_ns) {
            Some(copy) => Some(copy_row(&copy, &frame)),
            None => nodes.next().map(|node| node_row(node, recording, &frame)),
        }
    }))
}

fn node_row(node: &NodeTime, recording: &Recording, frame: &Frame) -> Vec<Cell> {
    let (replay, info) = (&recording.replays[node.replay as usize], recording.info(node));
    let ns = node.end_ns - node.start_ns;
    let mut row = head(frame, node.start_ns, ns, replay.record.replay);
    row.extend(launch_cells(info));
    row.extend([const { Cell::Missing }; 4]);
    row.extend(place_cells(frame, &info.kernel));
    row.extend([
        layer_cell(info.place.layer),
        Cell::Text(info.place.op.as_str().into()),
        Cell::Int(replay.record.step),
        Cell::Text(frame.graphs[replay.graph].clone()),
        Cell::Int(node.excl_ns),
    ]);
    row
}

/// The memory of a copy's host side is not known: pinned or not.
fn copy_row(copy: &CopySlice, frame: &Frame) -> Vec<Cell> {
    let ns = copy.end_ns - copy.start_ns;
    let device = || Cell::Text("Device".into());
    let (source, target) = match copy.kind {
        CopyKind::HtoD => (Cell::Missing, device()),
        CopyKind::DtoH => (device(), Cell::Missing),
        CopyKind::DtoD => (device(), device()),
        // As nsys has it: what is filled stands where others have their source.
        CopyKind::Fill => (device(), Cell::Missing),
        CopyKind::Other => (Cell::Missing, Cell::Missing),
    };
    let mut row = head(frame, copy.start_ns, ns, copy.correlation);
    row.extend([const { Cell::Missing }; 9]);
    let throughput = (ns > 0).then(|| copy.bytes as f64 / ns as f64 * 1e9 / MB);
    row.extend([Cell::Real(copy.bytes as f64 / MB, 3), Cell::real(throughput, 3), source, target]);
    row.extend(place_cells(frame, operation(copy.kind)));
    row.extend([Cell::Missing, Cell::Missing, Cell::int(copy.step), Cell::Missing, Cell::Missing]);
    row
}

fn head(frame: &Frame, start_ns: u64, ns: u64, correlation: u64) -> Vec<Cell> {
    let mut row = Vec::with_capacity(COLUMNS.len());
    row.extend([Cell::Int(start_ns.saturating_sub(frame.base_ns)), Cell::Int(ns), Cell::Int(correlation)]);
    row
}

/// Grid, block, registers, shared memory; not known of a CPU's nodes.
fn launch_cells(info: &NodeInfo) -> [Cell; 9] {
    let Some(facts) = &info.launch else { return [const { Cell::Missing }; 9] };
    let int = |value: u32| Cell::Int(value.into());
    let mb = |bytes: u32| Cell::Real(f64::from(bytes) / MB, 3);
    let [[x, y, z], [block_x, block_y, block_z]] = [facts.grid.map(int), facts.block.map(int)];
    let [fixed, dynamic] = [facts.static_shared_bytes, facts.dynamic_shared_bytes].map(mb);
    [x, y, z, block_x, block_y, block_z, int(facts.registers), fixed, dynamic]
}

fn place_cells(frame: &Frame, name: &str) -> [Cell; 5] {
    // No green context.
    [Cell::Text(frame.device.clone()), Cell::Int(CONTEXT), Cell::Missing, Cell::Int(STREAM), Cell::Text(name.into())]
}
