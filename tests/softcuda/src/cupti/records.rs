//! Records as structs of cupti_activity.h. Later versions of a record are longer and begin as earlier ones do: the
//! structs here are the latest.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::mem::offset_of;
use std::sync::Mutex;

use super::kinds::{self, Kind};
use super::settings::settings;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct KernelRecord {
    pub(super) kind: Kind,
    pub(super) cache_config: u8,
    pub(super) shared_memory_config: u8,
    pub(super) registers_per_thread: u16,
    pub(super) partitioned_cache: [u32; 2],
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) completed: u64,
    pub(super) device_id: u32,
    pub(super) context_id: u32,
    pub(super) stream_id: u32,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) static_shared_memory: u32,
    pub(super) dynamic_shared_memory: u32,
    pub(super) local_memory_per_thread: u32,
    pub(super) local_memory_total: u32,
    pub(super) correlation_id: u32,
    pub(super) grid_id: u64,
    pub(super) name: usize,
    pub(super) reserved: usize,
    pub(super) queued: u64,
    pub(super) submitted: u64,
    pub(super) launch_type: u8,
    pub(super) carveout: [u8; 3],
    pub(super) shared_memory_executed: u32,
    pub(super) graph_node_id: u64,
    pub(super) shared_memory_limit_config: u32,
    pub(super) graph_id: u32,
    pub(super) access_policy_window: usize,
    pub(super) channel_id: u32,
    pub(super) channel_type: u32,
    pub(super) cluster: [u32; 3],
    pub(super) cluster_scheduling_policy: u32,
    pub(super) local_memory_total_v2: u64,
    pub(super) clusters_max: [u32; 2],
    pub(super) is_device_launched: u64,
    pub(super) priority: i32,
    pub(super) padding: u32,
    pub(super) execution_model: u64,
    pub(super) source_graph_id: u64,
    pub(super) source_graph_node_id: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MemcpyRecord {
    pub(super) kind: Kind,
    pub(super) copy_kind: u8,
    pub(super) source_kind: u8,
    pub(super) destination_kind: u8,
    pub(super) flags: u8,
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) device_id: u32,
    pub(super) context_id: u32,
    pub(super) stream_id: u32,
    pub(super) correlation_id: u32,
    pub(super) runtime_correlation_id: u64,
    pub(super) reserved: usize,
    pub(super) graph_node_id: u64,
    pub(super) graph_id: u32,
    pub(super) channel_id: u32,
    pub(super) channel_type: u32,
    pub(super) is_device_launched: u32,
    pub(super) copy_count: u64,
    pub(super) source_graph_id: u64,
    pub(super) source_graph_node_id: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MemsetRecord {
    pub(super) kind: Kind,
    pub(super) value: u32,
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) device_id: u32,
    pub(super) context_id: u32,
    pub(super) stream_id: u32,
    pub(super) correlation_id: u32,
    pub(super) flags: u16,
    pub(super) memory_kind: u16,
    pub(super) padding: u32,
    pub(super) reserved: usize,
    pub(super) graph_node_id: u64,
    pub(super) graph_id: u32,
    pub(super) channel_id: u32,
    pub(super) channel_type: u32,
    pub(super) is_device_launched: u32,
    pub(super) source_graph_id: u64,
    pub(super) source_graph_node_id: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct ApiRecord {
    pub(super) kind: Kind,
    pub(super) callback_id: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) process_id: u32,
    pub(super) thread_id: u32,
    pub(super) correlation_id: u32,
    pub(super) return_value: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct OverheadRecord {
    pub(super) kind: Kind,
    pub(super) overhead_kind: u32,
    pub(super) object_kind: u32,
    pub(super) process_id: u32,
    pub(super) thread_id: u32,
    pub(super) object_padding: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) correlation_id: u64,
    pub(super) data: usize,
}

const _: () = {
    assert!(size_of::<KernelRecord>() == 248 && size_of::<MemcpyRecord>() == 112 && size_of::<MemsetRecord>() == 104);
    assert!(size_of::<ApiRecord>() == 40 && size_of::<OverheadRecord>() == 56);
    assert!(offset_of!(KernelRecord, correlation_id) == 92 && offset_of!(KernelRecord, name) == 104);
    assert!(offset_of!(KernelRecord, graph_node_id) == 144 && offset_of!(KernelRecord, graph_id) == 156);
    assert!(offset_of!(KernelRecord, priority) == 216 && offset_of!(KernelRecord, source_graph_id) == 232);
    assert!(offset_of!(MemcpyRecord, graph_node_id) == 64 && offset_of!(MemcpyRecord, source_graph_id) == 96);
    assert!(offset_of!(MemsetRecord, graph_node_id) == 64 && offset_of!(MemsetRecord, source_graph_id) == 88);
    assert!(offset_of!(OverheadRecord, start) == 24 && offset_of!(OverheadRecord, correlation_id) == 40);
};

/// Where the times of what a device does stand, in each of its records.
pub(super) const TIMES: usize = 16;

const _: () = {
    assert!(offset_of!(KernelRecord, start) == TIMES && offset_of!(KernelRecord, end) == TIMES + 8);
    assert!(offset_of!(MemcpyRecord, start) == TIMES && offset_of!(MemcpyRecord, end) == TIMES + 8);
    assert!(offset_of!(MemsetRecord, start) == TIMES && offset_of!(MemsetRecord, end) == TIMES + 8);
};

/// The bytes of a kind's records in the version that is asked for.
pub(super) fn size(kind: Kind) -> Option<usize> {
    size_in(settings().kernel_version, kind)
}

/// The same in the version of these kernel records.
fn size_in(version: u32, kind: Kind) -> Option<usize> {
    let has_sources = version >= 13;
    match kind {
        kinds::CONCURRENT_KERNEL => Some(match version {
            9 => 208,
            10 => 216,
            11 => 224,
            12 => 232,
            _ => 248,
        }),
        kinds::MEMCPY => Some(if has_sources { 112 } else { 96 }),
        kinds::MEMSET => Some(if has_sources { 104 } else { 88 }),
        kinds::DRIVER => Some(size_of::<ApiRecord>()),
        kinds::OVERHEAD => Some(size_of::<OverheadRecord>()),
        _ => None,
    }
}

/// A struct of numbers, without padding.
///
/// # Safety
/// Every byte of the struct belongs to a number. Its first number is its kind.
pub(super) unsafe trait Record: Copy {
    fn kind(&self) -> Kind;

    /// Its bytes, as many as its version has.
    fn bytes(&self) -> Vec<u8> {
        let bytes = size(self.kind()).expect("a kind that has records").min(size_of::<Self>());
        // SAFETY: by this trait's contract all bytes are there.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast::<u8>(), bytes) }.to_vec()
    }
}

macro_rules! records {
    ($($name:ident)*) => {$(
        // SAFETY: the sizes that are asserted are the sums of the fields' sizes.
        unsafe impl Record for $name {
            fn kind(&self) -> Kind {
                self.kind
            }
        }
    )*};
}

records!(KernelRecord MemcpyRecord MemsetRecord ApiRecord OverheadRecord);

/// The address of a kernel's name, as a string of C that is never freed.
pub(super) fn name(name: &str) -> usize {
    static NAMES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut names = NAMES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(&address) = names.get(name) {
        return address;
    }
    let text = CString::new(name).expect("names of kernels have no 0");
    let address = text.into_raw() as usize;
    names.insert(name.to_owned(), address);
    address
}
