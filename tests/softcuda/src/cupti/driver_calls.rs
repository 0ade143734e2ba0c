//! Calls of the driver: their correlation numbers, and the records of them.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::buffers::{self, QueueId};
use super::kinds;
use super::records::{ApiRecord, Record};

/// Calls by their numbers in cupti_driver_cbid.h.
const CALLBACK_IDS: &[(&str, u32)] = &[
    ("cuCtxSetCurrent", 303),
    ("cuDeviceGet", 3),
    ("cuDeviceGetAttribute", 9),
    ("cuDeviceGetCount", 4),
    ("cuDeviceGetName", 5),
    ("cuDevicePrimaryCtxRelease_v2", 544),
    ("cuDevicePrimaryCtxRetain", 386),
    ("cuDriverGetVersion", 2),
    ("cuEventCreate", 118),
    ("cuEventDestroy_v2", 325),
    ("cuEventRecord", 119),
    ("cuEventSynchronize", 121),
    ("cuFuncGetAttribute", 85),
    ("cuFuncSetAttribute", 481),
    ("cuGraphDestroy", 517),
    ("cuGraphExecDestroy", 516),
    ("cuGraphInstantiateWithFlags", 643),
    ("cuGraphLaunch", 514),
    ("cuGraphUpload", 580),
    ("cuInit", 1),
    ("cuLaunchKernelEx", 652),
    ("cuMemAlloc_v2", 243),
    ("cuMemFreeHost", 38),
    ("cuMemFree_v2", 245),
    ("cuMemGetInfo_v2", 242),
    ("cuMemHostAlloc", 39),
    ("cuMemcpyDtoHAsync_v2", 279),
    ("cuMemcpyHtoDAsync_v2", 277),
    ("cuMemsetD8Async", 216),
    ("cuModuleGetFunction", 23),
    ("cuModuleLoadData", 19),
    ("cuModuleUnload", 22),
    ("cuOccupancyMaxActiveBlocksPerMultiprocessor", 374),
    ("cuStreamBeginCapture_v2", 539),
    ("cuStreamCreate", 124),
    ("cuStreamDestroy_v2", 326),
    ("cuStreamEndCapture", 497),
    ("cuStreamGetCaptureInfo_v3", 729),
    ("cuStreamSynchronize", 126),
    ("cuStreamWaitEvent", 295),
];

fn callback_id(name: &str) -> u32 {
    CALLBACK_IDS.iter().find(|(known, _)| *known == name).map_or(0, |(_, id)| *id)
}

thread_local! {
    /// The kinds and the correlation number of the call that this thread is in.
    static CURRENT: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// The kinds that are enabled, and the correlation number, of this thread's call; zeros if it has none.
pub(super) fn current() -> (u32, u32) {
    CURRENT.get()
}

/// A call of the driver that began while a kind was enabled.
pub(crate) struct DriverCall {
    name: &'static str,
    correlation: u32,
    /// If calls are recorded.
    start: Option<u64>,
}

/// Begins a call of the driver. No lock may be held.
pub(crate) fn begin_call(name: &'static str) -> Option<DriverCall> {
    let kinds = kinds::enabled();
    if kinds == 0 {
        return None;
    }
    static CORRELATIONS: AtomicU32 = AtomicU32::new(1);
    let correlation = CORRELATIONS.fetch_add(1, Relaxed);
    CURRENT.set((kinds, correlation));
    let start = kinds::is_in(kinds, kinds::DRIVER).then(buffers::now);
    Some(DriverCall { name, correlation, start })
}

impl DriverCall {
    /// Ends it, with what it returns. No lock may be held.
    pub(crate) fn end(self, status: c_int) {
        CURRENT.set((0, 0));
        let Some(start) = self.start.filter(|_| kinds::is_enabled(kinds::DRIVER)) else {
            return;
        };
        let record = ApiRecord {
            kind: kinds::DRIVER,
            callback_id: callback_id(self.name),
            start,
            end: buffers::now(),
            process_id: std::process::id(),
            thread_id: thread_id(),
            correlation_id: self.correlation,
            return_value: status as u32,
        };
        buffers::write(QueueId::of_thread(), &record.bytes(), true);
    }
}

/// Whether records have the system's numbers of threads, and not those of pthreads.
static HAS_SYSTEM_IDS: AtomicBool = AtomicBool::new(false);

pub(super) fn set_system_ids(has: bool) {
    HAS_SYSTEM_IDS.store(has, Relaxed);
}

/// This thread's number, of the kind that was asked for.
pub(super) fn thread_id() -> u32 {
    // SAFETY: both take nothing and always succeed.
    unsafe { if HAS_SYSTEM_IDS.load(Relaxed) { libc::gettid() as u32 } else { libc::pthread_self() as u32 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that `call` is given, in the files of the driver.
    fn names() -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver");
        let files = std::fs::read_dir(folder).expect("the driver's sources");
        let texts = files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text"));
        let names = |text: String| {
            let names = text.split("call(\"cu").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned));
            names.map(|name| format!("cu{name}")).collect::<Vec<_>>()
        };
        texts.flat_map(names).collect()
    }

    #[test]
    fn every_call_has_its_number() {
        let names = names();
        assert!(names.len() >= 40, "{names:?}");
        let without: Vec<&String> = names.iter().filter(|name| callback_id(name) == 0).collect();
        assert!(without.is_empty(), "{without:?}");
    }
}
