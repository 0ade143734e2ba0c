//! Streams: what is put on one is done by a thread of its own, in order, some time later.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::arena::{self, DEVICE, PINNED};
use super::capture::Capture;
use super::chain;
use super::graphs::{Executable, Step};
use super::modules::Call;
use super::status::{self, Answer, Refusal};
use crate::cupti::{self, Activity, Copied, HostMemory, Origin};

/// How long a thread sleeps before it takes up work: what the host does too early, it does before the work.
const DELAY: Duration = Duration::from_micros(100);

/// One thing to do on a stream.
#[derive(Clone)]
pub(super) enum Work {
    Kernel(Arc<Call>),
    /// From the host: its bytes as they were at the call, or where to read them.
    Upload {
        to: u64,
        from: HostBytes,
    },
    Download {
        to: u64,
        from: u64,
        bytes: u64,
    },
    Fill {
        to: u64,
        value: u8,
        bytes: u64,
    },
    /// The event's n-th record.
    Record(Arc<Event>, u64),
    WaitFor(Arc<Event>, u64),
    Graph(Arc<Executable>),
}

/// What an upload copies.
#[derive(Clone)]
pub(super) enum HostBytes {
    /// Of pageable memory: a driver copies it before the call returns.
    Taken(Arc<Vec<u8>>),
    /// Of pinned memory, or of a graph: read when the copy is made.
    At { addr: u64, bytes: u64 },
}

/// How far something has come.
#[derive(Default)]
pub(super) struct Progress {
    asked: AtomicU64,
    done: Mutex<u64>,
    changed: Condvar,
}

impl Progress {
    /// One more is to be done: which.
    pub(super) fn ask(&self) -> u64 {
        1 + self.asked.fetch_add(1, Relaxed)
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    fn reach(&self, number: u64) {
        let mut done = self.done.lock().expect("not poisoned");
        *done = number.max(*done);
        self.changed.notify_all();
    }

    fn wait_for(&self, number: u64) {
        let done = self.done.lock().expect("not poisoned");
        drop(self.changed.wait_while(done, |done| *done < number).expect("not poisoned"));
    }

    /// Waits for all that was asked for until now.
    pub(super) fn wait(&self) {
        self.wait_for(self.asked.load(Relaxed));
    }
}

/// An event; its progress counts records.
#[derive(Default)]
pub(super) struct Event {
    pub(super) progress: Progress,
    /// The capture that it was last recorded in.
    pub(super) captured: Mutex<Option<u64>>,
}

pub(super) struct Stream {
    pub(super) capture: Option<Capture>,
    /// Its own among all of the process; records have it.
    number: u32,
    progress: Arc<Progress>,
    sender: Option<Sender<(Work, Origin)>>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        static NUMBER: AtomicU32 = AtomicU32::new(7);
        let progress = Arc::new(Progress::default());
        let (sender, receiver) = channel();
        let of_thread = progress.clone();
        let thread = std::thread::Builder::new().name("softcuda".into()).spawn(move || run(&receiver, &of_thread));
        let thread = thread.expect("a thread for the stream");
        let number = NUMBER.fetch_add(1, Relaxed);
        Stream { capture: None, number, progress, sender: Some(sender), thread: Some(thread) }
    }

    /// Puts work on the stream, or into the graph that it captures.
    pub(super) fn submit(&mut self, work: Work) -> Answer {
        if let Some(capture) = &mut self.capture {
            return capture.add(work);
        }
        self.progress.ask();
        let work = (work, cupti::origin(self.number));
        self.sender.as_ref().expect("open until it is dropped").send(work).expect("the thread runs");
        Ok(())
    }

    pub(super) fn wait(&self) {
        self.progress.wait();
    }
}

impl Drop for Stream {
    /// What is on the stream is still done.
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The first thing that went wrong on the device. Nothing is done after it.
static FAILURE: Mutex<Option<Refusal>> = Mutex::new(None);

pub(super) fn failure() -> Option<Refusal> {
    FAILURE.lock().expect("not poisoned").clone()
}

/// The device fails, unless it has before.
pub(super) fn fail(refusal: Refusal) {
    FAILURE.lock().expect("not poisoned").get_or_insert(refusal);
}

pub(super) fn forget_failure() {
    *FAILURE.lock().expect("not poisoned") = None;
}

fn run(receiver: &Receiver<(Work, Origin)>, progress: &Progress) {
    let mut number = 0;
    while let Ok(work) = receiver.recv() {
        std::thread::sleep(DELAY);
        for (work, origin) in std::iter::once(work).chain(receiver.try_iter()) {
            if let Err(refusal) = execute(work, origin) {
                refusal.report("on a stream");
                fail(refusal);
            }
            number += 1;
            progress.reach(number);
        }
    }
}

/// Does one thing. After a failure only what others wait for.
fn execute(work: Work, origin: Origin) -> Answer {
    match work {
        Work::Record(event, number) => {
            event.progress.reach(number);
            return Ok(());
        }
        Work::WaitFor(event, number) => {
            event.progress.wait_for(number);
            return Ok(());
        }
        _ if failure().is_some() => return Ok(()),
        _ => {}
    }
    match work {
        Work::Graph(executable) => executable
            .steps
            .chunk_by(|a, b| matches!((&a.work, &b.work), (Work::Kernel(_), Work::Kernel(next)) if next.chained))
            .try_for_each(|steps| execute_chain(steps, |step| origin.in_graph(executable.place(step)))),
        Work::Kernel(call) => chain::run(&[(call, origin)]),
        Work::Upload { to, from: HostBytes::Taken(bytes) } => {
            let copied = Copied { to_device: true, host: HostMemory::Pageable, bytes: bytes.len() as u64 };
            let (from, bytes) = (bytes.as_ptr() as u64, bytes.len() as u64);
            cupti::traced(origin, Activity::Copy(copied), || copy(to, from, bytes))
        }
        Work::Upload { to, from: HostBytes::At { addr, bytes } } => {
            let copied = Copied { to_device: true, host: host_memory(addr), bytes };
            cupti::traced(origin, Activity::Copy(copied), || copy(to, addr, bytes))
        }
        Work::Download { to, from, bytes } => {
            let copied = Copied { to_device: false, host: host_memory(to), bytes };
            cupti::traced(origin, Activity::Copy(copied), || copy(to, from, bytes))
        }
        Work::Fill { to, value, bytes } => cupti::traced(origin, Activity::Fill { value, bytes }, || {
            still_there(to, bytes)?;
            arena::fill(to, value, bytes);
            Ok(())
        }),
        Work::Record(..) | Work::WaitFor(..) => Ok(()),
    }
}

fn host_memory(addr: u64) -> HostMemory {
    if PINNED.is_range_of(addr) { HostMemory::Pinned } else { HostMemory::Pageable }
}

/// Kernels of a graph that are chained to each other, or one step of another kind.
fn execute_chain(steps: &[Step], origin: impl Fn(&Step) -> Origin) -> Answer {
    let call = |step: &Step| match &step.work {
        Work::Kernel(call) => Some((call.clone(), origin(step))),
        _ => None,
    };
    let calls: Vec<(Arc<Call>, Origin)> = steps.iter().filter_map(call).collect();
    if calls.is_empty() {
        return steps.iter().try_for_each(|step| execute(step.work.clone(), origin(step)));
    }
    chain::run(&calls)
}

/// Memory of the device or pinned memory that a call has found may be gone when a graph is replayed.
fn still_there(addr: u64, bytes: u64) -> Answer {
    let is_ours = DEVICE.is_range_of(addr) || PINNED.is_range_of(addr);
    if is_ours && !DEVICE.holds(addr, bytes) && !PINNED.holds(addr, bytes) {
        let why = format!("a copy or fill of {bytes} bytes at {addr:#x}, which are not allocated any more");
        return Err(Refusal::new(status::ILLEGAL_ADDRESS, why));
    }
    Ok(())
}

fn copy(to: u64, from: u64, bytes: u64) -> Answer {
    still_there(to, bytes)?;
    still_there(from, bytes)?;
    // SAFETY: what is ours is allocated with so many bytes; for the host's pageable memory the caller answers.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes as usize) };
    Ok(())
}
