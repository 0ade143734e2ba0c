//! The CPU device: a recorded list of nodes, walked by a pool of pinned threads.
//!
//! What a step costs besides its nodes: one barrier at its begin and one after each node, whose waits escalate from
//! spinning to sleeping (`src/kernels/cpu/barrier.rs`). Each worker has a core of its own if there are enough
//! ([`topology`]); all memory comes from a few mappings advised for huge pages ([`memory`]).

mod graph;
mod memory;
mod memory_limit;
mod pack;
mod peaks;
mod pool;
mod stamps;
mod topology;

use std::fmt;

use self::graph::{Graph, Scratch};
use self::memory::Memory;
use self::pool::{Completed, Pool};
use self::topology::Topology;
use super::*;
use crate::kernels::Checker;
use crate::kernels::cpu::{Choice, Worker};

/// The CPU device.
pub struct CpuDevice {
    /// The first field, so dropped first: its threads use the memory.
    pool: Pool,
    memory: Memory,
    graphs: Vec<Graph>,
    scratch: Scratch,
    tickets: tickets::Tickets,
    /// Of the step waited for last.
    stamps: Vec<NodeStamp>,
    info: DeviceInfo,
    isa: IsaChoice,
    delay: Option<NodeDelay>,
    /// Bytes of last-level cache that the workers reach.
    cache_bytes: u64,
}

impl CpuDevice {
    pub(super) fn open(options: &DeviceOptions) -> Result<CpuDevice, DeviceError> {
        let isa = options.isa.unwrap_or_else(IsaChoice::detect);
        if !isa.is_available() {
            return Err(DeviceError::IsaMissing { isa: isa.as_str() });
        }
        let topology = Topology::detect();
        let workers = topology.workers(options.threads)?;
        let mut memory = Memory::new(memory_limit::memory_limit_bytes());
        Ok(CpuDevice {
            pool: Pool::open(workers, &topology, &mut memory)?,
            graphs: Vec::new(),
            scratch: Scratch::default(),
            tickets: tickets::Tickets::default(),
            stamps: Vec::with_capacity(if stamps::ENABLED { STEP_NODES_MAX } else { 0 }),
            info: DeviceInfo {
                name: topology::processor_name(),
                kind: "cpu",
                isa: isa.as_str(),
                workers,
                memory_bytes: memory.limit_bytes(),
            },
            memory,
            isa,
            delay: options.delay,
            cache_bytes: topology.cache_bytes(workers),
        })
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        let (isa, cache_bytes, limit_bytes) = (self.isa, self.cache_bytes, self.info.memory_bytes);
        peaks::measure(self, isa, cache_bytes, limit_bytes)
    }

    pub(super) fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        self.memory.alloc(bytes, purpose)
    }

    pub(super) fn upload(&mut self, to: &DeviceBuffer, offset: usize, data: &[u8]) {
        self.tickets.assert_idle("upload");
        let addr = to.addr + offset as u64;
        self.memory.buffers().assert_holds(addr, data.len(), "upload");
        // SAFETY: the range lies in a buffer of this device, and no step is under way that could use it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), addr as *mut u8, data.len()) }
    }

    pub(super) fn download(&mut self, from: &DeviceBuffer, offset: usize, data: &mut [u8]) {
        self.tickets.assert_idle("download");
        let addr = from.addr + offset as u64;
        self.memory.buffers().assert_holds(addr, data.len(), "download");
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, data.as_mut_ptr(), data.len()) }
    }

    pub(super) fn pack(&mut self, source: &PackSource<'_>, activations: Activations) -> Result<WeightRef, DeviceError> {
        pack::pack(self, source, activations)
    }

    pub(super) fn check(&self, key: GraphKey, nodes: &[Node]) -> Result<(), DeviceError> {
        let mut numbered = nodes.iter().enumerate();
        let holds = |addr, bytes| self.memory.buffers().holds(addr, bytes);
        let checker = Checker { holds: &holds, rows: key.bucket as usize };
        numbered.try_for_each(|(i, node)| node.params.check(&checker).map_err(|wrong| unsupported(key, i, node, wrong)))
    }

    pub(super) fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        self.check(key, nodes)?;
        let mut chosen = Vec::with_capacity(nodes.len());
        for node in nodes {
            chosen.push((*node, node.params.choose_for_cpu(key.bucket, self.isa)));
        }
        // SAFETY: the nodes were validated, and each kernel chooses a variant that takes such parameters.
        unsafe { self.capture_chosen(key, chosen) }
    }

    /// Captures nodes with kernels of the caller's choice, unchecked: for tests and measurements of single kernels and
    /// of the pool itself.
    ///
    /// # Safety
    /// Each choice's kernel may be called with its node's parameters by all workers at once, whenever the graph is
    /// replayed.
    pub unsafe fn capture_chosen(&mut self, key: GraphKey, nodes: Vec<(Node, Choice)>) -> Result<GraphId, DeviceError> {
        let scratch_bytes = nodes.iter().map(|(_, choice)| choice.scratch_bytes).max().unwrap_or(0);
        self.reserve_scratch(scratch_bytes)?;
        let id = self.graphs.len() as u32 + 1;
        self.graphs.push(Graph::record(id, key, nodes, self.scratch, self.delay));
        Ok(GraphId(id))
    }

    /// Graphs captured before keep the scratch memory that they have.
    fn reserve_scratch(&mut self, bytes: usize) -> Result<(), DeviceError> {
        // Whole pairs of cache lines: two workers share none.
        let bytes_per_worker = bytes.next_multiple_of(128);
        if bytes_per_worker > self.scratch.bytes_per_worker {
            let addr = self.memory.alloc(bytes_per_worker * self.info.workers, "scratch of the workers")?.addr;
            self.scratch = Scratch { addr, bytes_per_worker };
        }
        Ok(())
    }

    pub(super) fn graph(&self, id: GraphId) -> &Arc<GraphTable> {
        &self.recorded(id).table
    }

    fn recorded(&self, id: GraphId) -> &Graph {
        let at = (id.0 as usize).checked_sub(1);
        at.and_then(|at| self.graphs.get(at)).unwrap_or_else(|| panic!("graph {} was not captured here", id.0))
    }

    pub(super) fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        let nodes = submission.graphs.iter().map(|id| self.recorded(*id).recording.nodes()).sum();
        tickets::assert_within_limits(submission, nodes, self.memory.buffers());
        let ticket = self.tickets.take();
        let graphs = &self.graphs;
        let recordings = submission.graphs.iter().map(|id| &graphs[id.0 as usize - 1].recording);
        // SAFETY: uploads and downloads lie in buffers of this device, which live until it closes, after its pool; the
        // graphs' own addresses were answered for at capture.
        unsafe { self.pool.submit(ticket.0, submission, recordings) };
        Ok(ticket)
    }

    pub(super) fn wait(&mut self, ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        self.tickets.give_back(&ticket);
        let Completed { data: (addr, bytes), copies } = self.pool.wait(ticket.0, &mut self.stamps);
        // SAFETY: the step has completed, so its downloads are written; the borrow of the device keeps the next
        // submission away for as long as they are looked at.
        let data = unsafe { std::slice::from_raw_parts(addr, bytes) };
        Ok(Completion { data, stamps: &self.stamps, copies, launches: &[] })
    }

    /// Runs a job on every worker and waits for it, while no step is under way: a panic in it ends the process.
    pub(in crate::device) fn on_all_workers(&mut self, job: &(dyn Fn(&Worker) + Sync)) {
        self.tickets.assert_idle("a job");
        let ticket = self.tickets.take();
        self.pool.run(ticket.0, job);
        self.tickets.give_back(&ticket);
    }
}

impl fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuDevice").field("info", &self.info).finish_non_exhaustive()
    }
}
