//! What the device does, and the records of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::buffers::{self, QueueId, Slot};
use super::driver_calls;
use super::kinds;
use super::records::{self, KernelRecord, MemcpyRecord, MemsetRecord, Record};
use super::settings::settings;

/// Whose work something is: of which call of the driver, on which stream, in which graph.
#[derive(Clone, Copy, Default)]
pub(crate) struct Origin {
    /// The kinds that were enabled at the call; none if it is not to be recorded.
    kinds: u32,
    correlation: u32,
    stream: u32,
    place: Place,
}

/// A node of an executable graph and the node that it was made of; zeros outside of graphs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) graph: u32,
    pub(crate) node: u64,
    pub(crate) source_graph: u32,
    pub(crate) source_node: u64,
}

impl Origin {
    /// The same call's, at a node of the graph that it launched.
    pub(crate) fn in_graph(self, place: Place) -> Origin {
        Origin { place, ..self }
    }
}

/// Of what this thread's call of the driver puts on a stream.
pub(crate) fn origin(stream: u32) -> Origin {
    let (kinds, correlation) = driver_calls::current();
    Origin { kinds, correlation, stream, place: Place::default() }
}

/// One thing that the device does.
pub(crate) enum Activity<'a> {
    Kernel(Kernel<'a>),
    Copy(Copied),
    Fill { value: u8, bytes: u64 },
}

pub(crate) struct Kernel<'a> {
    pub(crate) name: &'a str,
    pub(crate) registers: u32,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) static_shared_bytes: u32,
    pub(crate) dynamic_shared_bytes: u32,
}

/// A copy between the host and the device.
pub(crate) struct Copied {
    pub(crate) to_device: bool,
    pub(crate) host: HostMemory,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum HostMemory {
    Pageable = 1,
    Pinned = 2,
}

const DEVICE_MEMORY: u8 = 3;
const DEVICE: u32 = 0;
const CONTEXT: u32 = 1;
/// Channels by their type: kernels and fills, and copies.
const COMPUTE: u32 = 1;
const COPIES: u32 = 2;

/// Does something on the device and records when. No lock may be held: the program is asked for buffers and the time.
pub(crate) fn traced<T>(origin: Origin, what: Activity, run: impl FnOnce() -> T) -> T {
    let begun = if origin.kinds == 0 { None } else { begin(origin, &what) };
    let done = run();
    if let Some(begun) = begun {
        let times = begun.start.map_or((0, 0), |start| (start, buffers::now()));
        buffers::complete(&begun.slot, times);
    }
    done
}

struct Begun {
    slot: Slot,
    /// If it is to have times.
    start: Option<u64>,
}

/// A record without times, unless its kind is not enabled, or it is dropped.
fn begin(origin: Origin, what: &Activity) -> Option<Begun> {
    let kind = match what {
        Activity::Kernel(_) => kinds::CONCURRENT_KERNEL,
        Activity::Copy(_) => kinds::MEMCPY,
        Activity::Fill { .. } => kinds::MEMSET,
    };
    if !kinds::is_in(origin.kinds & kinds::enabled(), kind) {
        return None;
    }
    let mut has_times = true;
    if kind == kinds::CONCURRENT_KERNEL {
        static KERNELS: AtomicU64 = AtomicU64::new(0);
        let number = 1 + KERNELS.fetch_add(1, Relaxed);
        let settings = settings();
        if settings.drop_every != 0 && number.is_multiple_of(settings.drop_every) {
            buffers::drop_record();
            return None;
        }
        has_times = number <= settings.valid_kernels;
    }
    let bytes = match what {
        Activity::Kernel(kernel) => kernel_record(origin, kernel).bytes(),
        Activity::Copy(copied) => copy_record(origin, copied).bytes(),
        Activity::Fill { value, bytes } => fill_record(origin, *value, *bytes).bytes(),
    };
    let slot = buffers::write(QueueId::Device, &bytes, false)?;
    Some(Begun { slot, start: has_times.then(buffers::now) })
}

fn kernel_record(origin: Origin, kernel: &Kernel) -> KernelRecord {
    static LAUNCHES: AtomicU64 = AtomicU64::new(1);
    let Place { graph, node, source_graph, source_node } = origin.place;
    KernelRecord {
        kind: kinds::CONCURRENT_KERNEL,
        registers_per_thread: kernel.registers as u16,
        device_id: DEVICE,
        context_id: CONTEXT,
        stream_id: origin.stream,
        grid: kernel.grid,
        block: kernel.block,
        static_shared_memory: kernel.static_shared_bytes,
        dynamic_shared_memory: kernel.dynamic_shared_bytes,
        correlation_id: origin.correlation,
        grid_id: LAUNCHES.fetch_add(1, Relaxed),
        name: records::name(kernel.name),
        shared_memory_executed: kernel.static_shared_bytes + kernel.dynamic_shared_bytes,
        graph_node_id: node,
        graph_id: graph,
        channel_id: COMPUTE,
        channel_type: COMPUTE,
        source_graph_id: source_graph.into(),
        source_graph_node_id: source_node,
        ..KernelRecord::default()
    }
}

fn copy_record(origin: Origin, copied: &Copied) -> MemcpyRecord {
    let Place { graph, node, source_graph, source_node } = origin.place;
    let (to_device, host) = (copied.to_device, copied.host as u8);
    MemcpyRecord {
        kind: kinds::MEMCPY,
        copy_kind: if to_device { 1 } else { 2 },
        source_kind: if to_device { host } else { DEVICE_MEMORY },
        destination_kind: if to_device { DEVICE_MEMORY } else { host },
        flags: 1, // asynchronous
        bytes: copied.bytes,
        device_id: DEVICE,
        context_id: CONTEXT,
        stream_id: origin.stream,
        correlation_id: origin.correlation,
        graph_node_id: node,
        graph_id: graph,
        channel_id: COPIES,
        channel_type: COPIES,
        copy_count: 1,
        source_graph_id: source_graph.into(),
        source_graph_node_id: source_node,
        ..MemcpyRecord::default()
    }
}

fn fill_record(origin: Origin, value: u8, bytes: u64) -> MemsetRecord {
    let Place { graph, node, source_graph, source_node } = origin.place;
    MemsetRecord {
        kind: kinds::MEMSET,
        value: value.into(),
        bytes,
        device_id: DEVICE,
        context_id: CONTEXT,
        stream_id: origin.stream,
        correlation_id: origin.correlation,
        flags: 1, // asynchronous
        memory_kind: DEVICE_MEMORY.into(),
        graph_node_id: node,
        graph_id: graph,
        channel_id: COMPUTE,
        channel_type: COMPUTE,
        source_graph_id: source_graph.into(),
        source_graph_node_id: source_node,
        ..MemsetRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_s_resources_are_in_its_record() {
        let kernel = Kernel {
            name: "k",
            registers: 231,
            grid: [2, 3, 4],
            block: [5, 6, 7],
            static_shared_bytes: 1000,
            dynamic_shared_bytes: 24,
        };
        let record = kernel_record(Origin { correlation: 9, stream: 8, ..Origin::default() }, &kernel).bytes();
        let number = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!(number(4) >> 16, 231, "registers");
        assert_eq!([52, 56, 60, 64, 68, 72].map(number), [2, 3, 4, 5, 6, 7], "grid and block");
        assert_eq!([76, 80, 140].map(number), [1000, 24, 1024], "shared memory: static, dynamic, both");
        assert_eq!([92, 48].map(number), [9, 8], "correlation and stream");
    }
}
