//! Node times: each worker writes its own, and they become one [`NodeStamp`] per node after the step.
//!
//! Only a `profiling` build has any of this, and only traced steps read the clock: twice per node and worker.

use super::memory::Memory;
use crate::device::{DeviceError, STEP_NODES_MAX};
use crate::trace::schema::NodeStamp;

/// Whether this build can stamp nodes.
pub(super) const ENABLED: bool = crate::trace::record::ENABLED;

/// When one worker ran one node.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct WorkerStamp {
    /// It began.
    pub(super) start_ns: u64,
    /// It arrived at the node's end barrier.
    pub(super) arrival_ns: u64,
}

/// Stamps of the steps under way: (slots, workers, STEP_NODES_MAX), so that no two workers write one cache line.
#[derive(Debug)]
pub(super) struct StampTable {
    addr: u64,
    workers: usize,
}

impl StampTable {
    pub(super) fn new(memory: &mut Memory, slots: usize, workers: usize) -> Result<StampTable, DeviceError> {
        let rows = if ENABLED { slots * workers } else { 0 };
        let bytes = rows * STEP_NODES_MAX * size_of::<WorkerStamp>();
        Ok(StampTable { addr: memory.alloc(bytes, "node stamps")?.addr, workers })
    }

    /// Where a worker writes its stamps of the step in a slot, one per node.
    pub(super) fn row(&self, slot: usize, worker: usize) -> *mut WorkerStamp {
        let row = slot * self.workers + worker;
        (self.addr as *mut WorkerStamp).wrapping_add(row * STEP_NODES_MAX)
    }

    /// Combines the workers' stamps of a step of so many nodes.
    ///
    /// # Safety
    /// Every worker has written its stamps of these nodes, and that is visible to this thread.
    pub(super) unsafe fn combine(&self, slot: usize, nodes: usize, out: &mut Vec<NodeStamp>) {
        assert!(ENABLED && nodes <= STEP_NODES_MAX, "{nodes} stamped nodes");
        out.extend((0..nodes).map(|node| {
            let of_workers = (0..self.workers).map(|worker| {
                // SAFETY: the row has STEP_NODES_MAX entries, and by this function's contract no one writes this one.
                unsafe { self.row(slot, worker).add(node).read() }
            });
            combine_node(of_workers)
        }));
    }
}

/// From the first worker's begin to the last one's arrival; the others waited for that one.
fn combine_node(of_workers: impl Iterator<Item = WorkerStamp> + Clone) -> NodeStamp {
    let start_ns = of_workers.clone().map(|stamp| stamp.start_ns).min().unwrap_or(0);
    let end_ns = of_workers.clone().map(|stamp| stamp.arrival_ns).max().unwrap_or(0);
    NodeStamp { start_ns, end_ns, wait_ns: of_workers.map(|stamp| end_ns - stamp.arrival_ns).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_lasts_from_the_first_begin_to_the_last_arrival() {
        let stamps =
            [(100, 180), (103, 170), (99, 200)].map(|(start_ns, arrival_ns)| WorkerStamp { start_ns, arrival_ns });
        let expected = NodeStamp { start_ns: 99, end_ns: 200, wait_ns: 20 + 30 };
        assert_eq!(combine_node(stamps.into_iter()), expected);
    }
}
