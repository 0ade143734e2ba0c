//! What it costs to use the GPU: csrc/probe.cu, in graphs that compute nothing.

use super::{Bench, Temporary, median};
use crate::device::DeviceError;
use crate::device::cuda::CudaError;
use crate::device::cuda::graph::{Executable, STAMP_BYTES, launch_with};
use crate::device::cuda::launch::Launch;
use crate::device::params::{ClockStepParams, LaunchInfo, NodeProbeParams};

pub(super) const PROBE: &str = "probe_node";
pub(super) const CLOCK_STEP: &str = "probe_clock";

/// Reads of the clock: some milliseconds, in which a clock that ticks once in a microsecond has ticked often.
const CLOCK_READS: u32 = 100_000;

/// Nodes of a graph of empty nodes.
const NODES: usize = 64;

/// How long a node stays, so that one can be seen to begin beside it.
const SPIN_NS: u32 = 20_000;

/// Blocks of a multiprocessor of the grid that is large, and computes nothing.
const MANY_BLOCKS: u32 = 64;

const THREADS: u32 = 256;

/// Runs of which the median counts.
const SAMPLES: usize = 7;

/// Cells of a node: its stamp, and when its first block entered it.
const CELLS: usize = 3;
const CELLS_BYTES: usize = CELLS * size_of::<u64>();

/// What it costs to use the device, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overheads {
    /// The smallest step between two reads of the device's clock that differ.
    pub clock_step_ns: u64,
    /// Steps that were seen, in so many nanoseconds.
    pub clock_steps: u64,
    /// Nanoseconds in which they were seen.
    pub clock_seen_ns: u64,
    /// From one empty node of a graph to the next, each of one block, as graphs are captured: with programmatic edges.
    pub boundary_ns: f64,
    /// The same with full edges.
    pub boundary_full_ns: f64,
    /// How long before the end of the node ahead the first block of a node has begun, up to its wait: the medians of
    /// pairs of nodes that take 20 µs each. Below zero: how long after it.
    pub overlap_ns: f64,
    /// The same with full edges.
    pub overlap_full_ns: f64,
    /// From the end of a node to where the next one is behind its wait, with programmatic edges.
    pub gap_ns: f64,
    /// The same with full edges.
    pub gap_full_ns: f64,
    /// What a further block that computes nothing adds to a kernel, of the whole device.
    pub block_ns: f64,
    /// Blocks of the large grid by which that was measured.
    pub blocks: u32,
}

/// Cells of a node, told by the device's clock.
#[derive(Clone, Copy)]
struct NodeCells {
    start_ns: u64,
    end_ns: u64,
    entry_ns: u64,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Overheads, DeviceError> {
    let [clock_step_ns, clock_steps, clock_seen_ns] = clock_steps(bench)?;
    let cells = Temporary::alloc(bench.context, NODES * CELLS_BYTES, "measuring nodes")?;
    let has_edges = bench.context.gpu.has_programmatic_launch();
    let overlapping = |bench: &mut Bench<'_>, spin_ns| chain(bench, &cells, spin_ns, has_edges);
    let full = |bench: &mut Bench<'_>, spin_ns| chain(bench, &cells, spin_ns, false);
    let (empty, empty_full) = (overlapping(bench, 0)?, full(bench, 0)?);
    let (long, long_full) = (overlapping(bench, SPIN_NS)?, full(bench, SPIN_NS)?);
    let (block_ns, blocks) = block_ns(bench)?;
    Ok(Overheads {
        clock_step_ns,
        clock_steps,
        clock_seen_ns,
        boundary_ns: boundary_ns(&empty),
        boundary_full_ns: boundary_ns(&empty_full),
        overlap_ns: between(&long, |ahead, node| distance_ns(node.entry_ns, ahead.end_ns)),
        overlap_full_ns: between(&long_full, |ahead, node| distance_ns(node.entry_ns, ahead.end_ns)),
        gap_ns: between(&long, |ahead, node| distance_ns(ahead.end_ns, node.start_ns)),
        gap_full_ns: between(&long_full, |ahead, node| distance_ns(ahead.end_ns, node.start_ns)),
        block_ns,
        blocks,
    })
}

fn clock_steps(bench: &mut Bench<'_>) -> Result<[u64; 3], DeviceError> {
    let out = Temporary::alloc(bench.context, 3 * size_of::<u64>(), "measuring the clock")?;
    let launch = Launch::of(CLOCK_STEP.into(), [1, 1, 1], 1);
    // SAFETY: the kernel writes three numbers.
    unsafe { bench.duration_ns(&launch, ClockStepParams { out: out.addr, reads: CLOCK_READS, reserved: 0 })? };
    Ok(out.read(0)?)
}

/// Replays of a graph of nodes of one block each: the cells of every node, of every sample.
fn chain(
    bench: &mut Bench<'_>,
    cells: &Temporary,
    spin_ns: u32,
    overlapping: bool,
) -> Result<Vec<Vec<NodeCells>>, DeviceError> {
    let launch = Launch::of(PROBE.into(), [1, 1, 1], THREADS);
    let function = bench.modules.function(&launch.kernel, 0)?;
    let context = bench.context;
    let captured = Executable::capture(context, || {
        (0..NODES).try_for_each(|node| {
            let stamp = cells.addr + (node * CELLS_BYTES) as u64;
            let entry = stamp + STAMP_BYTES as u64;
            let (mut params, mut info) = (NodeProbeParams { entry, spin_ns, reserved: 0 }, LaunchInfo { stamp });
            let mut arguments = [std::ptr::from_mut(&mut params).cast(), std::ptr::from_mut(&mut info).cast()];
            // SAFETY: the kernel takes these parameters; its cells live as long as the graph.
            unsafe { launch_with(context, function, &launch, &mut arguments, overlapping && node > 0) }
        })
    })?;
    let mut samples = Vec::with_capacity(SAMPLES);
    // One more, which is not looked at: the first replay of a graph takes longer.
    for sample in 0..=SAMPLES {
        cells.zero()?;
        captured.launch()?;
        let numbers: [u64; NODES * CELLS] = cells.read(0)?;
        if sample > 0 {
            samples.push(numbers.chunks_exact(CELLS).map(node_cells).collect());
        }
    }
    Ok(samples)
}

fn node_cells(cells: &[u64]) -> NodeCells {
    NodeCells { start_ns: !cells[0], end_ns: cells[1], entry_ns: !cells[2] }
}

fn distance_ns(from: u64, to: u64) -> f64 {
    to.wrapping_sub(from) as i64 as f64
}

/// From node to node, of the median replay.
fn boundary_ns(samples: &[Vec<NodeCells>]) -> f64 {
    let of = |nodes: &Vec<NodeCells>| {
        let (first, last) = (nodes.first()?, nodes.last()?);
        Some(distance_ns(first.start_ns, last.start_ns) / (nodes.len() - 1) as f64)
    };
    median(samples.iter().filter_map(of).collect())
}

/// A distance between each node and the one ahead: the median.
fn between(samples: &[Vec<NodeCells>], distance: impl Fn(&NodeCells, &NodeCells) -> f64) -> f64 {
    median(samples.iter().flat_map(|nodes| nodes.windows(2)).map(|pair| distance(&pair[0], &pair[1])).collect())
}

/// What a further block costs, and how many there were.
fn block_ns(bench: &mut Bench<'_>) -> Result<(f64, u32), DeviceError> {
    let blocks = bench.context.gpu.multiprocessors * MANY_BLOCKS;
    let mut duration_of = |blocks: u32| -> Result<f64, CudaError> {
        let launch = Launch::of(PROBE.into(), [blocks, 1, 1], THREADS);
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            // SAFETY: the kernel writes nothing but its stamp.
            samples.push(unsafe { bench.duration_ns(&launch, NodeProbeParams::default())? } as f64);
        }
        Ok(median(samples))
    };
    let (one, many) = (duration_of(1)?, duration_of(blocks)?);
    Ok(((many - one) / f64::from(blocks - 1), blocks))
}

#[cfg(test)]
mod tests {
    use super::super::duration_ns;
    use super::*;

    #[test]
    fn distances_are_those_of_the_cells() {
        let node = |start: u64, end: u64, entry: u64| node_cells(&[!start, end, !entry]);
        // Each begins 5 ns before the one ahead has ended, and is behind its wait 3 ns after that.
        let nodes: Vec<NodeCells> = (0..4).map(|i| node(1_000 + 103 * i, 1_100 + 103 * i, 992 + 103 * i)).collect();
        let samples = [nodes];
        assert_eq!(boundary_ns(&samples), 103.0);
        assert_eq!(between(&samples, |ahead, node| distance_ns(ahead.end_ns, node.start_ns)), 3.0);
        assert_eq!(between(&samples, |ahead, node| distance_ns(node.entry_ns, ahead.end_ns)), 5.0);
        assert_eq!(duration_ns([!1_000, 1_100]), Some(100));
        assert_eq!([duration_ns([0, 1_100]), duration_ns([!1_000, 0])], [None; 2], "half a stamp is none");
    }
}
