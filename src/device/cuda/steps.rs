//! Steps under way: staging in pinned memory, a slot for each, and an event that says when it is done.
//!
//! A step is put on the stream as its upload, its replays and its download, in order. Nothing here allocates after
//! [`Steps::new`]: the driver's queue holds what was submitted.
//!
//! A traced step has more on the stream, which is what recording costs the GPU:
//!
//! ```text
//! clock · upload · clock · (zero cells · replay · copy cells away) per graph · clock · download · clock · copy clocks
//! ```
//!
//! *clock* is a kernel that writes the GPU's clock into a cell of its own. So the upload and the download last from one
//! clock to the next, in the clock of the nodes. In the account of a step, the cells of nodes fall into the gaps around
//! copies and between graphs; what comes behind the last clock belongs to the next step, before its upload.

use std::sync::Arc;

use cudarc::driver::sys;

use super::CudaError;
use super::clock::{ClockDistance, ClockKernel, ClockRead};
use super::context::Context;
use super::driver::filled;
use super::graph::{Graph, STAMP_BYTES};
use super::memory::Pinned;
use crate::device::buffers::Buffers;
use crate::device::{
    Completion, STAGING_BYTES, STEP_NODES_MAX, STEP_PARTS_MAX, STEPS_IN_FLIGHT, Submission, Upload, monotonic_ns,
};
use crate::trace::schema::{CallTimes, CopyStamp, NodeStamp, StepCopies};

/// Whether this build can stamp nodes.
pub(super) const STAMPS: bool = crate::trace::record::ENABLED;

/// Where the clocks around a step's copies are, behind the stamps of its nodes: a cell each, at the begin of a stamp.
const CLOCKS_AT: usize = STEP_NODES_MAX * STAMP_BYTES;

/// Begin and end of the upload, begin and end of the download.
const CLOCKS: usize = 4;

/// Bytes of the stamps of one step.
pub(super) const STAMPS_BYTES: usize = if STAMPS { CLOCKS_AT + CLOCKS * STAMP_BYTES } else { 0 };

/// The most between two uploads that are copied together: about what a bus carries while a copy starts.
const GAP_BYTES_MAX: usize = 32 << 10;

/// Reads of the GPU's clock, of which the shortest counts.
const CLOCK_READS: usize = 16;

/// Slots, in turn, one per step under way.
#[derive(Debug)]
pub(super) struct Steps {
    context: Arc<Context>,
    slots: [Slot; STEPS_IN_FLIGHT],
    /// Writes stamps; only in builds that can use them.
    tracer: Option<Tracer>,
    clock: ClockDistance,
    /// Of the step waited for last.
    stamps: Vec<NodeStamp>,
}

/// What writes the stamps of a traced step.
#[derive(Debug)]
pub(super) struct Tracer {
    /// STAMPS_BYTES of the GPU's memory: the cells that a traced replay writes, zeroed before it and copied away after
    /// it; then the clocks.
    pub(super) stamps_addr: u64,
    pub(super) clock: ClockKernel,
}

impl Tracer {
    /// Puts a look at the clock on the stream.
    fn look(&self, context: &Context, clock: usize) -> Result<(), CudaError> {
        // SAFETY: the stamps have room for so many clocks.
        unsafe { self.clock.read_to(context, self.stamps_addr + (CLOCKS_AT + clock * STAMP_BYTES) as u64) }
    }
}

#[derive(Debug)]
struct Slot {
    up: Pinned,
    down: Pinned,
    /// STAMPS_BYTES
    cells: Option<Pinned>,
    done: Event,
    upload_bytes: usize,
    download_bytes: usize,
    is_traced: bool,
    /// Stamped nodes.
    nodes: usize,
    /// The calls that launched its replays, if nodes are timed.
    launches: Vec<CallTimes>,
    submitted_ns: u64,
}

impl Slot {
    fn new(context: &Arc<Context>) -> Result<Slot, CudaError> {
        Ok(Slot {
            up: Pinned::alloc(context, STAGING_BYTES)?,
            down: Pinned::alloc(context, STAGING_BYTES)?,
            cells: if STAMPS { Some(Pinned::alloc(context, STAMPS_BYTES)?) } else { None },
            done: Event::new(context)?,
            upload_bytes: 0,
            download_bytes: 0,
            is_traced: false,
            nodes: 0,
            launches: Vec::with_capacity(if STAMPS { STEP_PARTS_MAX } else { 0 }),
            submitted_ns: 0,
        })
    }
}

impl Steps {
    pub(super) fn new(context: &Arc<Context>, tracer: Option<Tracer>) -> Result<Steps, CudaError> {
        let slots = [Slot::new(context)?, Slot::new(context)?];
        let stamps = Vec::with_capacity(if STAMPS { STEP_NODES_MAX } else { 0 });
        Ok(Steps { context: context.clone(), slots, tracer, clock: ClockDistance::default(), stamps })
    }

    /// Measures how far the GPU's clock is from the host's, if anything is told by it.
    pub(super) fn measure_clock(&mut self) -> Result<(), CudaError> {
        let (driver, stream) = (self.context.driver, self.context.stream);
        let (Some(cells), Some(tracer)) = (&self.slots[0].cells, &self.tracer) else { return Ok(()) };
        let mut reads = Vec::with_capacity(CLOCK_READS);
        for _ in 0..CLOCK_READS {
            self.context.synchronize()?;
            let host_before_ns = monotonic_ns();
            tracer.look(&self.context, 0)?;
            self.context.synchronize()?;
            let host_after_ns = monotonic_ns();
            let (from, to) = (tracer.stamps_addr + CLOCKS_AT as u64, cells.range(CLOCKS_AT, STAMP_BYTES));
            // SAFETY: both ranges hold a clock, and the copy is waited for before its bytes are looked at.
            let bytes = unsafe {
                driver.cuMemcpyDtoHAsync_v2(to.cast(), from, STAMP_BYTES, stream)?;
                self.context.synchronize()?;
                &cells.bytes()[CLOCKS_AT..]
            };
            reads.push(ClockRead { host_before_ns, gpu_ns: !cell(bytes, 0), host_after_ns });
        }
        self.clock = ClockDistance::measured(&reads);
        Ok(())
    }

    /// Puts a step on the stream. It is within the limits of a step, and its slot is free: the step that had it has
    /// been waited for.
    ///
    /// # Safety
    /// Uploads and downloads lie in `buffers`, which are the GPU's.
    pub(super) unsafe fn submit<'g>(
        &mut self,
        step: u64,
        submission: &Submission<'_>,
        graphs: impl Iterator<Item = &'g Graph>,
        buffers: &Buffers,
    ) -> Result<(), CudaError> {
        self.context.bind()?;
        let tracer = self.tracer.as_ref().filter(|_| submission.sources.stamps);
        let look = |clock| tracer.map_or(Ok(()), |tracer| tracer.look(&self.context, clock));
        let slot = &mut self.slots[step as usize % STEPS_IN_FLIGHT];
        slot.is_traced = tracer.is_some();
        slot.submitted_ns = if slot.is_traced { monotonic_ns() } else { 0 };
        look(0)?;
        // SAFETY: by this function's contract; the step that had the slot is done.
        unsafe { slot.upload(&self.context, submission, buffers)? };
        look(1)?;
        slot.replay(&self.context, graphs, tracer, STAMPS && submission.sources.any())?;
        look(2)?;
        // SAFETY: as above.
        unsafe { slot.download(&self.context, submission)? };
        look(3)?;
        if let Some((tracer, cells)) = tracer.zip(slot.cells.as_ref()) {
            let (from, bytes) = (tracer.stamps_addr + CLOCKS_AT as u64, CLOCKS * STAMP_BYTES);
            let to = cells.range(CLOCKS_AT, bytes);
            // SAFETY: both ranges hold the clocks, which the next step writes behind this copy.
            unsafe { self.context.driver.cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.context.stream)? };
        }
        slot.done.record()
    }

    /// Waits for a step: what it downloaded, its node times, when it copied, and when its replays were launched.
    pub(super) fn wait(&mut self, step: u64) -> Result<Completion<'_>, CudaError> {
        self.context.bind()?;
        let slot = &self.slots[step as usize % STEPS_IN_FLIGHT];
        slot.done.wait().map_err(|error| error.of(|| format!("step {step}")))?;
        self.stamps.clear();
        let mut copies = StepCopies::default();
        if let Some(cells) = slot.cells.as_ref().filter(|_| slot.is_traced) {
            let completed_ns = monotonic_ns();
            // SAFETY: the step is done, and its slot is not used again before the next submission.
            let (cells, clocks) = unsafe { cells.bytes() }.split_at(CLOCKS_AT);
            let [upload_begin, upload_end, download_begin, download_end] =
                std::array::from_fn(|clock| !cell(clocks, clock * STAMP_BYTES / size_of::<u64>()));
            self.clock.correct(slot.submitted_ns, upload_begin, download_end, completed_ns);
            let copied = |begin, end, bytes: usize| CopyStamp {
                start_ns: self.clock.host_ns(begin),
                end_ns: self.clock.host_ns(end),
                bytes: bytes as u64,
            };
            copies.upload = copied(upload_begin, upload_end, slot.upload_bytes);
            copies.download = copied(download_begin, download_end, slot.download_bytes);
            let cells = cells[..slot.nodes * STAMP_BYTES].chunks_exact(STAMP_BYTES);
            self.stamps.extend(cells.map(|cells| stamp(cells, self.clock)));
        }
        // SAFETY: as above; the borrow keeps the next submission away.
        let data = unsafe { &slot.down.bytes()[..slot.download_bytes] };
        Ok(Completion { data, stamps: &self.stamps, copies, launches: &slot.launches })
    }
}

/// The parts of a step on the stream.
impl Slot {
    /// # Safety
    /// Uploads lie in `buffers`, which are the GPU's, and the step that used the slot is done.
    unsafe fn upload(
        &mut self,
        context: &Context,
        submission: &Submission<'_>,
        buffers: &Buffers,
    ) -> Result<(), CudaError> {
        self.upload_bytes = 0;
        for run in runs(submission.uploads, |addr, bytes| buffers.holds(addr, bytes)) {
            // SAFETY: by this function's contract, and of this step no copy has these bytes yet.
            let staging = unsafe { self.up.bytes_mut(run.offset, run.bytes) };
            for upload in run.uploads.iter().filter(|upload| !upload.data.is_empty()) {
                staging[(upload.addr - run.addr) as usize..][..upload.data.len()].copy_from_slice(upload.data);
            }
            let from = staging.as_ptr().cast();
            // SAFETY: the staged bytes stay until the step is done; where they go lies in one buffer.
            unsafe { context.driver.cuMemcpyHtoDAsync_v2(run.addr, from, run.bytes, context.stream)? };
            self.upload_bytes += run.bytes;
        }
        Ok(())
    }

    fn replay<'g>(
        &mut self,
        context: &Context,
        graphs: impl Iterator<Item = &'g Graph>,
        tracer: Option<&Tracer>,
        timed: bool,
    ) -> Result<(), CudaError> {
        let (driver, stream) = (context.driver, context.stream);
        self.nodes = 0;
        self.launches.clear();
        for graph in graphs {
            let Some((tracer, cells)) = tracer.zip(self.cells.as_ref()) else {
                launch(&mut self.launches, timed, || graph.launch(false))?;
                continue;
            };
            let nodes = graph.table.nodes.len();
            let to = cells.range(self.nodes * STAMP_BYTES, nodes * STAMP_BYTES);
            // SAFETY: both ranges have room for the stamps of a step; the next replay comes after the copy.
            unsafe {
                driver.cuMemsetD8Async(tracer.stamps_addr, 0, nodes * STAMP_BYTES, stream)?;
                launch(&mut self.launches, timed, || graph.launch(true))?;
                driver.cuMemcpyDtoHAsync_v2(to.cast(), tracer.stamps_addr, nodes * STAMP_BYTES, stream)?;
            }
            self.nodes += nodes;
        }
        Ok(())
    }

    /// # Safety
    /// Downloads lie in the GPU's buffers, and the step that used the slot is done.
    unsafe fn download(&mut self, context: &Context, submission: &Submission<'_>) -> Result<(), CudaError> {
        self.download_bytes = 0;
        for download in submission.downloads.iter().filter(|download| download.bytes > 0) {
            let to = self.down.range(self.download_bytes, download.bytes);
            // SAFETY: the range is the slot's, whose bytes nobody looks at; where they are from is the caller's word.
            unsafe {
                context.driver.cuMemcpyDtoHAsync_v2(to.cast(), download.addr, download.bytes, context.stream)?;
            }
            self.download_bytes += download.bytes;
        }
        Ok(())
    }
}

/// Launches a replay, and says when, if that is asked for.
fn launch(
    launches: &mut Vec<CallTimes>,
    timed: bool,
    launch: impl FnOnce() -> Result<(), CudaError>,
) -> Result<(), CudaError> {
    if !timed {
        return launch();
    }
    let start_ns = monotonic_ns();
    launch()?;
    launches.push(CallTimes { start_ns, end_ns: monotonic_ns() });
    Ok(())
}

/// Uploads that are copied as one.
struct Run<'a> {
    uploads: &'a [Upload<'a>],
    addr: u64,
    /// In the staging memory.
    offset: usize,
    bytes: usize,
}

/// Cuts a step's uploads into runs: those that follow each other in one buffer, with little between them, are one copy
/// together with what lies between. A copy costs the GPU microseconds however short it is.
fn runs<'a>(
    uploads: &'a [Upload<'a>],
    one_buffer: impl Fn(u64, usize) -> bool + 'a,
) -> impl Iterator<Item = Run<'a>> + 'a {
    let mut left_bytes: usize = uploads.iter().map(|upload| upload.data.len()).sum();
    let (mut rest, mut offset) = (uploads, 0);
    std::iter::from_fn(move || {
        let first = rest.iter().position(|upload| !upload.data.is_empty())?;
        rest = &rest[first..];
        let (addr, mut bytes, mut count) = (rest[0].addr, 0, 0);
        for upload in rest {
            let len = upload.data.len();
            if len > 0 {
                let Some(at) = upload.addr.checked_sub(addr).map(|at| at as usize).filter(|at| *at >= bytes) else {
                    break;
                };
                // What lies between takes room, but never that of data.
                let fits = at - bytes <= GAP_BYTES_MAX && offset + at + left_bytes <= STAGING_BYTES;
                if !(fits && one_buffer(addr, at + len)) {
                    break;
                }
                bytes = at + len;
                left_bytes -= len;
            }
            count += 1;
        }
        let run = Run { uploads: &rest[..count], addr, offset, bytes };
        (rest, offset) = (&rest[count..], offset + bytes);
        Some(run)
    })
}

fn cell(cells: &[u8], index: usize) -> u64 {
    crate::device::read_pod(&cells[index * size_of::<u64>()..])
}

/// A node's stamp; a node that wrote none has none.
fn stamp(cells: &[u8], clock: ClockDistance) -> NodeStamp {
    match (cell(cells, 0), cell(cells, 1)) {
        (0, _) | (_, 0) => NodeStamp::default(),
        (start, end) => NodeStamp { start_ns: clock.host_ns(!start), end_ns: clock.host_ns(end), wait_ns: 0 },
    }
}

/// Says when the stream has come to it.
#[derive(Debug)]
struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: the driver's handle may be used on any thread; it is this value's own.
unsafe impl Send for Event {}

impl Event {
    fn new(context: &Arc<Context>) -> Result<Event, CudaError> {
        context.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the driver writes a handle.
        let handle = filled(std::ptr::null_mut(), |event| unsafe { context.driver.cuEventCreate(event, flags) })?;
        Ok(Event { context: context.clone(), handle })
    }

    fn record(&self) -> Result<(), CudaError> {
        // SAFETY: event and stream belong to the context.
        unsafe { self.context.driver.cuEventRecord(self.handle, self.context.stream)? };
        Ok(())
    }

    fn wait(&self) -> Result<(), CudaError> {
        // SAFETY: the event belongs to the context.
        unsafe { self.context.driver.cuEventSynchronize(self.handle)? };
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: the event is this value's own.
        let _ = unsafe { self.context.driver.cuEventDestroy_v2(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of uploads at (address, bytes): (address, offset, bytes, uploads). Buffers are 1 MiB each.
    fn runs_of(uploads: &[(u64, usize)]) -> Vec<(u64, usize, usize, usize)> {
        let data = vec![0; STAGING_BYTES];
        let uploads: Vec<_> =
            uploads.iter().map(|(addr, bytes)| Upload { addr: *addr, data: &data[..*bytes] }).collect();
        let one_buffer = |addr: u64, bytes: usize| addr >> 20 == (addr + bytes as u64 - 1) >> 20;
        runs(&uploads, one_buffer).map(|run| (run.addr, run.offset, run.bytes, run.uploads.len())).collect()
    }

    #[test]
    fn uploads_that_are_near_each_other_are_one_copy() {
        assert_eq!(runs_of(&[]), []);
        assert_eq!(runs_of(&[(0, 0), (50, 0)]), []);
        assert_eq!(runs_of(&[(100, 8), (108, 4), (5, 0), (200, 4)]), [(100, 0, 104, 4)]);
        assert_eq!(runs_of(&[(200, 8), (100, 8), (208, 8)]), [(200, 0, 8, 1), (100, 8, 116, 2)], "not backwards");
        assert_eq!(runs_of(&[(100, 8), (104, 8)]), [(100, 0, 8, 1), (104, 8, 8, 1)], "nor over each other");
        let far = GAP_BYTES_MAX as u64 + 9;
        assert_eq!(runs_of(&[(0, 8), (far, 8)]), [(0, 0, 8, 1), (far, 8, 8, 1)], "too far");
        assert_eq!(runs_of(&[(0xffff0, 8), (0x100000, 8)]), [(0xffff0, 0, 8, 1), (0x100000, 8, 8, 1)], "two buffers");
    }

    #[test]
    fn what_lies_between_takes_no_room_of_data() {
        let whole = 1 << 20;
        let mut uploads: Vec<_> = (0..7).map(|buffer| (buffer * whole, whole as usize)).collect();
        uploads.extend([(7 * whole, 100), (7 * whole + 200, whole as usize - 200)]);
        let runs = runs_of(&uploads);
        let last = runs[runs.len() - 1];
        assert_eq!((runs.len(), last), (8, (7 * whole, 7 << 20, 1 << 20, 2)));
        uploads.push((9 * whole, 100));
        let runs = runs_of(&uploads);
        assert_eq!(runs.len(), 10, "the last ones come apart");
        assert!(runs.iter().all(|(_, offset, bytes, _)| offset + bytes <= STAGING_BYTES));
    }

    #[test]
    fn stamps_are_told_by_the_hosts_clock() {
        let reads = [ClockRead { host_before_ns: 50, gpu_ns: 1_050, host_after_ns: 50 }];
        let clock = ClockDistance::measured(&reads);
        let cells = |start: u64, end: u64| [start.to_le_bytes(), end.to_le_bytes()].concat();
        let (first, second, silent) = (cells(!1_100, 1_180), cells(!1_170, 1_300), cells(0, 0));
        assert_eq!(stamp(&first, clock), NodeStamp { start_ns: 100, end_ns: 180, wait_ns: 0 });
        assert!(!stamp(&silent, clock).is_valid());
        assert_eq!(stamp(&second, clock), NodeStamp { start_ns: 170, end_ns: 300, wait_ns: 0 });
    }
}
