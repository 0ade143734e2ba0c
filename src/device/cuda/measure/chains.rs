//! Chains of nodes that compute nothing (csrc/probe.cu), one block each: captured, replayed, and timed by their stamps
//! and by the host.

use std::time::Instant;

use super::{Bench, Temporary, median};
use crate::device::DeviceError;
use crate::device::cuda::CudaError;
use crate::device::cuda::context::Context;
use crate::device::cuda::graph::{Executable, STAMP_BYTES, launch_with};
use crate::kernels::cuda::Launch;
use crate::kernels::params::{LaunchInfo, NodeProbeParams};
use crate::trace::record::ActivityLibrary;

pub(super) const PROBE: &str = "probe_node";

/// Nodes of a chain.
pub(super) const NODES: usize = 64;

pub(super) const THREADS: u32 = 256;

/// Cells of a node: its stamp, and when its first block entered it.
const CELLS: usize = 3;
const CELLS_BYTES: usize = CELLS * size_of::<u64>();

/// Room for the cells of one chain, which several may use in turn.
pub(super) fn cells(bench: &Bench<'_>) -> Result<Temporary, DeviceError> {
    Temporary::alloc(bench.context, NODES * CELLS_BYTES, "measuring nodes")
}

/// A captured chain.
pub(super) struct Chain {
    pub(super) executable: Executable,
}

/// How a chain is captured.
#[derive(Clone, Copy)]
pub(super) struct ChainOptions {
    /// How long each node stays.
    pub(super) spin_ns: u32,
    /// With programmatic edges, as the device's graphs are captured, where the GPU has them.
    pub(super) overlapping: bool,
    /// The profiling library, which its nodes are named to, and the number of the graph.
    pub(super) named: Option<(ActivityLibrary, u32)>,
}

/// A node's cells, told by the device's clock.
#[derive(Clone, Copy)]
pub(super) struct NodeCells {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) entry_ns: u64,
}

/// One replay.
pub(super) struct Replay {
    pub(super) nodes: Vec<NodeCells>,
    /// From before its launch until the host saw its end.
    pub(super) wall_ns: f64,
}

impl Chain {
    /// Captures a chain that writes these cells, which are to live longer.
    pub(super) fn capture(
        bench: &mut Bench<'_>,
        cells: &Temporary,
        options: ChainOptions,
    ) -> Result<Chain, DeviceError> {
        let ChainOptions { spin_ns, overlapping, named } = options;
        let launch = Launch::of(PROBE.into(), [1, 1, 1], THREADS);
        let function = bench.modules.function(&launch.kernel, 0)?;
        let context = bench.context;
        let executable = Executable::capture_named(context, NODES, named, |node| {
            let stamp = cells.addr + (node * CELLS_BYTES) as u64;
            let entry = stamp + STAMP_BYTES as u64;
            let (mut params, mut info) =
                (NodeProbeParams { entry: entry.into(), spin_ns, reserved: 0 }, LaunchInfo { stamp: stamp.into() });
            let mut arguments = [std::ptr::from_mut(&mut params).cast(), std::ptr::from_mut(&mut info).cast()];
            // SAFETY: the kernel takes these parameters; its cells live as long as the graph.
            unsafe { launch_with(context, function, &launch, &mut arguments, overlapping && node > 0) }
        })?;
        Ok(Chain { executable })
    }

    /// Replays it, with nothing under way, and waits for it.
    pub(super) fn replay(&self, context: &Context, cells: &Temporary) -> Result<Replay, CudaError> {
        cells.zero()?;
        context.synchronize()?;
        let begin = Instant::now();
        self.executable.launch()?;
        context.synchronize()?;
        let wall_ns = begin.elapsed().as_nanos() as f64;
        let numbers: [u64; NODES * CELLS] = cells.read(0)?;
        Ok(Replay { nodes: numbers.chunks_exact(CELLS).map(node_cells).collect(), wall_ns })
    }
}

impl Replay {
    /// From the first node's start to the last one's, for each node between.
    pub(super) fn boundary_ns(&self) -> f64 {
        self.over_nodes(|first, last| distance_ns(first.start_ns, last.start_ns), self.nodes.len() - 1)
    }

    /// From the first node's start to the last one's end, for each node.
    pub(super) fn node_ns(&self) -> f64 {
        self.over_nodes(|first, last| distance_ns(first.start_ns, last.end_ns), self.nodes.len())
    }

    fn over_nodes(&self, ns: impl Fn(&NodeCells, &NodeCells) -> f64, nodes: usize) -> f64 {
        let ends = self.nodes.first().zip(self.nodes.last());
        ends.map_or(0.0, |(first, last)| ns(first, last) / nodes.max(1) as f64)
    }
}

/// How long before the end of the node ahead the first block of a node begins: below zero, how long after it.
pub(super) fn overlap_ns(ahead: &NodeCells, node: &NodeCells) -> f64 {
    distance_ns(node.entry_ns, ahead.end_ns)
}

/// A distance between each node and the one ahead: the median.
pub(super) fn between<'a>(
    replays: impl IntoIterator<Item = &'a Replay>,
    distance: impl Fn(&NodeCells, &NodeCells) -> f64,
) -> f64 {
    let pairs = replays.into_iter().flat_map(|replay| replay.nodes.windows(2));
    median(pairs.map(|pair| distance(&pair[0], &pair[1])).collect())
}

fn node_cells(cells: &[u64]) -> NodeCells {
    NodeCells { start_ns: !cells[0], end_ns: cells[1], entry_ns: !cells[2] }
}

pub(super) fn distance_ns(from: u64, to: u64) -> f64 {
    to.wrapping_sub(from) as i64 as f64
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
        let replay = Replay { nodes, wall_ns: 500.0 };
        assert_eq!(replay.boundary_ns(), 103.0);
        assert_eq!(replay.node_ns(), (3.0 * 103.0 + 100.0) / 4.0);
        assert_eq!(between([&replay], |ahead, node| distance_ns(ahead.end_ns, node.start_ns)), 3.0);
        assert_eq!(between([&replay], overlap_ns), 5.0);
        assert_eq!(duration_ns([!1_000, 1_100]), Some(100));
        assert_eq!([duration_ns([0, 1_100]), duration_ns([!1_000, 0])], [None; 2], "half a stamp is none");
    }
}
