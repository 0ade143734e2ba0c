//! Graphs, their nodes and what is instantiated of them, with the numbers by which CUPTI tells them apart.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use super::handles::Handles;
use super::state;
use super::streams::Work;
use crate::cupti::Place;

/// The number of each node, by handle, as long as its graph or capture is there.
static NODES: Mutex<Handles<u64>> = Mutex::new(Handles::new("node", 8));

fn nodes() -> MutexGuard<'static, Handles<u64>> {
    NODES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Graphs and executable graphs are counted together: no two have one number.
fn new_id() -> u32 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    1 + GIVEN.fetch_add(1, Relaxed)
}

/// `CUgraphEdgeData` of cuda.h.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EdgeData {
    from_port: u8,
    to_port: u8,
    kind: u8,
    reserved: [u8; 5],
}

const PROGRAMMATIC: EdgeData = EdgeData { from_port: 1, to_port: 0, kind: 1, reserved: [0; 5] };

pub(super) struct Node {
    handle: usize,
    /// Its number within the graph. Where they begin and how they go on is nobody's to rely on.
    local: u32,
    work: Work,
}

impl Node {
    pub(super) fn handle(&self) -> *mut c_void {
        self.handle as *mut c_void
    }

    /// Of the edge to the node that comes next. A driver may say so of what is launched as dependent: a program has to
    /// be ready for edges that are not the default.
    pub(super) fn edge(&self) -> EdgeData {
        match &self.work {
            Work::Kernel(call) if call.chained => PROGRAMMATIC,
            _ => EdgeData::default(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = nodes().remove(self.handle());
    }
}

/// A graph, from the beginning of its capture.
pub(super) struct Graph {
    id: u32,
    nodes: Vec<Node>,
}

impl Graph {
    pub(super) fn new() -> Graph {
        Graph { id: new_id(), nodes: Vec::new() }
    }

    pub(super) fn add(&mut self, work: Work) {
        let local = 3 + 2 * self.nodes.len() as u32;
        let handle = nodes().insert(full_id(self.id, local)) as usize;
        self.nodes.push(Node { handle, local, work });
    }

    pub(super) fn last(&self) -> Option<&Node> {
        self.nodes.last()
    }

    pub(super) fn instantiate(&self) -> Executable {
        let steps = self.nodes.iter().map(|node| Step { local: node.local, work: node.work.clone() });
        Executable { id: new_id(), source: self.id, steps: steps.collect() }
    }
}

/// An executable graph.
pub(super) struct Executable {
    id: u32,
    /// The graph that it is of.
    source: u32,
    pub(super) steps: Vec<Step>,
}

/// A node of an executable graph.
pub(super) struct Step {
    local: u32,
    pub(super) work: Work,
}

impl Executable {
    /// Where a step is, as records say it.
    pub(super) fn place(&self, step: &Step) -> Place {
        Place {
            graph: self.id,
            node: full_id(self.id, step.local),
            source_graph: self.source,
            source_node: full_id(self.source, step.local),
        }
    }
}

fn full_id(graph: u32, local: u32) -> u64 {
    u64::from(graph) << 32 | u64::from(local)
}

/// Why something has no number.
pub(crate) enum Unknown {
    NotInitialised,
    Handle,
}

fn initialised() -> Result<MutexGuard<'static, state::Driver>, Unknown> {
    let driver = state::lock();
    if driver.is_initialised { Ok(driver) } else { Err(Unknown::NotInitialised) }
}

/// The number of a graph's node.
pub(crate) fn node_id(node: *mut c_void) -> Result<u64, Unknown> {
    let _driver = initialised()?;
    nodes().get(node).map(|id| *id).map_err(|_| Unknown::Handle)
}

/// The number of a graph, also of one that is being captured.
pub(crate) fn graph_id(graph: *mut c_void) -> Result<u32, Unknown> {
    let mut driver = initialised()?;
    let captures = driver.streams.values().filter_map(|stream| stream.capture.as_ref());
    if let Some(capture) = captures.into_iter().find(|capture| capture.handle == graph) {
        return Ok(capture.graph.id);
    }
    driver.graphs.get(graph).map(|graph| graph.id).map_err(|_| Unknown::Handle)
}

/// The number of an executable graph.
pub(crate) fn executable_id(executable: *mut c_void) -> Result<u32, Unknown> {
    let mut driver = initialised()?;
    driver.executables.get(executable).map(|executable| executable.id).map_err(|_| Unknown::Handle)
}
