//! A device that records graphs and computes nothing, for tests of everything above it.
//!
//! It refuses what the CPU device refuses: addresses that it did not give out, too many steps, tickets out of order.
//! Every download is zero; every node of a traced step takes no time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffers::Buffers;
use super::tickets::Tickets;
use super::*;
use crate::kernels::params::ACTIVATIONS_F32;
use crate::trace::schema::{CopyStamp, NodeInfo};

/// The space between buffers: no address is in two of them, and one behind the end of a buffer is in none.
const BUFFER_GAP_BYTES: u64 = 64;

/// The null device.
#[derive(Debug)]
pub struct NullDevice {
    info: DeviceInfo,
    buffers: Buffers,
    next_addr: u64,
    graphs: Vec<Arc<GraphTable>>,
    tickets: Tickets,
    under_way: VecDeque<Step>,
    done: Vec<u8>,
    stamps: Vec<NodeStamp>,
}

/// What is kept of a step until it is waited for.
#[derive(Debug)]
struct Step {
    upload_bytes: usize,
    download_bytes: usize,
    nodes: usize,
    stamped: bool,
    submitted_ns: u64,
}

impl NullDevice {
    pub(super) fn open() -> NullDevice {
        NullDevice {
            info: DeviceInfo { name: "null".into(), kind: "null", isa: "none", workers: 0, memory_bytes: 1 << 30 },
            buffers: Buffers::default(),
            next_addr: BUFFER_GAP_BYTES,
            graphs: Vec::new(),
            tickets: Tickets::default(),
            under_way: VecDeque::with_capacity(STEPS_IN_FLIGHT),
            done: Vec::new(),
            stamps: Vec::new(),
        }
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        Ok(DevicePeaks::default())
    }

    /// An address of its own for each buffer, and no memory behind it.
    pub(super) fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        let addr = self.next_addr;
        let end = addr.checked_add(bytes as u64).and_then(|end| end.checked_next_multiple_of(BUFFER_GAP_BYTES));
        let next_addr = end.and_then(|end| end.checked_add(BUFFER_GAP_BYTES));
        let source = std::io::ErrorKind::OutOfMemory;
        self.next_addr = next_addr.ok_or(DeviceError::OutOfMemory { bytes, purpose, source: source.into() })?;
        let buffer = DeviceBuffer { addr, bytes };
        self.buffers.insert(buffer);
        Ok(buffer)
    }

    pub(super) fn upload(&mut self, to: &DeviceBuffer, offset: usize, data: &[u8]) {
        self.tickets.assert_idle("upload");
        self.buffers.assert_holds(to.addr + offset as u64, data.len(), "upload");
    }

    pub(super) fn download(&mut self, from: &DeviceBuffer, offset: usize, data: &mut [u8]) {
        self.tickets.assert_idle("download");
        self.buffers.assert_holds(from.addr + offset as u64, data.len(), "download");
        data.fill(0);
    }

    pub(super) fn pack(&mut self, source: &PackSource<'_>) -> Result<WeightRef, DeviceError> {
        let data = self.alloc(source.data.len(), "weights")?.addr.into();
        let (rows, cols) = (source.rows as u32, source.cols as u32);
        Ok(WeightRef { data, rows, cols, format: source.format as u32, activations: ACTIVATIONS_F32 })
    }

    /// It takes every node.
    pub(super) fn check(&self, _: GraphKey, _: &[Node]) -> Result<(), DeviceError> {
        Ok(())
    }

    pub(super) fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        let id = self.graphs.len() as u32 + 1;
        let info = |node: &Node| NodeInfo {
            kernel: "null".into(),
            choice: String::new(),
            barriers: 0,
            place: node.place,
            cost: node.cost,
            launch: None,
        };
        self.graphs.push(Arc::new(GraphTable { id, key, nodes: nodes.iter().map(info).collect() }));
        Ok(GraphId(id))
    }

    pub(super) fn graph(&self, id: GraphId) -> &Arc<GraphTable> {
        let at = (id.0 as usize).checked_sub(1);
        at.and_then(|at| self.graphs.get(at)).unwrap_or_else(|| panic!("graph {} was not captured here", id.0))
    }

    pub(super) fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        let nodes = submission.graphs.iter().map(|id| self.graph(*id).nodes.len()).sum();
        tickets::assert_within_limits(submission, nodes, &self.buffers);
        let ticket = self.tickets.take();
        let stamped = submission.sources.stamps && crate::trace::record::ENABLED;
        self.under_way.push_back(Step {
            download_bytes: submission.downloads.iter().map(|download| download.bytes).sum(),
            upload_bytes: submission.uploads.iter().map(|upload| upload.data.len()).sum(),
            nodes,
            stamped,
            submitted_ns: monotonic_ns(),
        });
        Ok(ticket)
    }

    pub(super) fn wait(&mut self, ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        self.tickets.give_back(&ticket);
        let step = self.under_way.pop_front().expect("a ticket is given back only for a step under way");
        self.done.clear();
        self.done.resize(step.download_bytes, 0);
        let (start_ns, end_ns) = (step.submitted_ns, step.submitted_ns);
        self.stamps.clear();
        self.stamps.resize(if step.stamped { step.nodes } else { 0 }, NodeStamp { start_ns, end_ns, wait_ns: 0 });
        let copy = |bytes| CopyStamp { start_ns, end_ns, bytes };
        let copies = StepCopies { upload: copy(step.upload_bytes as u64), download: copy(self.done.len() as u64) };
        let copies = if step.stamped { copies } else { StepCopies::default() };
        Ok(Completion { data: &self.done, stamps: &self.stamps, copies, launches: &[] })
    }
}
