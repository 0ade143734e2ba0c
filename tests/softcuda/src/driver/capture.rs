//! Captures: what is put on a stream becomes nodes of a graph, and what cannot be a node invalidates the capture.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::ThreadId;

use super::graphs::{EdgeData, Graph};
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
    /// What is being captured, and the handle that it will have.
    pub(super) graph: Graph,
    pub(super) handle: *mut c_void,
    /// What a program was last told of the nodes that the next one will depend on.
    frontier: Box<Frontier>,
    thread: ThreadId,
    is_invalid: bool,
}

/// The node that the next one will depend on, where a program may read it until the next call on the stream.
pub(super) struct Frontier {
    pub(super) node: *mut c_void,
    pub(super) edge: EdgeData,
}

/// What stands there after that call.
const STALE: usize = 0x5a5a_5a5a_5a5a_5a5a;

impl Capture {
    pub(super) fn new(mode: CaptureMode, handle: *mut c_void) -> Capture {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        let number = 1 + BEGUN.fetch_add(1, Relaxed);
        let frontier = Box::new(Frontier { node: STALE as *mut c_void, edge: EdgeData::default() });
        let thread = std::thread::current().id();
        Capture { number, mode, graph: Graph::new(), handle, frontier, thread, is_invalid: false }
    }

    pub(super) fn is_invalid(&self) -> bool {
        self.is_invalid
    }

    /// The node that the next one will depend on; none before the first.
    pub(super) fn frontier(&mut self) -> Option<&Frontier> {
        let last = self.graph.last()?;
        *self.frontier = Frontier { node: last.handle(), edge: last.edge() };
        Some(&self.frontier)
    }

    pub(super) fn add(&mut self, node: Work) -> Answer {
        self.frontier.node = STALE as *mut c_void;
        if self.is_invalid {
            return Err(Refusal::new(status::CAPTURE_INVALIDATED, "the capture is invalid since an earlier call"));
        }
        match node {
            Work::Graph(_) => Err(self.invalidate(status::NOT_SUPPORTED, "a graph in a graph is not modelled")),
            // The order on one stream is the order of nodes: an event of the same capture adds nothing.
            Work::Record(..) | Work::WaitFor(..) => Ok(()),
            node => {
                self.graph.add(node);
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

    /// The graph, if the capture is valid.
    pub(super) fn end(self) -> Answer<Graph> {
        if self.is_invalid {
            return Err(Refusal::new(status::CAPTURE_INVALIDATED, "the capture is invalid since an earlier call"));
        }
        Ok(self.graph)
    }

    /// Refuses threads that may not end the capture.
    pub(super) fn check_thread(&self) -> Answer {
        if self.mode == CaptureMode::Relaxed || self.thread == std::thread::current().id() {
            return Ok(());
        }
        Err(Refusal::new(status::CAPTURE_WRONG_THREAD, "another thread began the capture"))
    }
}
