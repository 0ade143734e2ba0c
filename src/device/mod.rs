//! The device: memory, packed weights, captured graphs, replays. It is at the level of a driver, not of tensors.
//!
//! A step is [`Device::submit`]ted as one upload, replays of captured graphs and one download, and waited for by its
//! [`Ticket`]; two may be under way. A [`Node`] says which kernel runs with which parameters; how (instruction set,
//! tile, phases) is chosen once, at capture, by the kernel (`src/kernels`) for the device. The device names no model.

mod buffers;
mod clock;
pub mod cpu;
pub mod cuda;
pub mod null;
mod pack;
mod pod;
mod tickets;

use std::sync::Arc;

use thiserror::Error;

pub use self::clock::{clock_anchor, monotonic_ns, thread_id, yield_to_others};
pub use self::pack::PackSource;
pub use self::pod::{pod_bytes, read_pod};
use crate::formats::WeightFormat;
use crate::isa::IsaChoice;
use crate::kernels::params::WeightRef;
use crate::kernels::sizes::KernelLimits;
use crate::kernels::{self, Node, Wrong};
use crate::trace::schema::{CallTimes, GraphKey, GraphTable, NodeSources, NodeStamp, Place, StepCopies};

/// Which device to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The GPU, if there is one that this binary has kernels for; else this machine's CPU.
    Auto,
    /// This machine's CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// Records graphs and computes nothing: tokens are all 0.
    Null,
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Which one.
    pub choice: DeviceChoice,
    /// Worker threads of the CPU device; `None`: one per core this process may run on.
    pub threads: Option<usize>,
    /// Instruction set of the CPU device; `None`: the best that this machine has.
    pub isa: Option<IsaChoice>,
    /// A known truth for tests of the profiler: makes one node longer.
    pub delay: Option<NodeDelay>,
    /// Name the nodes of graphs to the driver's profiling library, so that recordings may be made of its records.
    pub activity: bool,
}

/// Adds a delay to every node at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeDelay {
    /// Which nodes.
    pub place: Place,
    /// How long, in microseconds.
    pub micros: u32,
}

/// How linear layers read their input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// As it is. Quantised weights are expanded to f32 when they are packed: the exact path.
    F32,
    /// For quantised weights: quantised to int8, one scale per 32 values. For bf16 weights, where the machine has a
    /// bf16 dot product: rounded to bf16. Other weights: as it is.
    Reduced,
    /// The same, but for quantised weights to int8 twice, the second time what the first rounding left: about 16 bits,
    /// for twice the arithmetic. For layers that are small or whose error weighs most.
    ReducedFine,
}

impl DeviceChoice {
    /// The device that this choice opens. Why [`DeviceChoice::Auto`] is not the GPU is said in the log.
    pub fn resolved(self) -> DeviceChoice {
        if self != DeviceChoice::Auto {
            return self;
        }
        match cuda::find() {
            Ok(name) => {
                tracing::info!("device: {name}");
                DeviceChoice::Cuda
            }
            Err(reason) => {
                tracing::info!("device: this machine's CPU ({reason})");
                DeviceChoice::Cpu
            }
        }
    }
}

impl Activations {
    /// The finer form of a reduced one.
    pub fn finer(self) -> Activations {
        match self {
            Activations::F32 => Activations::F32,
            Activations::Reduced | Activations::ReducedFine => Activations::ReducedFine,
        }
    }
}

/// What a device says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// The processor's name.
    pub name: String,
    /// `cpu`, `cuda` or `null`.
    pub kind: &'static str,
    /// The instruction set in use, as `vitrum graph` and traces print it: of a GPU, the architecture of the kernels.
    pub isa: &'static str,
    /// Worker threads; multiprocessors of a GPU.
    pub workers: usize,
    /// Bytes of memory that the device may use.
    pub memory_bytes: u64,
}

/// What a device reached in short measured loops: the roofs of a roofline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DevicePeaks {
    /// Reading a working set far larger than the last-level cache, GB/s (10⁹ bytes); 0: not measured.
    pub memory_gb_s: f64,
    /// Reading a working set that fits the last-level cache, GB/s.
    pub cache_gb_s: f64,
    /// Bytes up to which a working set counts as fitting the last-level cache.
    pub cache_bytes: u64,
    /// Copying within memory, GB/s: bytes read and bytes written together.
    pub copy_gb_s: f64,
    /// Multiply-adds of floating-point numbers by the instructions of the kernels, counted as two, 10⁹ per second: of a
    /// CPU f32, of a GPU products of bf16 matrices (`mma.sync`) summed in f32.
    pub float_gflop_s: f64,
    /// int8 multiply-adds by the instructions of the quantised kernels, counted as two, 10⁹ per second.
    pub int8_gop_s: f64,
}

impl DevicePeaks {
    /// [`DevicePeaks::memory_gb_s`], if the device can measure it.
    pub fn measured_memory_gb_s(&self) -> Option<f64> {
        (self.memory_gb_s > 0.0).then_some(self.memory_gb_s)
    }
}

/// Memory on the device, at a fixed address until the device closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBuffer {
    /// The address that kernels are given.
    pub addr: u64,
    /// The length in bytes.
    pub bytes: usize,
}

/// A captured graph of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphId(pub u32);

/// A submitted step, to be waited for in the order of submission.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket(pub u64);

/// Bytes for the device at the beginning of a step.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// Where to.
    pub addr: u64,
    /// What.
    pub data: &'a [u8],
}

/// Bytes from the device at the end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    /// Where from.
    pub addr: u64,
    /// How many.
    pub bytes: usize,
}

/// One step: everything is copied before `submit` returns.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Copied to the device before the first replay. What lies in a buffer between two of them may be lost: a device
    /// may copy them together.
    pub uploads: &'a [Upload<'a>],
    /// Replayed in order.
    pub graphs: &'a [GraphId],
    /// Copied back, one after the other, after the last replay.
    pub downloads: &'a [Download],
    /// What times the nodes: whether the device stamps them, and whether it tells when it was called for each replay.
    pub sources: NodeSources,
}

/// The most steps under way at once: one that runs and one that waits behind it.
pub const STEPS_IN_FLIGHT: usize = 2;

/// The most bytes that the uploads of one step, or its downloads, may add up to.
pub const STAGING_BYTES: usize = 8 << 20;

/// The most uploads, the most graphs and the most downloads of one step.
pub const STEP_PARTS_MAX: usize = 64;

/// The most nodes that the graphs of one step may add up to.
pub const STEP_NODES_MAX: usize = 8192;

/// A finished step.
#[derive(Debug)]
pub struct Completion<'a> {
    /// The downloads, one after the other.
    pub data: &'a [u8],
    /// Node times of all its graphs, in order of replay and node; empty unless stamped.
    pub stamps: &'a [NodeStamp],
    /// When its bytes were copied; zero unless stamped.
    pub copies: StepCopies,
    /// The calls that launched its replays, in order; empty where the device has no such calls, or its nodes are not
    /// timed.
    pub launches: &'a [CallTimes],
}

/// What went wrong on a device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The machine did not give the memory.
    #[error("could not allocate {bytes} bytes for {purpose}: {source}")]
    OutOfMemory {
        /// The size asked for.
        bytes: usize,
        /// What for.
        purpose: &'static str,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// A worker thread could not be started.
    #[error("could not start worker thread {index}: {source}")]
    Thread {
        /// Which.
        index: usize,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// A number of worker threads that makes no sense.
    #[error("{threads} worker threads: at least 1 and at most {max}")]
    ThreadCount {
        /// The number asked for.
        threads: usize,
        /// The most that a device takes.
        max: usize,
    },
    /// The instruction set asked for is not there.
    #[error("this machine has no {isa}")]
    IsaMissing {
        /// Its name.
        isa: &'static str,
    },
    /// A matrix that no packed layout takes.
    #[error("weight {name}: {format:?} needs rows of a multiple of {multiple} values, and this one has {cols}")]
    PackShape {
        /// The tensor.
        name: String,
        /// Its format.
        format: WeightFormat,
        /// Its row length.
        cols: usize,
        /// What the row length has to be a multiple of.
        multiple: usize,
    },
    /// A matrix that the device has no kernels for.
    #[error("weight {name}: {reason}")]
    PackFormat {
        /// The tensor.
        name: String,
        /// What is not taken, and what is.
        reason: String,
    },
    /// The CUDA device.
    #[error(transparent)]
    Cuda(#[from] cuda::CudaError),
    /// A node that the device has no kernel for.
    #[error("{graph}, node {ordinal} ({kernel}): {what} is {value}, and has to be {expected}")]
    Unsupported {
        /// The graph.
        graph: GraphKey,
        /// The node.
        ordinal: usize,
        /// Its kernel.
        kernel: &'static str,
        /// The parameter.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What it has to be.
        expected: &'static str,
    },
}

/// A device, opened.
#[derive(Debug)]
pub enum Device {
    /// This machine's CPU.
    Cpu(Box<cpu::CpuDevice>),
    /// An NVIDIA GPU.
    Cuda(Box<cuda::CudaDevice>),
    /// Computes nothing.
    Null(Box<null::NullDevice>),
}

macro_rules! each_device {
    ($self:expr, $device:ident => $body:expr) => {
        match $self {
            Device::Cpu($device) => $body,
            Device::Cuda($device) => $body,
            Device::Null($device) => $body,
        }
    };
}

impl Device {
    /// Opens a device.
    pub fn open(options: &DeviceOptions) -> Result<Device, DeviceError> {
        Ok(match options.choice.resolved() {
            DeviceChoice::Cuda => Device::Cuda(Box::new(cuda::CudaDevice::open(options)?)),
            DeviceChoice::Cpu | DeviceChoice::Auto => Device::Cpu(Box::new(cpu::CpuDevice::open(options)?)),
            DeviceChoice::Null => Device::Null(Box::new(null::NullDevice::open())),
        })
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        each_device!(self, device => device.info())
    }

    /// Measures the roofs; takes about a second, with nothing else under way.
    pub fn measure_peaks(&mut self) -> Result<DevicePeaks, DeviceError> {
        each_device!(self, device => device.measure_peaks())
    }

    /// Allocates zeroed memory for the device's lifetime, aligned to 64 bytes.
    pub fn alloc(&mut self, bytes: usize, purpose: &'static str) -> Result<DeviceBuffer, DeviceError> {
        each_device!(self, device => device.alloc(bytes, purpose))
    }

    /// Copies to the device while no step is under way. A failure of the device is the error of the next call that can
    /// have one.
    pub fn upload(&mut self, to: &DeviceBuffer, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= to.bytes, "upload of {} bytes at {offset} into {}", data.len(), to.bytes);
        each_device!(self, device => device.upload(to, offset, data));
    }

    /// Copies from the device while no step is under way. As for [`Device::upload`]; the bytes are then worth nothing.
    pub fn download(&mut self, from: &DeviceBuffer, offset: usize, data: &mut [u8]) {
        assert!(offset + data.len() <= from.bytes, "download of {} bytes at {offset} from {}", data.len(), from.bytes);
        each_device!(self, device => device.download(from, offset, data));
    }

    /// Lays out for the kernels the matrix of a node that has no other.
    pub fn pack(&mut self, source: &PackSource<'_>, activations: Activations) -> Result<WeightRef, DeviceError> {
        self.pack_beside(source, activations, &[])
    }

    /// Lays a weight matrix out for the kernels. `beside`: the formats of its node's matrices, which multiply the same
    /// rows. The CPU prepares rows in every form that a node's matrices read; a GPU's kernels read one form, so
    /// that there a quantised matrix beside one that is not is expanded.
    pub fn pack_beside(
        &mut self,
        source: &PackSource<'_>,
        activations: Activations,
        beside: &[WeightFormat],
    ) -> Result<WeightRef, DeviceError> {
        match self {
            Device::Cpu(device) => device.pack(source, activations),
            Device::Cuda(device) => device.pack(source, activations, beside),
            Device::Null(device) => device.pack(source),
        }
    }

    /// What its kernels take.
    pub fn limits(&self) -> KernelLimits {
        match self {
            Device::Cuda(_) => kernels::cuda::LIMITS,
            Device::Cpu(_) | Device::Null(_) => KernelLimits::NONE,
        }
    }

    /// Checks that the device has kernels for the nodes of such a graph, without capturing it.
    pub fn check(&self, key: GraphKey, nodes: &[Node]) -> Result<(), DeviceError> {
        each_device!(self, device => device.check(key, nodes))
    }

    /// Bytes that a buffer may still have, if the device knows: a GPU does.
    pub fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        match self {
            Device::Cuda(device) => device.free_bytes().map(Some),
            Device::Cpu(_) | Device::Null(_) => Ok(None),
        }
    }

    /// Captures a graph: chooses each node's kernel variant for the key's bucket.
    pub fn capture(&mut self, key: GraphKey, nodes: &[Node]) -> Result<GraphId, DeviceError> {
        each_device!(self, device => device.capture(key, nodes))
    }

    /// What a captured graph consists of.
    pub fn graph(&self, id: GraphId) -> &Arc<GraphTable> {
        each_device!(self, device => device.graph(id))
    }

    /// Starts a step. At most [`STEPS_IN_FLIGHT`] may be under way.
    pub fn submit(&mut self, submission: &Submission<'_>) -> Result<Ticket, DeviceError> {
        each_device!(self, device => device.submit(submission))
    }

    /// Waits for a step, in the order of submission.
    pub fn wait(&mut self, ticket: Ticket) -> Result<Completion<'_>, DeviceError> {
        each_device!(self, device => device.wait(ticket))
    }
}

/// The error for a node whose parameter no kernel takes.
fn unsupported(graph: GraphKey, ordinal: usize, node: &Node, wrong: Wrong) -> DeviceError {
    let Wrong { what, value, expected } = wrong;
    DeviceError::Unsupported { graph, ordinal, kernel: node.params.name(), what, value, expected }
}
