//! Node times: each worker writes its own, and they become one [`NodeStamp`] per node after the step.
//!
//! Only a `profiling` build has any of this, and only traced steps read the clock: twice per node and worker, and
//! around the copies at both ends of the step, which are worker 0's.

use super::memory::Memory;
use crate::device::{DeviceError, STEP_NODES_MAX};
use crate::trace::schema::{CopyStamp, NodeStamp};

/// Whether this build can stamp nodes.
pub(super) const ENABLED: bool = crate::trace::record::ENABLED;

/// Stamps of a step's copies, before those of its nodes: the upload's, the download's.
pub(super) const COPIES: usize = 2;

const ROW_STAMPS: usize = COPIES + STEP_NODES_MAX;

/// When one worker ran one node, or made one copy.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct WorkerStamp {
    /// It began.
    pub(super) start_ns: u64,
    /// It arrived at the node's end barrier.
    pub(super) arrival_ns: u64,
}

impl WorkerStamp {
    pub(super) fn copied(self, bytes: usize) -> CopyStamp {
        CopyStamp { start_ns: self.start_ns, end_ns: self.arrival_ns, bytes: bytes as u64 }
    }
}

/// Stamps of the steps under way: (slots, workers, ROW_STAMPS), so that no two workers write one cache line.
#[derive(Debug)]
pub(super) struct StampTable {
    addr: u64,
    workers: usize,
}

impl StampTable {
    pub(super) fn new(memory: &mut Memory, slots: usize, workers: usize) -> Result<StampTable, DeviceError> {
        let rows = if ENABLED { slots * workers } else { 0 };
        let bytes = rows * ROW_STAMPS * size_of::<WorkerStamp>();
        Ok(StampTable { addr: memory.alloc(bytes, "node stamps")?.addr, workers })
    }

    /// Where a worker writes its stamps of the step in a slot: [`COPIES`], then one per node.
    pub(super) fn row(&self, slot: usize, worker: usize) -> *mut WorkerStamp {
        let row = slot * self.workers + worker;
        (self.addr as *mut WorkerStamp).wrapping_add(row * ROW_STAMPS)
    }

    /// Combines the workers' stamps of a step of so many nodes, and returns those of its copies.
    ///
    /// # Safety
    /// Every worker has written its stamps of these nodes, worker 0 those of the copies, and that is visible to this
    /// thread.
    pub(super) unsafe fn combine(&self, slot: usize, nodes: usize, out: &mut Vec<NodeStamp>) -> [WorkerStamp; COPIES] {
        assert!(ENABLED && nodes <= STEP_NODES_MAX, "{nodes} stamped nodes");
        out.extend((0..nodes).map(|node| {
            let of_workers = (0..self.workers).map(|worker| {
                // SAFETY: the row has room for STEP_NODES_MAX nodes, and by this function's contract no one writes it.
                unsafe { self.row(slot, worker).add(COPIES + node).read() }
            });
            combine_node(of_workers)
        }));
        // SAFETY: as above; every row begins with the copies.
        unsafe { self.row(slot, 0).cast::<[WorkerStamp; COPIES]>().read() }
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
