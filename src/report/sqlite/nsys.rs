//! The tables that nsys' export has, filled as far as a recording knows.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::{Frame, count, id, sql};
use crate::report::layout::{CONTEXT, DEVICE, Layout, STREAM};
use crate::report::{Recording, Report, copies};
use crate::trace::activity::{CopyKind, DriverCall};

/// The type of a range that is pushed and popped.
const PUSH_POP: i64 = 59;
/// A pid and a tid have as many bits in a `globalTid`.
const ID_BITS: u32 = 24;
const IDS: i64 = 1 << ID_BITS;

const SCHEMA: &str = "
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE CUP-TI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
    globalPid INTEGER, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL, mangledName INTEGER,
    registersPerThread INTEGER, gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER, blockY INTEGER,
    blockZ INTEGER, staticSharedMemory INTEGER, dynamicSharedMemory INTEGER, graphNodeId INTEGER, graphId INTEGER,
    vitrumExclNs INTEGER NOT NULL, vitrumWaitNs INTEGER NOT NULL);
CREATE TABLE CUP-TI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
    globalPid INTEGER, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL, srcKind INTEGER, dstKind INTEGER,
    srcDeviceId INTEGER, srcContextId INTEGER, dstDeviceId INTEGER, dstContextId INTEGER, graphNodeId INTEGER);
CREATE TABLE CUP-TI_ACTIVITY_KIND_MEMSET (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
    globalPid INTEGER, value INTEGER, bytes INTEGER NOT NULL, graphNodeId INTEGER, memKind INTEGER);
CREATE TABLE CUP-TI_ACTIVITY_KIND_SYNCHRONIZATION (start INTEGER NOT NULL, end INTEGER NOT NULL,
    deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL,
    correlationId INTEGER, globalPid INTEGER, syncType INTEGER NOT NULL, eventId INTEGER);
CREATE TABLE CUP-TI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER,
    globalTid INTEGER, correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER, callchainId INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER,
    category INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER,
    domainId INTEGER);
CREATE TABLE ThreadNames (nameId INTEGER NOT NULL, priority INTEGER, globalTid INTEGER);
CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
CREATE TABLE TARGET_INFO_GPU (vmId INTEGER, id INTEGER NOT NULL, name TEXT, busLocation TEXT, isDiscrete INTEGER,
    totalMemory INTEGER, memoryBandwidth INTEGER, smCount INTEGER, chipName TEXT, cuDevice INTEGER);
CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId INTEGER NOT NULL, cudaId INTEGER NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
CREATE TABLE META_DATA_CAPTURE (name TEXT NOT NULL, value TEXT);
CREATE TABLE ENUM_CUDA_MEMCPY_OPER (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_CUDA_MEM_KIND (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_CUP-TI_SYNC_TYPE (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE ENUM_NSYS_EVENT_TYPE (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
INSERT INTO ENUM_CUDA_MEMCPY_OPER VALUES (0, 'CUDA_MEMCPY_KIND_UNKNOWN', 'Unknown'),
    (1, 'CUDA_MEMCPY_KIND_HTOD', 'Host-to-Device'), (2, 'CUDA_MEMCPY_KIND_DTOH', 'Device-to-Host'),
    (8, 'CUDA_MEMCPY_KIND_DTOD', 'Device-to-Device');
INSERT INTO ENUM_CUDA_MEM_KIND VALUES (4, 'CUDA_MEMOPR_MEMORY_KIND_UNKNOWN', 'Unknown'),
    (2, 'CUDA_MEMOPR_MEMORY_KIND_DEVICE', 'Device');
INSERT INTO ENUM_CUP-TI_SYNC_TYPE VALUES (1, 'CUP-TI_SYNC_TYPE_EVENT_SYNCHRONIZE', 'Event sync'),
    (3, 'CUP-TI_SYNC_TYPE_STREAM_SYNCHRONIZE', 'Stream sync');
INSERT INTO ENUM_NSYS_EVENT_TYPE VALUES (59, 'NvtxPushPopRange', 'NvtxPushPopRange');
";

const DEVICE_MEMORY: i64 = 2;

pub(super) fn fill(report: &Report, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    to.execute_batch(&sql(SCHEMA))?;
    let recording = &report.recording;
    let mut strings = Strings::default();
    kernels(recording, frame, &mut strings, to)?;
    device_copies(recording, frame, to)?;
    calls(recording, frame, &mut strings, to)?;
    ranges(recording, frame, &mut strings, to)?;
    target(recording, frame, &mut strings, to)?;
    let mut insert = to.prepare("INSERT INTO StringIds VALUES (?1, ?2)")?;
    strings.0.iter().try_for_each(|(text, number)| insert.execute(params![number, text]).map(drop))
}

/// Every name once.
#[derive(Default)]
struct Strings(HashMap<String, i64>);

impl Strings {
    fn id(&mut self, text: &str) -> i64 {
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let number = self.0.len() as i64 + 1;
        self.0.insert(text.to_owned(), number);
        number
    }
}

impl Frame {
    fn global_pid(&self) -> i64 {
        (1 << (2 * ID_BITS)) | ((i64::from(self.pid) % IDS) << ID_BITS)
    }

    fn global_tid(&self, thread: u32) -> i64 {
        self.global_pid() | (i64::from(thread) % IDS)
    }
}

fn kernels(recording: &Recording, frame: &Frame, strings: &mut Strings, to: &Connection) -> rusqlite::Result<()> {
    let names: Vec<Vec<i64>> = recording
        .graphs
        .iter()
        .map(|graph| graph.nodes.iter().map(|info| strings.id(&info.kernel)).collect())
        .collect();
    let mut insert = to.prepare(&sql(
        "INSERT INTO CUP-TI_ACTIVITY_KIND_KERNEL VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, ?8, ?8, ?9, ?10, ?11, \
         ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    ))?;
    let (global_pid, layout) = (frame.global_pid(), Layout::alone(recording));
    for at in &recording.nodes_by_start {
        let node = &recording.nodes[*at as usize];
        let replay = &recording.replays[node.replay as usize];
        let graph = &recording.graphs[replay.graph];
        let ordinal = node.ordinal as usize;
        let facts = graph.nodes[ordinal].launch.as_ref();
        insert.execute(params![
            frame.at(node.start_ns),
            frame.at(node.end_ns),
            id(DEVICE),
            id(CONTEXT),
            id(STREAM),
            id(replay.record.replay),
            global_pid,
            names[replay.graph][ordinal],
            facts.map(|facts| facts.registers),
            facts.map(|facts| facts.grid[0]),
            facts.map(|facts| facts.grid[1]),
            facts.map(|facts| facts.grid[2]),
            facts.map(|facts| facts.block[0]),
            facts.map(|facts| facts.block[1]),
            facts.map(|facts| facts.block[2]),
            facts.map(|facts| facts.static_shared_bytes),
            facts.map(|facts| facts.dynamic_shared_bytes),
            id(layout.graph_node_id(graph, ordinal)),
            graph.id,
            count(node.excl_ns),
            count(node.wait_ns),
        ])?;
    }
    Ok(())
}

fn device_copies(recording: &Recording, frame: &Frame, to: &Connection) -> rusqlite::Result<()> {
    let mut copy_row = to.prepare(&sql(
        "INSERT INTO CUP-TI_ACTIVITY_KIND_MEMCPY VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?3, ?4, \
         ?3, ?4, NULL)",
    ))?;
    let mut fill_row = to.prepare(&sql(
        "INSERT INTO CUP-TI_ACTIVITY_KIND_MEMSET VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, NULL, ?8, NULL, ?9)",
    ))?;
    for copy in copies::by_start(recording, &Layout::alone(recording)) {
        let (start, end) = (frame.at(copy.start_ns), frame.at(copy.end_ns));
        let (device, context, stream) = (id(DEVICE), id(CONTEXT), id(STREAM));
        let (correlation, pid, bytes) = (id(copy.correlation), frame.global_pid(), count(copy.bytes));
        // The host's side is pinned or not: not known.
        let (kind, source, target) = match copy.kind {
            CopyKind::HtoD => (1, None, Some(DEVICE_MEMORY)),
            CopyKind::DtoH => (2, Some(DEVICE_MEMORY), None),
            CopyKind::DtoD => (8, Some(DEVICE_MEMORY), Some(DEVICE_MEMORY)),
            CopyKind::Other => (0, None, None),
            CopyKind::Fill => {
                let row = params![start, end, device, context, stream, correlation, pid, bytes, DEVICE_MEMORY];
                fill_row.execute(row)?;
                continue;
            }
        };
        let row = params![start, end, device, context, stream, correlation, pid, bytes, kind, source, target];
        copy_row.execute(row)?;
    }
    Ok(())
}

/// Calls of the driver by begin; of replays whose call nobody saw the submission, which is named as in the trace.
fn calls(recording: &Recording, frame: &Frame, strings: &mut Strings, to: &Connection) -> rusqlite::Result<()> {
    let seen = &recording.seen;
    // Begin, end, thread, correlation, name, status.
    let mut rows: Vec<(u64, u64, u32, u64, i64, u32)> = Vec::new();
    let mut wait = to.prepare(&sql(
        "INSERT INTO CUP-TI_ACTIVITY_KIND_SYNCHRONIZATION VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, NULL)",
    ))?;
    let layout = Layout::alone(recording);
    for call in &seen.calls {
        let (record, correlation) = (&call.record, layout.call_correlation(call, recording));
        let name = strings.id(record.call.as_str());
        rows.push((record.start_ns, record.end_ns, record.thread, correlation, name, record.status));
        let kind = match record.call {
            DriverCall::EventSynchronize => 1,
            DriverCall::StreamSynchronize => 3,
            _ => continue,
        };
        let (start, end) = (frame.at(record.start_ns), frame.at(record.end_ns));
        let correlation = id(correlation);
        let pid = frame.global_pid();
        wait.execute(params![start, end, id(DEVICE), id(CONTEXT), id(STREAM), correlation, pid, kind])?;
    }
    let tid = recording.header.session.engine_tid;
    for launch in recording.unseen_launches() {
        let name = strings.id("replay");
        rows.push((launch.launch_start_ns, launch.launch_end_ns, tid, launch.replay, name, 0));
    }
    rows.sort_by_key(|row| row.0);
    let mut insert =
        to.prepare(&sql("INSERT INTO CUP-TI_ACTIVITY_KIND_RUNTIME VALUES (?1, ?2, NULL, ?3, ?4, ?5, ?6, NULL)"))?;
    for (start_ns, end_ns, thread, correlation, name, status) in rows {
        let (start, end, tid) = (frame.at(start_ns), frame.at(end_ns.max(start_ns)), frame.global_tid(thread));
        insert.execute(params![start, end, tid, id(correlation), name, status])?;
    }
    Ok(())
}

/// Loop iterations and phases, by begin, the outer first.
fn ranges(recording: &Recording, frame: &Frame, strings: &mut Strings, to: &Connection) -> rusqlite::Result<()> {
    let mut insert =
        to.prepare("INSERT INTO NVTX_EVENTS VALUES (?1, ?2, ?3, NULL, NULL, NULL, ?4, ?5, NULL, ?6, 0)")?;
    let steps = recording.steps.iter().map(|step| (step.start_ns, step.end_ns, Err(step.step)));
    let spans = recording.spans.iter().map(|span| (span.start_ns, span.end_ns, Ok(span.phase.as_str())));
    let mut rows: Vec<(u64, u64, Result<&str, u64>)> = steps.chain(spans).collect();
    rows.sort_by_key(|(start_ns, end_ns, _)| (*start_ns, std::cmp::Reverse(*end_ns)));
    let thread = recording.seen.engine_thread;
    for (start_ns, end_ns, name) in rows {
        let name = name.map_or_else(|step| format!("ProfilerStep#{step}"), str::to_owned);
        let (start, end, tid) = (frame.at(start_ns), frame.at(end_ns.max(start_ns)), frame.global_tid(thread));
        insert.execute(params![start, end, PUSH_POP, name, tid, strings.id(&name)])?;
    }
    Ok(())
}

/// The device, the process, and where this comes from.
fn target(recording: &Recording, frame: &Frame, strings: &mut Strings, to: &Connection) -> rusqlite::Result<()> {
    let session = &recording.header.session;
    let facts = recording.graphs.iter().flat_map(|graph| &graph.nodes).find_map(|node| node.launch);
    let bandwidth = session.peaks.map(|peaks| peaks.memory_gb_s * 1e9).filter(|peak| *peak > 0.0);
    to.execute(
        "INSERT INTO TARGET_INFO_GPU VALUES (0, ?1, ?2, NULL, ?6, NULL, ?3, ?4, ?5, ?1)",
        params![
            id(DEVICE),
            session.device.name,
            bandwidth.map(|peak| peak as i64),
            facts.map(|facts| facts.multiprocessors),
            session.device.isa,
            (session.device.kind == "cuda").then_some(1),
        ],
    )?;
    to.execute("INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (?1, ?1, ?2)", params![id(DEVICE), session.pid])?;
    to.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (?1)", params![frame.base_unix_ns()])?;
    to.execute("INSERT INTO PROCESSES VALUES (?1, ?2, 'vitrum')", params![frame.global_pid(), session.pid])?;
    let mut threads: Vec<u32> = recording.seen.calls.iter().map(|call| call.record.thread).collect();
    threads.push(recording.seen.engine_thread);
    threads.sort_unstable();
    threads.dedup();
    for thread in threads {
        let name =
            if thread == recording.seen.engine_thread { "engine".to_owned() } else { format!("thread {thread}") };
        let row = params![strings.id(&name), frame.global_tid(thread)];
        to.execute("INSERT INTO ThreadNames VALUES (?1, NULL, ?2)", row)?;
    }
    let mut fact = to.prepare("INSERT INTO META_DATA_EXPORT VALUES (?1, ?2)")?;
    fact.execute(params!["EXPORT_PRODUCT_NAME", "vitrum"])?;
    fact.execute(params!["EXPORT_PRODUCT_VERSION", env!("CARGO_PKG_VERSION")])?;
    let mut fact = to.prepare("INSERT INTO META_DATA_CAPTURE VALUES (?1, ?2)")?;
    fact.execute(params!["CAPTURE_PRODUCT_NAME", "vitrum"])?;
    fact.execute(params!["CAPTURE_PRODUCT_VERSION", session.version])?;
    fact.execute(params!["CAPTURE_DURATION_NS", frame.at(frame.end_ns).to_string()])?;
    Ok(())
}
