//! A device that records graphs and computes nothing, for tests of everything above it.

use super::*;
use crate::trace::schema::NodeInfo;

/// The null device.
#[derive(Debug)]
pub struct NullDevice {
    info: DeviceInfo,
    memory: Vec<Box<[u64]>>,
    graphs: Vec<GraphTable>,
    done: Vec<u8>,
    tickets: u64,
}

impl NullDevice {
    pub(super) fn open() -> NullDevice {
        NullDevice {
            info: DeviceInfo { name: "null".into(), kind: "null", isa: "none", workers: 0, memory_bytes: 1 << 30 },
            memory: Vec::new(),
            graphs: Vec::new(),
            done: Vec::new(),
            tickets: 0,
        }
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        Ok(DevicePeaks::default())
    }

    pub(super) fn alloc(&mut self, bytes: usize, _purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        // An address of its own for each buffer, and no memory behind it.
        let addr = 64 + self.memory.len() as u64 * (1 << 40);
        self.memory.push(Box::new([]));
        Ok(DeviceBuffer { addr, bytes })
    }

    pub(super) fn upload(&mut self, _to: &DeviceBuffer, _offset: usize, _data: &[u8]) {}

    pub(super) fn download(&mut self, _from: &DeviceBuffer, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    pub(super) fn pack(&mut self, source: &PackSource<'_>, _: Activations) -> Result<WeightRef, DeviceError> {
        let data = self.alloc(source.data.len(), "weights")?.addr;
        let (rows, cols) = (source.rows as u32, source.cols as u32);
        Ok(WeightRef { data, rows, cols, format: source.format as u32, activations: ACTIVATIONS_F32 })
    }

    pub(super) fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        let id = self.graphs.len() as u32 + 1;
        let info = |node: &Node| NodeInfo {
            kernel: "null".into(),
            choice: String::new(),
            barriers: 0,
            place: node.place,
            cost: node.cost,
        };
        self.graphs.push(GraphTable { id, key, nodes: nodes.iter().map(info).collect() });
        Ok(GraphId(id))
    }

    pub(super) fn graph(&self, id: GraphId) -> &GraphTable {
        &self.graphs[id.0 as usize - 1]
    }

    pub(super) fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        self.done.clear();
        self.done.resize(submission.downloads.iter().map(|d| d.bytes).sum(), 0);
        self.tickets += 1;
        Ok(Ticket(self.tickets))
    }

    pub(super) fn wait(&mut self, _ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        Ok(Completion { data: &self.done, stamps: &[] })
    }
}
