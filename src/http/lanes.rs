//! Threads for what takes long, beside those that serve connections: parsing of long bodies, templates, tokenising, and
//! what waits for the engine. All are there from the start, so that none can be missing later.
//!
//! There are four lanes, so that what is long does not hold up what is short, what a model's template does nothing
//! else, and neither what an operator asks.
//! Whoever leaves is not worked for: a job that has not begun is passed over, and one that has can ask.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::device::yield_to_others;

/// The most jobs of a lane that wait. Their bodies are bounded by [`super::budget`].
const WAITING_MAX: usize = 4096;

/// The most bytes of bodies that are worked on in one lane at a time, but for a single larger one: a tokenizer takes
/// some hundred times the bytes of a long word.
const WORK_BYTES_MAX: usize = 8 << 20;

/// Which threads a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Milliseconds.
    Short,
    /// Longer: behind everything else that the machine does.
    Long,
    /// What puts a conversation through the model's template, which may take as long as its deadline.
    Template,
    /// What an operator asks.
    Admin,
}

/// The threads of a server. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Lanes([Arc<Queue>; 4]);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Of the jobs that are worked on.
    work_bytes: usize,
    is_closed: bool,
}

struct Job {
    /// Of the body that it is about.
    bytes: usize,
    run: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} jobs", self.jobs.len())
    }
}

/// Whether anybody still waits for a job's result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// True: nobody does.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets it unless the result has come.
struct SetOnDrop(Abandoned);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Lanes {
    /// Starts the threads.
    pub(super) fn start() -> io::Result<Lanes> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let lanes = Lanes(std::array::from_fn(|_| Arc::default()));
        let threads = [
            (Lane::Short, (cores / 2).clamp(2, 16)),
            (Lane::Long, (cores / 8).clamp(1, 4)),
            (Lane::Template, 4), // as many as there are processes for them
            (Lane::Admin, 1),
        ];
        for (lane, count) in threads {
            for _ in 0..count {
                let queue = lanes.queue(lane).clone();
                let name = format!("vitrum-{lane:?}").to_lowercase();
                thread::Builder::new().name(name).spawn(move || work(&queue, lane))?;
            }
        }
        Ok(lanes)
    }

    /// Runs a job on a thread of the lane. Dropping the future gives it up.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce(&Abandoned) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_sized(lane, 0, job).await
    }

    /// The same, for a job about a body of so many bytes.
    pub(crate) async fn run_sized<T: Send + 'static>(
        &self,
        lane: Lane,
        bytes: usize,
        job: impl FnOnce(&Abandoned) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let abandoned = Abandoned::default();
        let _left = SetOnDrop(abandoned.clone());
        let (sender, result) = oneshot::channel();
        let job = Box::new(move || {
            if !abandoned.is_set() {
                let _ = sender.send(catch_unwind(AssertUnwindSafe(|| job(&abandoned)))); // nobody waits any more
            }
        });
        self.queue(lane).push(Job { bytes, run: job })?;
        match result.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic), // the caller's
            Err(_) => Err(ApiError::LaneFull),      // the threads have ended: so does the server
        }
    }

    fn queue(&self, lane: Lane) -> &Arc<Queue> {
        &self.0[lane as usize]
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for queue in &self.0 {
            queue.waiting().is_closed = true;
            queue.changed.notify_all();
        }
    }
}

impl Queue {
    fn push(&self, job: Job) -> Result<(), ApiError> {
        let mut waiting = self.waiting();
        if waiting.jobs.len() >= WAITING_MAX {
            return Err(ApiError::LaneFull);
        }
        waiting.jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job; `None` at the end. A large one waits until there is room, and what came after it waits with it.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting();
        loop {
            if waiting.is_closed {
                return None;
            }
            let work_bytes = waiting.work_bytes;
            let fits = |job: &Job| work_bytes == 0 || work_bytes.saturating_add(job.bytes) <= WORK_BYTES_MAX;
            if waiting.jobs.front().is_some_and(fits)
                && let Some(job) = waiting.jobs.pop_front()
            {
                waiting.work_bytes += job.bytes;
                return Some(job);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, bytes: usize) {
        self.waiting().work_bytes -= bytes;
        if bytes > 0 {
            self.changed.notify_all();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner) // a list is whole after every change
    }
}

fn work(queue: &Queue, lane: Lane) {
    if lane == Lane::Long {
        yield_to_others();
    }
    while let Some(Job { bytes, run }) = queue.next() {
        run(); // a panic in it is its caller's
        queue.done(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn results_and_panics_reach_the_caller() {
        let lanes = Lanes::start().unwrap();
        let two = runtime().block_on(lanes.run(Lane::Short, |_| 1 + 1));
        assert_eq!(two.unwrap(), 2);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            runtime().block_on(lanes.run(Lane::Admin, |_| -> u32 { panic!("as it is told") }))
        }));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"as it is told"));
        assert_eq!(runtime().block_on(lanes.run(Lane::Admin, |_| 3)).unwrap(), 3, "the thread goes on");
    }

    #[test]
    fn what_is_worked_on_at_a_time_has_so_many_bytes() {
        let lanes = Lanes::start().unwrap(); // there are two threads for what is short, at least
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let job = |bytes: usize| {
            let (now, most) = (now.clone(), most.clone());
            lanes.run_sized(Lane::Short, bytes, move |_| {
                most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                now.fetch_sub(bytes, Ordering::SeqCst);
            })
        };
        let half = WORK_BYTES_MAX / 2;
        runtime().block_on(async { tokio::try_join!(job(half), job(half + 1), job(half), job(half), job(0)) }).unwrap();
        assert_eq!(most.load(Ordering::SeqCst), WORK_BYTES_MAX, "two halves, and never more");
        runtime().block_on(async { tokio::try_join!(job(1), job(3 * half), job(1)) }).unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 3 * half, "one that is larger than that has its turn alone");
    }

    #[test]
    fn nobody_is_worked_for_who_has_left() {
        let lanes = Lanes::start().unwrap();
        let (began, is_running) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        // The lane's only thread: it learns that it was given up.
        let first = lanes.run(Lane::Admin, move |abandoned| {
            began.send(()).unwrap();
            while !abandoned.is_set() {
                thread::sleep(Duration::from_millis(1));
            }
            ended.send("the first").unwrap();
        });
        let second = lanes.run(Lane::Admin, |_| panic!("it was given up before it began"));
        runtime().block_on(async {
            let both = async { tokio::join!(first, second) };
            let both = tokio::time::timeout(Duration::from_millis(50), both).await;
            assert!(both.is_err(), "one waits to be given up, the other for it");
        });
        is_running.recv().unwrap();
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok("the first"));
        assert_eq!(runtime().block_on(lanes.run(Lane::Admin, |_| 3)).unwrap(), 3);
    }
}
