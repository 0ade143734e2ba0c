//! The pool: pinned threads that run one step after the other.
//!
//! A step lies in a slot of a ring. Submitting fills the slot and advances a counter that all workers wait for; every
//! worker then walks the step, and worker 0 advances the counter of completed steps. A step that was submitted while
//! another ran follows it without anyone's help. Nothing here allocates after [`Pool::open`].

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::thread::JoinHandle;

use super::graph::Recording;
use super::memory::Memory;
use super::stamps::{self, COPIES, StampTable, WorkerStamp};
use super::topology::{Topology, pin_this_thread};
use crate::console;
use crate::device::{DeviceError, Download, STAGING_BYTES, STEP_PARTS_MAX, STEPS_IN_FLIGHT, Submission, monotonic_ns};
use crate::kernels::cpu::signal::{Counter, Patience};
use crate::kernels::cpu::worker::{Crew, Worker};
use crate::trace::schema::{NodeStamp, StepCopies};

/// Slots of steps: one more than may be under way. A slot is filled again only after a later step has completed; by
/// then every worker has crossed a barrier of that later step, so none still looks at the earlier one.
const SLOTS: usize = STEPS_IN_FLIGHT + 1;

/// The threads, and what the device's thread needs to give them work.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The last step submitted; steps are numbered from 1.
    last_step: u64,
    /// Of the device's thread, when it waits for a step.
    patience: Patience,
}

#[derive(Debug)]
struct Shared {
    crew: Arc<Crew>,
    patience: Patience,
    started: Counter,
    submitted: Counter,
    completed: Counter,
    closing: AtomicBool,
    slots: [Slot; SLOTS],
    stamps: StampTable,
}

/// Written by the device's thread before it advances `submitted`; read by workers after they saw that, until they
/// cross the barrier of a later step.
#[derive(Debug)]
struct Slot {
    step: UnsafeCell<Step>,
    staging: Staging,
}

// SAFETY: the counters `submitted` and `completed` order every access to a slot, as told at `Slot` and `SLOTS`.
unsafe impl Sync for Slot {}

/// Where a step's bytes wait on their way: STAGING_BYTES each.
#[derive(Clone, Copy, Debug)]
struct Staging {
    up_addr: u64,
    down_addr: u64,
}

#[derive(Debug)]
struct Step {
    /// Where the staged bytes go, one after the other.
    uploads: Vec<(u64, usize)>,
    graphs: Vec<Arc<Recording>>,
    downloads: Vec<Download>,
    traced: bool,
    job: Option<Job>,
}

/// Work that is no graph: measuring, packing.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(&Worker) + Sync));

// SAFETY: the pointee is Sync, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for Job {}
// SAFETY: as for Send.
unsafe impl Sync for Job {}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// A completed step, in the pool's memory until the next step is submitted.
#[derive(Debug)]
pub(super) struct Completed {
    /// The downloads, one after the other: address and length.
    pub(super) data: (*const u8, usize),
    /// When they and the uploads were copied, if the step was stamped.
    pub(super) copies: StepCopies,
}

impl Pool {
    /// Starts the workers.
    pub(super) fn open(workers: usize, topology: &Topology, memory: &mut Memory) -> Result<Pool, DeviceError> {
        let spinning = Patience::measured();
        // Whoever has no core of its own takes one from a thread that it waits for when it spins.
        let patience = if topology.has_room_for(workers) { spinning } else { Patience::YIELDING };
        let waiter_patience = if topology.has_room_for(workers + 1) { spinning } else { Patience::NONE };
        let mut slot = || -> Result<Slot, DeviceError> {
            let mut stage = || memory.alloc(STAGING_BYTES, "staging of a step").map(|buffer| buffer.addr);
            Ok(Slot {
                staging: Staging { up_addr: stage()?, down_addr: stage()? },
                step: UnsafeCell::new(Step::empty()),
            })
        };
        let shared = Arc::new(Shared {
            crew: Arc::new(Crew::new(workers, patience)),
            patience,
            started: Counter::default(),
            submitted: Counter::default(),
            completed: Counter::default(),
            closing: AtomicBool::new(false),
            slots: [slot()?, slot()?, slot()?],
            stamps: StampTable::new(memory, SLOTS, workers)?,
        });
        // From here on dropping the pool ends the threads that were started.
        let mut pool = Pool { shared, threads: Vec::with_capacity(workers), last_step: 0, patience: waiter_patience };
        for index in 0..workers {
            let (shared, processor) = (pool.shared.clone(), topology.processor(index, workers));
            let thread = std::thread::Builder::new().name(format!("vitrum-cpu-{index}"));
            let started = thread.spawn(move || {
                processor.inspect(|processor| pin_this_thread(*processor));
                shared.work(index);
            });
            pool.threads.push(started.map_err(|source| DeviceError::Thread { index, source })?);
        }
        // What a thread does and allocates at its begin is not the first step's to pay.
        pool.shared.started.wait(workers as u32, Patience::NONE);
        Ok(pool)
    }

    /// Hands a step to the workers, who run the step before it first. Steps are numbered without a hole, at most
    /// [`STEPS_IN_FLIGHT`] are submitted and not waited for, and the submission is within the limits of a step.
    ///
    /// # Safety
    /// Every address in the submission and in the graphs stays valid until the step completes.
    pub(super) unsafe fn submit<'g>(
        &mut self,
        step: u64,
        submission: &Submission<'_>,
        graphs: impl Iterator<Item = &'g Arc<Recording>>,
    ) {
        let (slot, staging) = self.next_slot(step);
        slot.traced = submission.sources.stamps;
        slot.graphs.extend(graphs.cloned());
        slot.downloads.extend_from_slice(submission.downloads);
        let mut staged = staging.up_addr as *mut u8;
        for upload in submission.uploads {
            // SAFETY: a submission within its limits uploads at most STAGING_BYTES, and the staging memory of a free
            // slot is in no one's use.
            unsafe { std::ptr::copy_nonoverlapping(upload.data.as_ptr(), staged, upload.data.len()) };
            staged = staged.wrapping_add(upload.data.len());
            slot.uploads.push((upload.addr, upload.data.len()));
        }
        self.publish();
    }

    /// Runs a job on every worker, and returns when all are done. No step is under way.
    pub(super) fn run(&mut self, step: u64, job: &(dyn Fn(&Worker) + Sync)) {
        let erased = std::ptr::from_ref(job);
        // SAFETY: only the lifetime changes; the wait below outlasts every use of the job.
        let erased =
            unsafe { std::mem::transmute::<*const (dyn Fn(&Worker) + Sync), *const (dyn Fn(&Worker) + Sync)>(erased) };
        self.next_slot(step).0.job = Some(Job(erased));
        self.publish();
        self.shared.completed.wait(step as u32, self.patience);
    }

    /// Waits for a step.
    pub(super) fn wait(&self, step: u64, stamps: &mut Vec<NodeStamp>) -> Completed {
        self.shared.completed.wait(step as u32, self.patience);
        let at = step as usize % SLOTS;
        let slot = &self.shared.slots[at];
        // SAFETY: this thread alone writes slots, and it is here.
        let step = unsafe { &*slot.step.get() };
        let bytes: usize = step.downloads.iter().map(|download| download.bytes).sum();
        let mut copies = StepCopies::default();
        stamps.clear();
        if stamps::ENABLED && step.traced {
            let nodes = step.graphs.iter().map(|graph| graph.nodes()).sum();
            // SAFETY: the step has completed, so every worker has crossed the barrier after its last stamp, and the
            // slot is not used again before the next submission.
            let [upload, download] = unsafe { self.shared.stamps.combine(at, nodes, stamps) };
            let upload_bytes: usize = step.uploads.iter().map(|(_, bytes)| bytes).sum();
            copies = StepCopies { upload: upload.copied(upload_bytes), download: download.copied(bytes) };
        }
        Completed { data: (slot.staging.down_addr as *const u8, bytes), copies }
    }

    /// The slot for the next step, emptied.
    fn next_slot(&mut self, step: u64) -> (&mut Step, Staging) {
        assert!(step == self.last_step + 1, "step {step} submitted after step {}", self.last_step);
        self.last_step = step;
        let slot = &self.shared.slots[step as usize % SLOTS];
        // SAFETY: the step that used this slot is SLOTS steps back, and a later one than it has been waited for.
        let step = unsafe { &mut *slot.step.get() };
        step.clear();
        (step, slot.staging)
    }

    fn publish(&self) {
        self.shared.submitted.add(1);
        self.shared.submitted.wake();
    }
}

impl Drop for Pool {
    /// Steps that were submitted are finished first: there are few of them.
    fn drop(&mut self) {
        self.shared.completed.wait(self.last_step as u32, self.patience);
        self.shared.closing.store(true, Release);
        self.publish();
        for thread in self.threads.drain(..) {
            // A worker that panicked has ended the process: there is no error to find here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, index: usize) {
        let _guard = AbortOnPanic { index };
        let worker = Worker::new(index, self.crew.clone());
        self.started.add(1);
        self.started.wake();
        for number in 1u64.. {
            self.submitted.wait(number as u32, self.patience);
            if self.closing.load(Acquire) {
                return;
            }
            let at = number as usize % SLOTS;
            let slot = &self.slots[at];
            // SAFETY: the step was written before `submitted` was advanced, and is not written again before a later
            // step has completed, which this worker is a part of.
            let step = unsafe { &*slot.step.get() };
            // SAFETY: all workers run this step, one after the other the same ones; its addresses are valid by the
            // contract of `Pool::submit`, and only the step that runs uses them.
            unsafe { step.run(&worker, &slot.staging, self.stamps.row(at, index)) };
            if index == 0 {
                self.completed.add(1);
                self.completed.wake();
            }
        }
    }
}

impl Step {
    fn empty() -> Step {
        Step {
            uploads: Vec::with_capacity(STEP_PARTS_MAX),
            graphs: Vec::with_capacity(STEP_PARTS_MAX),
            downloads: Vec::with_capacity(STEP_PARTS_MAX),
            traced: false,
            job: None,
        }
    }

    fn clear(&mut self) {
        self.uploads.clear();
        self.graphs.clear();
        self.downloads.clear();
        self.traced = false;
        self.job = None;
    }

    /// One worker's part of a step.
    ///
    /// # Safety
    /// All workers of the pool run this step now; its addresses are valid and in no one else's use; `stamps` is this
    /// worker's row for it.
    unsafe fn run(&self, worker: &Worker, staging: &Staging, stamps: *mut WorkerStamp) {
        let stamped = stamps::ENABLED && self.traced;
        let (copies, mut stamps) = (stamps, stamps.wrapping_add(COPIES));
        if worker.index() == 0 {
            let start_ns = if stamped { monotonic_ns() } else { 0 };
            let mut staged = staging.up_addr as *const u8;
            for (addr, bytes) in &self.uploads {
                // SAFETY: the bytes were staged at submission. No worker runs a node: those of the step before are
                // done, those of this one wait at the barrier below.
                unsafe { std::ptr::copy_nonoverlapping(staged, *addr as *mut u8, *bytes) };
                staged = staged.wrapping_add(*bytes);
            }
            if stamped {
                // SAFETY: a row begins with room for the copies' stamps, and this one is this worker's.
                unsafe { copies.write(WorkerStamp { start_ns, arrival_ns: monotonic_ns() }) };
            }
        }
        worker.barrier();
        if let Some(Job(job)) = self.job {
            // SAFETY: `Pool::run` keeps the job alive until this step completes, beyond the barrier below.
            unsafe { (*job)(worker) };
            worker.barrier();
        }
        for graph in &self.graphs {
            // SAFETY: this function's contract; at most STEP_NODES_MAX nodes are in a step within its limits.
            stamps =
                unsafe { if stamped { graph.run::<true>(worker, stamps) } else { graph.run::<false>(worker, stamps) } };
        }
        if worker.index() == 0 {
            let start_ns = if stamped { monotonic_ns() } else { 0 };
            let mut staged = staging.down_addr as *mut u8;
            for download in &self.downloads {
                // SAFETY: the last node is done on all workers, and the next step begins with this thread's uploads.
                unsafe { std::ptr::copy_nonoverlapping(download.addr as *const u8, staged, download.bytes) };
                staged = staged.wrapping_add(download.bytes);
            }
            if stamped {
                // SAFETY: as above.
                unsafe { copies.add(1).write(WorkerStamp { start_ns, arrival_ns: monotonic_ns() }) };
            }
        }
    }
}

/// A worker that panics would leave the others waiting for ever at a barrier.
struct AbortOnPanic {
    index: usize,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's own message has been printed before this.
            let worker = self.index;
            console::note(&format!(
                "vitrum: a kernel panicked on worker {worker}, which is a bug in vitrum; ending the process"
            ));
            console::flush_stderr();
            std::process::abort();
        }
    }
}
