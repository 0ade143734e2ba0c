//! The CUDA device: a GPU through NVIDIA's driver, which is looked for when the device is opened.
//!
//! One stream has everything in order: a step is its upload, replays of captured graphs, its download ([`steps`]).
//! Kernels come from csrc and lie in the binary ([`images`]); which one a node runs, and on what grid, is the kernel's
//! own to say (`src/kernels/cuda/launch.rs`). A failure of the GPU stays: every later call of the driver fails with it,
//! and so does the engine.

mod clock;
mod context;
mod driver;
mod error;
mod facts;
mod graph;
pub mod images;
#[cfg(test)]
mod launches;
mod measure;
mod memory;
mod modules;
pub mod pack;
mod steps;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use self::clock::ClockKernel;
use self::context::{Context, Gpu};
use self::driver::Driver;
pub use self::driver::DriverError;
pub use self::error::CudaError;
use self::graph::{Graph, ReadyNode};
pub use self::measure::{
    CHAIN_NODES, CHAIN_SPINS_NS, ChainRun, ChainTimes, Chains, Overheads, RecordCounts, RecordTimes, RecordedRun,
};
use self::memory::Memory;
use self::modules::Modules;
use self::steps::{Steps, Tracer};
use super::*;
use crate::formats::cuda::packed_format;
use crate::kernels::cuda::Launch;
use crate::kernels::{Checker, params};
use crate::trace::record::ActivityLibrary;
use crate::trace::schema::NodeInfo;

/// The CUDA device. Fields are dropped in order: what uses the GPU's memory before the memory.
pub struct CudaDevice {
    graphs: Vec<Graph>,
    steps: Steps,
    modules: Modules,
    memory: Memory,
    context: Arc<Context>,
    tickets: tickets::Tickets,
    /// Cells of stamps, in the GPU's memory; `None` in builds that cannot use them.
    stamps_addr: Option<u64>,
    /// The profiling library, which the nodes of graphs are named to.
    activity: Option<ActivityLibrary>,
    info: DeviceInfo,
    /// Of a copy outside of steps: the next call fails with it.
    failed: Option<CudaError>,
}

/// The name of the GPU that would be opened, if one can be.
pub fn find() -> Result<String, CudaError> {
    let gpu = Gpu::find(&Driver::load()?)?;
    modules::check(&gpu)?;
    Ok(gpu.name)
}

/// Finds the driver's profiling library and prepares it, before anything here initialises the driver. `toolkits`: where
/// it may lie besides the loader's path. Its name, or in a sentence why there is none.
pub fn prepare_activity(toolkits: &[PathBuf]) -> Result<String, String> {
    ActivityLibrary::prepare(toolkits, super::monotonic_ns).map(|activity| activity.library())
}

/// The driver's CUDA version, major and minor.
pub fn driver_version() -> Result<(i32, i32), CudaError> {
    let version = Driver::load()?.version()?;
    Ok((version / 1000, version % 1000 / 10))
}

/// What there is to know about a GPU before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDescription {
    /// Its name.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (u32, u32),
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of its second-level cache.
    pub l2_bytes: u64,
    /// The architectures of the embedded images that it runs: one, unless files have different ones.
    pub archs: Vec<&'static str>,
}

/// The GPU that would be opened, if one can be.
pub fn describe() -> Result<GpuDescription, CudaError> {
    let gpu = Gpu::find(&Driver::load()?)?;
    let archs = modules::archs(&gpu)?;
    let capability = (gpu.capability / 10, gpu.capability % 10);
    let Gpu { name, multiprocessors, l2_bytes, .. } = gpu;
    Ok(GpuDescription { name, capability, multiprocessors, l2_bytes, archs })
}

impl CudaDevice {
    pub(super) fn open(options: &DeviceOptions) -> Result<CudaDevice, DeviceError> {
        if options.delay.is_some() {
            return Err(CudaError::NoDelay.into());
        }
        let activity = if options.activity { ActivityLibrary::get().ok() } else { None };
        let driver = Driver::load().map_err(CudaError::from)?;
        let gpu = Gpu::find(&driver)?;
        modules::check(&gpu)?;
        let context = Arc::new(Context::open(driver, gpu)?);
        let mut modules = Modules::load(&context)?;
        let mut memory = Memory::new(context.clone());
        let stamps_addr = match steps::STAMPS {
            true => Some(memory.alloc(steps::STAMPS_BYTES, "node stamps")?.addr),
            false => None,
        };
        let tracer = match stamps_addr {
            Some(stamps_addr) => Some(Tracer { stamps_addr, clock: ClockKernel::find(&mut modules)? }),
            None => None,
        };
        let steps = Steps::new(&context, tracer)?;
        let (_, total_bytes) = driver.memory().map_err(CudaError::from)?;
        let info = DeviceInfo {
            name: context.gpu.name.clone(),
            kind: "cuda",
            isa: modules.arch(),
            workers: context.gpu.multiprocessors as usize,
            memory_bytes: total_bytes as u64,
        };
        let (graphs, tickets) = (Vec::new(), tickets::Tickets::default());
        let mut device =
            CudaDevice { graphs, steps, modules, memory, context, tickets, stamps_addr, activity, info, failed: None };
        device.measure_clock()?;
        Ok(device)
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Compares the clocks of the GPU and the host, in builds that tell node times by them.
    fn measure_clock(&mut self) -> Result<(), DeviceError> {
        self.begin()?;
        self.tickets.assert_idle("comparing clocks");
        self.steps.measure_clock()?;
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> Result<u64, DeviceError> {
        self.context.bind()?;
        let (free, _) = self.context.driver.memory().map_err(CudaError::from)?;
        Ok(free as u64)
    }

    pub(super) fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        self.begin()?;
        self.memory.alloc(bytes, purpose)
    }

    pub(super) fn upload(&mut self, to: &DeviceBuffer, offset: usize, data: &[u8]) {
        self.tickets.assert_idle("upload");
        let addr = to.addr + offset as u64;
        self.memory.buffers().assert_holds(addr, data.len(), "upload");
        // SAFETY: the range lies in a buffer of this device, and no step is under way that could use it.
        let copied = unsafe { self.memory.upload(addr, data) };
        self.note(copied);
    }

    pub(super) fn download(&mut self, from: &DeviceBuffer, offset: usize, data: &mut [u8]) {
        self.tickets.assert_idle("download");
        let addr = from.addr + offset as u64;
        self.memory.buffers().assert_holds(addr, data.len(), "download");
        // SAFETY: as in `upload`.
        let copied = unsafe { self.memory.download(addr, data) };
        self.note(copied);
    }

    fn note(&mut self, result: Result<(), CudaError>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }

    /// Before anything else: fails with what failed before, if something did, and makes the context this thread's.
    fn begin(&mut self) -> Result<(), CudaError> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.context.bind()
    }

    pub(super) fn pack(
        &mut self,
        source: &PackSource<'_>,
        activations: Activations,
        beside: &[WeightFormat],
    ) -> Result<WeightRef, DeviceError> {
        self.begin()?;
        let format = packed_format(source.format, beside);
        let activations = activations_for(source.name, format, activations)?;
        let packed = pack::pack(source, format)?;
        let buffer = self.memory.alloc(packed.len(), "weights")?;
        // SAFETY: the buffer was just allocated with so many bytes, and nobody else has its address yet.
        unsafe { self.memory.upload(buffer.addr, &packed)? };
        let (rows, cols) = (source.rows as u32, source.cols as u32);
        Ok(WeightRef { data: buffer.addr.into(), rows, cols, format: format as u32, activations })
    }

    pub(super) fn check(&self, key: GraphKey, nodes: &[Node]) -> Result<(), DeviceError> {
        let mut numbered = nodes.iter().enumerate();
        numbered.try_for_each(|(ordinal, node)| {
            let holds = |addr, bytes| self.memory.buffers().holds(addr, bytes);
            let checker = Checker { holds: &holds, rows: key.bucket as usize };
            let check = node.params.check(&checker).and_then(|()| node.params.check_for_cuda(&checker));
            check.map_err(|wrong| unsupported(key, ordinal, node, wrong))?;
            Ok(modules::check_shared(&self.context.gpu, &self.choose(node, key))?)
        })
    }

    /// How a node is launched, but for the grid of a persistent kernel.
    fn choose(&self, node: &Node, key: GraphKey) -> Launch {
        node.params.launch_on_cuda(key.bucket, self.context.gpu.multiprocessors)
    }

    pub(super) fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        self.begin()?;
        self.check(key, nodes)?;
        assert!(nodes.len() <= STEP_NODES_MAX, "{key}: {} nodes, at most {STEP_NODES_MAX}", nodes.len());
        let (mut ready, mut infos) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
        for node in nodes {
            let mut launch = self.choose(node, key);
            let function = self.modules.function(&launch.kernel, launch.shared_bytes)?;
            let held = self.modules.blocks_held(function, &launch)?;
            if launch.is_persistent {
                launch.fill(self.context.gpu.multiprocessors, held);
            }
            infos.push(NodeInfo {
                kernel: launch.kernel.clone(),
                choice: launch.choice(),
                barriers: 1,
                place: node.place,
                cost: node.cost,
                launch: Some(facts::of(&self.context, function, &launch, held)?),
            });
            ready.push(ReadyNode { function, launch, params: node.params });
        }
        let id = self.graphs.len() as u32 + 1;
        let table = GraphTable { id, key, nodes: infos };
        // SAFETY: the nodes were validated, kernels of csrc are launched as they are written to be, and
        // buffers and stamps live as long as the device.
        let graph = unsafe { Graph::capture(&self.context, table, &ready, self.stamps_addr, self.activity)? };
        self.graphs.push(graph);
        Ok(GraphId(id))
    }

    pub(super) fn graph(&self, id: GraphId) -> &Arc<GraphTable> {
        &captured(&self.graphs, id).table
    }

    pub(super) fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        self.begin()?;
        let nodes = submission.graphs.iter().map(|id| self.graph(*id).nodes.len()).sum();
        tickets::assert_within_limits(submission, nodes, self.memory.buffers());
        let ticket = self.tickets.take();
        let graphs = submission.graphs.iter().map(|id| captured(&self.graphs, *id));
        // SAFETY: uploads and downloads lie in buffers of this device.
        unsafe { self.steps.submit(ticket.0, submission, graphs, self.memory.buffers())? };
        Ok(ticket)
    }

    pub(super) fn wait(&mut self, ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        self.begin()?;
        self.tickets.give_back(&ticket);
        Ok(self.steps.wait(ticket.0)?)
    }
}

fn captured(graphs: &[Graph], id: GraphId) -> &Graph {
    let at = (id.0 as usize).checked_sub(1);
    at.and_then(|at| graphs.get(at)).unwrap_or_else(|| panic!("graph {} was not captured here", id.0))
}

/// How kernels read the rows that meet a weight of a packed format: `ACTIVATIONS_*`.
fn activations_for(name: &str, format: WeightFormat, activations: Activations) -> Result<u32, DeviceError> {
    let reason = "f32 activations are for the CPU: there is no CUDA kernel for them";
    match (format, activations) {
        (_, Activations::F32) => Err(DeviceError::PackFormat { name: name.to_owned(), reason: reason.into() }),
        _ if !format.is_quantised() => Ok(params::ACTIVATIONS_BF16),
        (_, Activations::Reduced) => Ok(params::ACTIVATIONS_INT8),
        (_, Activations::ReducedFine) => Ok(params::ACTIVATIONS_INT8X2),
    }
}

impl Drop for CudaDevice {
    /// What was submitted is finished first, or has failed.
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| self.context.synchronize());
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice").field("info", &self.info).finish_non_exhaustive()
    }
}
