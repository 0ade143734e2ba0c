//! Captured graphs: a chain of kernel launches on the stream, captured once without and once with stamp addresses.
//!
//! Each kernel but the first may begin while the one ahead of it ends (programmatic stream serialization): it waits for
//! it by itself, behind what it can do without. The graphs are kept beside their executables.
//!
//! Where the driver's profiling library is in use, each node is named to it when it has been captured: it is then the
//! one node that the stream's next would depend on.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;

use super::CudaError;
use super::context::Context;
use super::driver::filled;
use crate::kernels::KernelParams;
use crate::kernels::cuda::Launch;
use crate::kernels::params::LaunchInfo;
use crate::trace::record::{ActivityLibrary, KnownGraph};
use crate::trace::schema::GraphTable;

/// A node's two stamp cells: csrc/common/stamp.cuh.
pub(super) const STAMP_BYTES: usize = 16;

/// A graph of the device.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) table: Arc<GraphTable>,
    idle: Executable,
    /// Writes stamps; only in builds that can use them.
    traced: Option<Executable>,
}

/// A node, ready to be launched.
pub(super) struct ReadyNode {
    pub(super) function: sys::CUfunction,
    pub(super) launch: Launch,
    pub(super) params: KernelParams,
}

impl Graph {
    /// Captures nodes. With `stamps_addr`, a second executable writes two cells per node from there on.
    ///
    /// # Safety
    /// Each node's function takes its parameters, with the grid and block of its launch; the addresses in them, and
    /// cells for all nodes at `stamps_addr`, stay valid as long as the graph is replayed.
    pub(super) unsafe fn capture(
        context: &Arc<Context>,
        table: GraphTable,
        nodes: &[ReadyNode],
        stamps_addr: Option<u64>,
        activity: Option<ActivityLibrary>,
    ) -> Result<Graph, CudaError> {
        let named = activity.map(|activity| (activity, table.id));
        let launch_all = |info: &dyn Fn(usize) -> LaunchInfo| {
            Executable::capture_named(context, nodes.len(), named, |ordinal| {
                // SAFETY: by this function's contract.
                unsafe { launch(context, &nodes[ordinal], info(ordinal), ordinal > 0) }
            })
        };
        let idle = launch_all(&|_| LaunchInfo::default())?;
        let stamped =
            |addr: u64| launch_all(&|ordinal| LaunchInfo { stamp: (addr + (ordinal * STAMP_BYTES) as u64).into() });
        let traced = stamps_addr.map(stamped).transpose()?;
        Ok(Graph { table: Arc::new(table), idle, traced })
    }

    /// Puts a replay on the stream.
    pub(super) fn launch(&self, traced: bool) -> Result<(), CudaError> {
        let executable = match &self.traced {
            Some(executable) if traced => executable,
            _ => &self.idle,
        };
        executable.launch().map_err(|error| error.of(|| format!("graph {}", self.table.key)))
    }
}

/// A graph of the driver and what it is replayed by.
#[derive(Debug)]
pub(super) struct Executable {
    /// What the driver's profiling library knows of its nodes.
    known: Option<KnownGraph>,
    context: Arc<Context>,
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

// SAFETY: the driver's handles may be used on any thread, by one at a time; they are this value's own.
unsafe impl Send for Executable {}

impl Executable {
    /// Captures so many launches, in order, each one node whose addresses stay valid as long as this is replayed. The
    /// nodes are named to the driver's profiling library, if there is one, as those of the graph of this number.
    pub(super) fn capture_named(
        context: &Arc<Context>,
        nodes: usize,
        named: Option<(ActivityLibrary, u32)>,
        mut launch: impl FnMut(usize) -> Result<(), CudaError>,
    ) -> Result<Executable, CudaError> {
        let mut captured = Vec::with_capacity(if named.is_some() { nodes } else { 0 });
        let mut executable = Executable::capture(context, || {
            (0..nodes).try_for_each(|node| {
                launch(node)?;
                if named.is_some() {
                    captured.push(captured_last(context));
                }
                Ok(())
            })
        })?;
        executable.known = named.map(|(activity, graph)| {
            let id = |node: Result<sys::CUgraphNode, CudaError>| match node {
                // SAFETY: the node belongs to the graph that was captured.
                Ok(node) => unsafe { activity.node_id(node.cast()) },
                // The graph is whole without it.
                Err(error) => activity.unnamed(&error.to_string()),
            };
            let ids = captured.into_iter().map(id).collect();
            // SAFETY: the executable lives longer than what is known of it, which is dropped first.
            unsafe { activity.know(executable.exec.cast(), graph, ids) }
        });
        Ok(executable)
    }

    /// What the driver's profiling library knows of its nodes.
    pub(super) fn known(&self) -> Option<&KnownGraph> {
        self.known.as_ref()
    }

    /// Captures what `launch_all` puts on the stream: launches alone, whose addresses stay valid as long as this is
    /// replayed.
    fn capture(
        context: &Arc<Context>,
        launch_all: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Executable, CudaError> {
        context.bind()?;
        let (driver, stream) = (context.driver, context.stream);
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is the context's; what follows until the end of the capture are launches alone.
        unsafe { driver.cuStreamBeginCapture_v2(stream, mode)? };
        let launched = launch_all();
        // A capture is ended in any case. From here on dropping destroys the graph.
        let (graph, exec) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut captured = Executable { known: None, context: context.clone(), graph, exec };
        // SAFETY: the driver writes a handle.
        let ended = unsafe { driver.cuStreamEndCapture(stream, &mut captured.graph) };
        if ended.is_err() {
            // With a stream that goes on to capture nothing could be given back.
            // SAFETY: as above.
            let _ = unsafe { driver.cuStreamEndCapture(stream, &mut captured.graph) };
        }
        launched?;
        ended?;
        // SAFETY: the driver writes a handle; the graph was captured.
        captured.exec = filled(std::ptr::null_mut(), |exec| unsafe {
            driver.cuGraphInstantiateWithFlags(exec, captured.graph, 0)
        })?;
        // SAFETY: both belong to the context.
        unsafe { driver.cuGraphUpload(captured.exec, stream)? };
        Ok(captured)
    }

    /// Puts a replay on the stream.
    pub(super) fn launch(&self) -> Result<(), CudaError> {
        // SAFETY: the executable and the stream belong to the context; the graph's addresses were answered for.
        unsafe { self.context.driver.cuGraphLaunch(self.exec, self.context.stream)? };
        Ok(())
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.known = None;
        let _ = self.context.bind();
        // SAFETY: both are this value's own, and replays of them have ended, or the GPU has failed.
        unsafe {
            if !self.exec.is_null() {
                let _ = self.context.driver.cuGraphExecDestroy(self.exec);
            }
            if !self.graph.is_null() {
                let _ = self.context.driver.cuGraphDestroy(self.graph);
            }
        }
    }
}

/// The node that the stream captured last.
fn captured_last(context: &Context) -> Result<sys::CUgraphNode, CudaError> {
    let (mut status, mut count) = (sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE, 0);
    let (mut frontier, mut edges) = (std::ptr::null(), std::ptr::null());
    let null = std::ptr::null_mut();
    // SAFETY: the driver writes a status, a number and the addresses of two arrays of its own.
    unsafe {
        context.driver.cuStreamGetCaptureInfo_v3(
            context.stream,
            &mut status,
            std::ptr::null_mut(),
            null,
            &mut frontier,
            &mut edges,
            &mut count,
        )?;
        // A chain has one end. The array is the driver's until the next call on the stream.
        if count == 1 && !frontier.is_null() { Ok(*frontier) } else { Err(CudaError::NoFrontier { count }) }
    }
}

/// Launches a kernel on the stream.
///
/// # Safety
/// As for [`Graph::capture`].
pub(super) unsafe fn launch(
    context: &Context,
    node: &ReadyNode,
    mut info: LaunchInfo,
    follows: bool,
) -> Result<(), CudaError> {
    let mut arguments = [node.params.as_ptr().cast_mut(), std::ptr::from_mut(&mut info).cast()];
    // SAFETY: the function takes these two arguments, by this function's contract; the driver copies them.
    unsafe { launch_with(context, node.function, &node.launch, &mut arguments, follows) }
}

/// Launches a kernel on the stream with these arguments; if it follows another kernel, with a programmatic edge.
///
/// # Safety
/// The function takes such arguments, with the grid and block of the launch, and what they point to stays valid.
pub(super) unsafe fn launch_with(
    context: &Context,
    function: sys::CUfunction,
    launch: &Launch,
    arguments: &mut [*mut c_void],
    follows: bool,
) -> Result<(), CudaError> {
    let mut overlap = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    };
    overlap.value.programmaticStreamSerializationAllowed = 1;
    let [x, y, z] = launch.grid;
    let config = sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared_bytes,
        hStream: context.stream,
        attrs: &mut overlap,
        numAttrs: u32::from(follows && context.gpu.has_programmatic_launch()),
    };
    // SAFETY: by this function's contract; configuration and attribute live until the call returns.
    let launched =
        unsafe { context.driver.cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut()) };
    Ok(launched.map_err(|error| error.of(|| launch.to_string()))?)
}
