//! Captured graphs: a list of nodes with their kernels chosen, walked by all workers with a barrier after each.

use std::sync::Arc;

use super::stamps::WorkerStamp;
use crate::device::{GraphKey, NodeDelay, STEP_NODES_MAX, monotonic_ns};
use crate::kernels::cpu::{Choice, KernelFn, Worker};
use crate::kernels::{KernelParams, Node};
use crate::trace::schema::{GraphTable, NodeInfo};

/// A graph of the device.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) table: Arc<GraphTable>,
    pub(super) recording: Arc<Recording>,
}

/// What the workers walk.
#[derive(Debug)]
pub(super) struct Recording {
    nodes: Vec<RecordedNode>,
    /// Scratch memory: worker 0's, then worker 1's, …
    scratch: Scratch,
}

/// Scratch memory of all workers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scratch {
    pub(super) addr: u64,
    pub(super) bytes_per_worker: usize,
}

#[derive(Debug)]
struct RecordedNode {
    params: KernelParams,
    run: KernelFn,
    delay_micros: u32,
}

impl Graph {
    /// Records nodes with their choices. `scratch` is at least as large as every choice asks for.
    pub(super) fn record(
        id: u32,
        key: GraphKey,
        nodes: Vec<(Node, Choice)>,
        scratch: Scratch,
        delay: Option<NodeDelay>,
    ) -> Graph {
        assert!(nodes.len() <= STEP_NODES_MAX, "{key}: {} nodes, at most {STEP_NODES_MAX}", nodes.len());
        let recorded = |(node, choice): &(Node, Choice)| {
            assert!(choice.scratch_bytes <= scratch.bytes_per_worker, "{}: scratch memory is short", choice.name);
            let delay_micros = delay.filter(|delay| delay.place == node.place).map_or(0, |delay| delay.micros);
            RecordedNode { params: node.params, run: choice.run, delay_micros }
        };
        let recording = Arc::new(Recording { nodes: nodes.iter().map(recorded).collect(), scratch });
        let info = |(node, choice): (Node, Choice)| NodeInfo {
            kernel: choice.name,
            choice: choice.variant,
            barriers: choice.barriers,
            place: node.place,
            cost: node.cost,
            launch: None,
        };
        let table = GraphTable { id, key, nodes: nodes.into_iter().map(info).collect() };
        Graph { table: Arc::new(table), recording }
    }
}

impl Recording {
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Runs every node, on all workers at once; returns beyond the barrier at the end of the last one. With `STAMPED`,
    /// each node's stamp goes to `stamps`, the next one's behind it; the address after the last is returned.
    ///
    /// # Safety
    /// All workers of the pool are in this call with the same recording; the memory that its nodes name, and its
    /// scratch memory, is alive and in no one else's use. With `STAMPED`, `stamps` has room for every node.
    pub(super) unsafe fn run<const STAMPED: bool>(
        &self,
        worker: &Worker,
        mut stamps: *mut WorkerStamp,
    ) -> *mut WorkerStamp {
        let scratch = self.scratch.addr as *mut u8;
        worker.set_scratch(scratch.wrapping_add(worker.index() * self.scratch.bytes_per_worker));
        for node in &self.nodes {
            let start_ns = if STAMPED { monotonic_ns() } else { 0 };
            // SAFETY: the kernel was chosen for these parameters, whose memory this function's contract covers.
            unsafe { (node.run)(&node.params, worker) };
            if node.delay_micros > 0 && worker.index() == 0 {
                spin_for(node.delay_micros);
            }
            if STAMPED {
                // SAFETY: there is room for every node, and this row is this worker's.
                unsafe { stamps.write(WorkerStamp { start_ns, arrival_ns: monotonic_ns() }) };
                stamps = stamps.wrapping_add(1);
            }
            worker.barrier();
        }
        stamps
    }
}

/// The delay of a [`NodeDelay`]: worker 0 is that much later at the node's end.
#[cold]
fn spin_for(micros: u32) {
    let end_ns = monotonic_ns() + u64::from(micros) * 1_000;
    while monotonic_ns() < end_ns {
        std::hint::spin_loop();
    }
}
