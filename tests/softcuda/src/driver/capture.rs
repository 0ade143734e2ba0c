//! Captures: what is put on a stream becomes nodes of a graph, and what cannot be a node invalidates the capture.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::ThreadId;

use super::status::{self, Answer, Refusal};
use super::streams::Work;

/// Which threads' calls may disturb a capture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CaptureMode {
    Global,
    ThreadLocal,
    Relaxed,
}

pub(super) struct Capture {
    /// Its own among all of the process.
    pub(super) number: u64,
    pub(super) mode: CaptureMode,
    thread: ThreadId,
    nodes: Vec<Work>,
    is_invalid: bool,
}

impl Capture {
    pub(super) fn new(mode: CaptureMode) -> Capture {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        let number = 1 + BEGUN.fetch_add(1, Relaxed);
        Capture { number, mode, thread: std::thread::current().id(), nodes: Vec::new(), is_invalid: false }
    }

    pub(super) fn add(&mut self, node: Work) -> Answer {
        if self.is_invalid {
            return Err(Refusal::new(status::CAPTURE_INVALIDATED, "the capture is invalid since an earlier call"));
        }
        match node {
            Work::Graph(_) => Err(self.invalidate(status::NOT_SUPPORTED, "a graph in a graph is not modelled")),
            // The order on one stream is the order of nodes: an event of the same capture adds nothing.
            Work::Record(..) | Work::WaitFor(..) => Ok(()),
            node => {
                self.nodes.push(node);
                Ok(())
            }
        }
    }

    pub(super) fn invalidate(&mut self, status: i32, why: &str) -> Refusal {
        self.is_invalid = true;
        Refusal::new(status, format!("{why}; the capture is invalid from here on"))
    }

    /// Whether a call of this thread that is unsafe in captures disturbs this one.
    pub(super) fn is_disturbed(&self) -> bool {
        match self.mode {
            CaptureMode::Global => true,
            CaptureMode::ThreadLocal => self.thread == std::thread::current().id(),
            CaptureMode::Relaxed => false,
        }
    }

    /// The nodes, if the capture may end here and is valid.
    pub(super) fn end(self) -> Answer<Vec<Work>> {
        if self.is_invalid {
            return Err(Refusal::new(status::CAPTURE_INVALIDATED, "the capture is invalid since an earlier call"));
        }
        Ok(self.nodes)
    }

    /// Refuses threads that may not end the capture.
    pub(super) fn check_thread(&self) -> Answer {
        if self.mode == CaptureMode::Relaxed || self.thread == std::thread::current().id() {
            return Ok(());
        }
        Err(Refusal::new(status::CAPTURE_WRONG_THREAD, "another thread began the capture"))
    }
}
