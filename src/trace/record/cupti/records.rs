//! Records as CUPTI lays them out, and what is kept of each.
//!
//! Each kind of record has grown at its end from version to version, so one struct of its first fields reads all of
//! them: of kernels `CUpti_ActivityKernel9` to `13`. Enums of C are numbers here: a newer library may have values that
//! these bindings do not know.

use std::ffi::c_int;
use std::mem::offset_of;

use cudarc::cupti::sys;

use super::identity::Identity;
use super::library::{Cupti, NextRecord};
use crate::trace::activity::{
    Activity, CallActivity, CopyActivity, CopyKind, DriverCall, NodeActivity, OverheadActivity, OverheadKind, Watched,
    WatchedNode,
};

const KERNEL: u32 = sys::CUpti_ActivityKind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL as u32;

/// Of `CUpti_ActivityKernel9` and later.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelPrefix {
    kind: u32,
    cache: [u8; 2],
    registers: u16,
    cache_global: [u32; 2],
    start_ns: u64,
    end_ns: u64,
    completed_ns: u64,
    device: u32,
    context: u32,
    stream: u32,
    grid: [i32; 3],
    block: [i32; 3],
    static_shared_bytes: i32,
    dynamic_shared_bytes: i32,
    local_bytes: [u32; 2],
    correlation: u32,
    grid_id: i64,
    name: u64,
    reserved: u64,
    queued_ns: u64,
    submitted_ns: u64,
    launch_type: u8,
    carveout: [u8; 3],
    shared_executed_bytes: u32,
    graph_node: u64,
    shared_limit: u32,
    graph: u32,
}

/// Where `CUpti_ActivityKernel13` has the node that a node was instantiated from.
const KERNEL13_SOURCE_NODE: usize = 240;

/// Bytes of a record of a kernel, by the library's version.
pub(super) fn kernel_bytes(cupti: &Cupti) -> usize {
    match cupti.version() {
        ..130_000 => 208,
        130_000..130_100 => 216,
        130_100..130_300 => 224,
        130_300..130_400 => 232,
        130_400.. => 248,
    }
}

/// Writes a record of a kernel into as many bytes as it has, which are 0.
pub(super) fn put_kernel(record: &mut [u8], correlation: u32, node: u64, (start_ns, end_ns): (u64, u64)) {
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(KernelPrefix, kind), &KERNEL.to_ne_bytes());
    put(offset_of!(KernelPrefix, start_ns), &start_ns.to_ne_bytes());
    put(offset_of!(KernelPrefix, end_ns), &end_ns.to_ne_bytes());
    put(offset_of!(KernelPrefix, correlation), &correlation.to_ne_bytes());
    put(offset_of!(KernelPrefix, graph_node), &node.to_ne_bytes());
}

/// Of `CUpti_ActivityMemcpy6`, `CUpti_ActivityMemset4` and later.
#[repr(C)]
#[derive(Clone, Copy)]
struct CopyPrefix {
    kind: u32,
    /// Of a copy, its direction; of a fill, part of the value.
    direction: u8,
    places: [u8; 3],
    bytes: u64,
    start_ns: u64,
    end_ns: u64,
    device: u32,
    context: u32,
    stream: u32,
    correlation: u32,
}

/// `CUpti_ActivityAPI`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CallRecord {
    kind: u32,
    function: u32,
    start_ns: u64,
    end_ns: u64,
    process: u32,
    thread: u32,
    correlation: u32,
    status: u32,
}

/// Of `CUpti_ActivityOverhead2` and later.
#[repr(C)]
#[derive(Clone, Copy)]
struct OverheadPrefix {
    kind: u32,
    overhead: u32,
    object_kind: u32,
    object: [u32; 3],
    start_ns: u64,
    end_ns: u64,
}

const _: () = {
    assert!(offset_of!(KernelPrefix, start_ns) == offset_of!(sys::CUpti_ActivityKernel10, start));
    assert!(offset_of!(KernelPrefix, end_ns) == offset_of!(sys::CUpti_ActivityKernel9, end));
    assert!(offset_of!(KernelPrefix, correlation) == offset_of!(sys::CUpti_ActivityKernel9, correlationId));
    assert!(offset_of!(KernelPrefix, correlation) == offset_of!(sys::CUpti_ActivityKernel10, correlationId));
    assert!(offset_of!(KernelPrefix, graph_node) == offset_of!(sys::CUpti_ActivityKernel9, graphNodeId));
    assert!(offset_of!(KernelPrefix, graph_node) == offset_of!(sys::CUpti_ActivityKernel10, graphNodeId));
    assert!(offset_of!(KernelPrefix, graph) == offset_of!(sys::CUpti_ActivityKernel10, graphId));
    assert!(size_of::<sys::CUpti_ActivityKernel9>() == 208 && size_of::<sys::CUpti_ActivityKernel10>() == 216);
    assert!(offset_of!(CopyPrefix, direction) == offset_of!(sys::CUpti_ActivityMemcpy6, copyKind));
    assert!(offset_of!(CopyPrefix, bytes) == offset_of!(sys::CUpti_ActivityMemcpy6, bytes));
    assert!(offset_of!(CopyPrefix, start_ns) == offset_of!(sys::CUpti_ActivityMemcpy6, start));
    assert!(offset_of!(CopyPrefix, end_ns) == offset_of!(sys::CUpti_ActivityMemcpy6, end));
    assert!(offset_of!(CopyPrefix, correlation) == offset_of!(sys::CUpti_ActivityMemcpy6, correlationId));
    assert!(offset_of!(CopyPrefix, bytes) == offset_of!(sys::CUpti_ActivityMemset4, bytes));
    assert!(offset_of!(CopyPrefix, start_ns) == offset_of!(sys::CUpti_ActivityMemset4, start));
    assert!(offset_of!(CopyPrefix, end_ns) == offset_of!(sys::CUpti_ActivityMemset4, end));
    assert!(offset_of!(CopyPrefix, correlation) == offset_of!(sys::CUpti_ActivityMemset4, correlationId));
    assert!(offset_of!(CallRecord, function) == offset_of!(sys::CUpti_ActivityAPI, cbid));
    assert!(offset_of!(CallRecord, start_ns) == offset_of!(sys::CUpti_ActivityAPI, start));
    assert!(offset_of!(CallRecord, end_ns) == offset_of!(sys::CUpti_ActivityAPI, end));
    assert!(offset_of!(CallRecord, thread) == offset_of!(sys::CUpti_ActivityAPI, threadId));
    assert!(offset_of!(CallRecord, correlation) == offset_of!(sys::CUpti_ActivityAPI, correlationId));
    assert!(offset_of!(CallRecord, status) == offset_of!(sys::CUpti_ActivityAPI, returnValue));
    assert!(offset_of!(OverheadPrefix, overhead) == offset_of!(sys::CUpti_ActivityOverhead2, overheadKind));
    assert!(offset_of!(OverheadPrefix, start_ns) == offset_of!(sys::CUpti_ActivityOverhead2, start));
    assert!(offset_of!(OverheadPrefix, end_ns) == offset_of!(sys::CUpti_ActivityOverhead3, end));
};

/// What a record of CUPTI says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Something that is kept.
    Kept(Activity),
    /// A node of a graph that nobody captured here.
    UnknownNode,
    /// A kernel outside of graphs.
    OtherKernel,
    /// A call that neither launches nor waits.
    OtherCall,
    /// A kind that was not asked for.
    Other,
}

/// The records of one buffer, in order.
pub(super) struct Records {
    next: NextRecord,
    buffer: *mut u8,
    bytes: usize,
    record: *mut sys::CUpti_Activity,
}

impl Records {
    /// # Safety
    /// `next` is cuptiActivityGetNextRecord, and so many bytes at `buffer`, which nobody writes, are what CUPTI handed
    /// over.
    pub(super) unsafe fn new(next: NextRecord, buffer: *mut u8, bytes: usize) -> Records {
        Records { next, buffer, bytes, record: std::ptr::null_mut() }
    }

    /// What the next record says; an error is a status with which the walk ends before the buffer does.
    pub(super) fn next(&mut self, identity: &Identity, has_source_nodes: bool) -> Result<Option<Seen>, c_int> {
        // SAFETY: a whole record of the library's version.
        Ok(self.walk()?.map(|record| unsafe { read(record, identity, has_source_nodes) }))
    }

    /// Adds the next record as it came, if it is of a graph's kernel or of a graph's launch; whether there was one.
    pub(super) fn add_next(&mut self, to: &mut Watched, has_source_nodes: bool) -> Result<bool, c_int> {
        let Some(record) = self.walk()? else { return Ok(false) };
        // SAFETY: a whole record of the library's version.
        let (kernel, seen) =
            unsafe { (read_kernel(record, has_source_nodes), read(record, &Identity::default(), false)) };
        to.nodes.extend(kernel.and_then(watched));
        if let Seen::Kept(Activity::Call(CallActivity { call: DriverCall::GraphLaunch, correlation, .. })) = seen {
            to.launches.push(correlation);
        }
        Ok(true)
    }

    /// The address of the next record.
    #[inline]
    fn walk(&mut self) -> Result<Option<*const u8>, c_int> {
        const END: c_int = sys::CUptiResult::CUPTI_ERROR_MAX_LIMIT_REACHED as c_int;
        if self.bytes == 0 {
            return Ok(None);
        }
        // SAFETY: by the contract of `new`; the record is null or the one before.
        match unsafe { (self.next)(self.buffer, self.bytes, &mut self.record) } {
            0 => Ok(Some(self.record.cast_const().cast())),
            END => Ok(None),
            status => Err(status),
        }
    }
}

/// # Safety
/// A whole record of CUPTI lies there: with `has_source_nodes`, of a kernel one of version 13 at least.
unsafe fn read(record: *const u8, identity: &Identity, has_source_nodes: bool) -> Seen {
    const MEMCPY: u32 = sys::CUpti_ActivityKind::CUPTI_ACTIVITY_KIND_MEMCPY as u32;
    const MEMSET: u32 = sys::CUpti_ActivityKind::CUPTI_ACTIVITY_KIND_MEMSET as u32;
    const DRIVER: u32 = sys::CUpti_ActivityKind::CUPTI_ACTIVITY_KIND_DRIVER as u32;
    const OVERHEAD: u32 = sys::CUpti_ActivityKind::CUPTI_ACTIVITY_KIND_OVERHEAD as u32;
    // SAFETY: by this function's contract a record begins there with its kind, and is as long as the struct of its
    // first fields; these are plain numbers.
    unsafe {
        match record.cast::<u32>().read_unaligned() {
            KERNEL => match read_kernel(record, has_source_nodes) {
                Some((kernel, source)) => node(&kernel, source, identity),
                None => Seen::Other,
            },
            kind @ (MEMCPY | MEMSET) => Seen::Kept(copy(&record.cast::<CopyPrefix>().read_unaligned(), kind == MEMSET)),
            DRIVER => call(&record.cast::<CallRecord>().read_unaligned()),
            OVERHEAD => Seen::Kept(overhead(&record.cast::<OverheadPrefix>().read_unaligned())),
            _ => Seen::Other,
        }
    }
}

/// A kernel, and the node that it was instantiated from; `None`: a record of another kind.
///
/// # Safety
/// As of [`read`].
#[inline]
unsafe fn read_kernel(record: *const u8, has_source_nodes: bool) -> Option<(KernelPrefix, Option<u64>)> {
    // SAFETY: as in `read`; a kernel's record of version 13 is longer than that.
    unsafe {
        let kernel =
            (record.cast::<u32>().read_unaligned() == KERNEL).then(|| record.cast::<KernelPrefix>().read_unaligned());
        let source = || record.add(KERNEL13_SOURCE_NODE).cast::<u64>().read_unaligned();
        kernel.map(|kernel| (kernel, has_source_nodes.then(source)))
    }
}

fn watched((kernel, source): (KernelPrefix, Option<u64>)) -> Option<WatchedNode> {
    let KernelPrefix { correlation, graph_node: id, start_ns, end_ns, .. } = kernel;
    (id != 0).then_some(WatchedNode { correlation, id, source, start_ns, end_ns })
}

fn node(kernel: &KernelPrefix, source: Option<u64>, identity: &Identity) -> Seen {
    if kernel.graph_node == 0 {
        return Seen::OtherKernel;
    }
    // Last, as an id that was not changed when the graph was instantiated.
    let id = kernel.graph_node;
    let found = source.and_then(|source| identity.find_captured(source)).or_else(|| identity.find(id));
    let found = found.or_else(|| identity.find_captured(id));
    let Some((graph, ordinal)) = found else { return Seen::UnknownNode };
    let KernelPrefix { correlation, start_ns, end_ns, .. } = *kernel;
    Seen::Kept(Activity::Node(NodeActivity { correlation, graph, ordinal, start_ns, end_ns }))
}

fn copy(copy: &CopyPrefix, is_fill: bool) -> Activity {
    let kind = match copy.direction {
        _ if is_fill => CopyKind::Fill,
        1 => CopyKind::HtoD,
        2 => CopyKind::DtoH,
        8 => CopyKind::DtoD,
        _ => CopyKind::Other,
    };
    let CopyPrefix { correlation, start_ns, end_ns, bytes, .. } = *copy;
    Activity::Copy(CopyActivity { kind, correlation, start_ns, end_ns, bytes })
}

/// The functions by their numbers in cupti_driver_cbid.h, those for per-thread default streams too.
fn call(call: &CallRecord) -> Seen {
    let function = match call.function {
        514 | 515 => DriverCall::GraphLaunch,
        652 | 653 => DriverCall::LaunchKernelEx,
        277 | 421 => DriverCall::MemcpyHtoDAsync,
        279 | 422 => DriverCall::MemcpyDtoHAsync,
        216 | 428 => DriverCall::MemsetD8Async,
        126 | 440 => DriverCall::StreamSynchronize,
        121 => DriverCall::EventSynchronize,
        _ => return Seen::OtherCall,
    };
    let CallRecord { correlation, thread, status, start_ns, end_ns, .. } = *call;
    Seen::Kept(Activity::Call(CallActivity { call: function, correlation, thread, status, start_ns, end_ns }))
}

fn overhead(overhead: &OverheadPrefix) -> Activity {
    let kind = match overhead.overhead {
        0x1_0000 => OverheadKind::BufferFlush,
        0x2_0000 => OverheadKind::Instrumentation,
        0x3_0000 => OverheadKind::Resource,
        0x4_0000 | 0x5_0000 => OverheadKind::LazyLoading,
        0x6_0000 => OverheadKind::CommandBufferFull,
        0x7_0000 => OverheadKind::BufferRequest,
        _ => OverheadKind::Other,
    };
    let OverheadPrefix { start_ns, end_ns, .. } = *overhead;
    Activity::Overhead(OverheadActivity { kind, start_ns, end_ns })
}
