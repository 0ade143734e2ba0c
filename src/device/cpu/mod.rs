//! The CPU device: a recorded list of nodes, walked by a pool of pinned threads.

pub mod isa;
pub mod kernels;
mod worker;

use std::fmt;

use self::kernels::Choice;
pub use self::worker::Worker;
use super::params::WeightRef;
use super::*;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsaChoice {
    /// Plain Rust.
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 (F, BW, VL, DQ) with VNNI.
    Avx512,
}

impl IsaChoice {
    /// The best that this machine has.
    pub fn detect() -> IsaChoice {
        IsaChoice::Portable
    }

    /// Its name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            IsaChoice::Portable => "portable",
            IsaChoice::Avx2 => "avx2",
            IsaChoice::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for IsaChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

struct RecordedGraph {
    table: GraphTable,
    nodes: Vec<(Node, Choice)>,
}

/// The CPU device.
pub struct CpuDevice {
    info: DeviceInfo,
    isa: IsaChoice,
    memory: Vec<Box<[u128]>>,
    graphs: Vec<RecordedGraph>,
    done: Vec<u8>,
    stamps: Vec<NodeStamp>,
    tickets: u64,
}

impl fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuDevice").field("info", &self.info).finish_non_exhaustive()
    }
}

impl CpuDevice {
    pub(super) fn open(options: &DeviceOptions) -> Result<CpuDevice, DeviceError> {
        let isa = options.isa.unwrap_or_else(IsaChoice::detect);
        Ok(CpuDevice {
            info: DeviceInfo { name: "CPU".into(), kind: "cpu", isa: isa.as_str(), workers: 1, memory_bytes: 0 },
            isa,
            memory: Vec::new(),
            graphs: Vec::new(),
            done: Vec::new(),
            stamps: Vec::new(),
            tickets: 0,
        })
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        Ok(DevicePeaks::default())
    }

    pub(super) fn alloc(&mut self, bytes: usize, _purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        let words = vec![0u128; bytes.div_ceil(16) + 4].into_boxed_slice();
        let addr = (words.as_ptr() as u64).next_multiple_of(64);
        self.memory.push(words);
        Ok(DeviceBuffer { addr, bytes })
    }

    pub(super) fn upload(&mut self, to: &DeviceBuffer, offset: usize, data: &[u8]) {
        // SAFETY: `to` was allocated by this device, the range was checked by the caller, and no step is under way.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), (to.addr as *mut u8).add(offset), data.len()) }
    }

    pub(super) fn download(&mut self, from: &DeviceBuffer, offset: usize, data: &mut [u8]) {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping((from.addr as *const u8).add(offset), data.as_mut_ptr(), data.len()) }
    }

    pub(super) fn pack(&mut self, source: &PackSource<'_>, activations: Activations) -> Result<WeightRef, DeviceError> {
        kernels::pack::pack(self, source, activations)
    }

    pub(super) fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        let mut recorded = Vec::new();
        let mut infos = Vec::new();
        for node in nodes {
            let choice = kernels::choose(&node.params, key.bucket, self.isa);
            infos.push(crate::trace::schema::NodeInfo {
                kernel: choice.name.clone(),
                choice: choice.variant.clone(),
                barriers: choice.barriers,
                place: node.place,
                cost: node.cost,
            });
            recorded.push((*node, choice));
        }
        let id = self.graphs.len() as u32 + 1;
        self.graphs.push(RecordedGraph { table: GraphTable { id, key, nodes: infos }, nodes: recorded });
        Ok(GraphId(id))
    }

    pub(super) fn graph(&self, id: GraphId) -> &GraphTable {
        &self.graphs[id.0 as usize - 1].table
    }

    pub(super) fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        for upload in submission.uploads {
            // SAFETY: addresses come from this device's buffers.
            unsafe { std::ptr::copy_nonoverlapping(upload.data.as_ptr(), upload.addr as *mut u8, upload.data.len()) }
        }
        for graph in submission.graphs {
            for (node, choice) in &self.graphs[graph.0 as usize - 1].nodes {
                let worker = Worker::solo(choice.scratch_bytes);
                // SAFETY: the parameters were captured from this device's buffers.
                unsafe { (choice.run)(&node.params, &worker) }
            }
        }
        self.done.clear();
        for download in submission.downloads {
            // SAFETY: addresses come from this device's buffers.
            let bytes = unsafe { std::slice::from_raw_parts(download.addr as *const u8, download.bytes) };
            self.done.extend_from_slice(bytes);
        }
        self.tickets += 1;
        Ok(Ticket(self.tickets))
    }

    pub(super) fn wait(&mut self, _ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        Ok(Completion { data: &self.done, stamps: &self.stamps })
    }
}
