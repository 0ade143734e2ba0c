//! The trace in Kineto's format, for Perfetto, HTA, speedscope and whatever else reads it.
//!
//! Rules that readers impose, each with what happens otherwise: the first event is `M` (HTA takes row 0 for "not
//! linked"); times are relative to `baseTimeNanoseconds` (19 digits do not fit a double); no partial overlap in a lane
//! (Perfetto drops the slice); `"rank": 0` with its space and on a line before the events (HTA looks for it by line);
//! stream numbers above 0, and none on slices that are no node (HTA counts every slice with a stream as a kernel).

pub(super) mod calls;
pub(super) mod copies;
mod engine;
mod host;
pub(super) mod json;
mod lanes;
pub(super) mod nodes;
mod requests;
mod tail;

use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use self::json::{Events, Json};
use super::{Recording, Report, ReportError, output};

/// The device's number, and the pid of its lanes.
pub(super) const DEVICE: u64 = 0;
/// The pid of the requests' lanes, above any pid of the operating system (at most 2²²).
const REQUESTS_PID: u64 = 10_000_000;
/// The pid of what the driver's profiling library took for itself.
const OVERHEADS_PID: u64 = 11_000_000;
/// Added to the device's pid if the engine's process has that pid.
const PID_OFFSET: u64 = 20_000_000;
/// The stream of all nodes, and the tid of its lane. HTA wants it above 0.
pub(super) const STREAM: u64 = 1;
/// The tids of the lanes above the nodes.
const STEPS_TID: u64 = 1_000;
const LAYERS_TID: u64 = 1_001;
/// The tid of the second lane of overlapping nodes; further ones follow.
const OVERLAP_TID: u64 = 2_000;
/// The tid of the second lane of the engine's thread, above any of the operating system.
const ENGINE_OVERLAP_TID: u64 = 10_000_000;
/// The tid of the first lane of calls that have none of their own: on a thread whose number is none of the operating
/// system's, or beside calls that they overlap.
const CALL_LANES_TID: u64 = 20_000_000;

/// Where things stand in the file.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The moment that is 0 in the file, on the monotonic clock.
    base_ns: u64,
    end_ns: u64,
    device_pid: u64,
    host_pid: u64,
    engine_tid: u64,
}

impl Layout {
    fn of(recording: &Recording) -> Layout {
        let session = &recording.header.session;
        let (base_ns, end_ns) = recording.window().unwrap_or((session.clock.monotonic_ns, session.clock.monotonic_ns));
        let host_pid = u64::from(session.pid);
        Layout {
            base_ns,
            end_ns,
            device_pid: if host_pid == DEVICE { DEVICE + PID_OFFSET } else { DEVICE },
            host_pid,
            engine_tid: u64::from(session.engine_tid),
        }
    }

    /// A moment as the file says it.
    fn at(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.base_ns)
    }
}

/// Writes the trace, gzipped if `path` ends in `.gz`; a file that is there is replaced by a whole one only.
pub fn write(report: &Report, path: &Path) -> Result<(), ReportError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    output::whole(path, |file| {
        let is_zipped = path.extension().is_some_and(|extension| extension == "gz");
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut out = match is_zipped {
            true => write_json(report, &name, GzEncoder::new(out, Compression::new(1)))?.finish()?,
            false => write_json(report, &name, out)?,
        };
        out.flush()
    })
}

/// Writes the trace as plain JSON, and returns what it wrote to.
pub fn write_json<W: Write>(report: &Report, trace_name: &str, out: W) -> io::Result<W> {
    let layout = Layout::of(&report.recording);
    let mut events = Events::new(out);
    head(report, &layout, &mut events)?;
    host::name_lanes(report, &layout, &mut events)?;
    host::node_tables(&report.recording, &layout, &mut events)?;
    let has_copies = calls::has_copies(&report.recording);
    engine::engine_thread(report, &has_copies, &layout, &mut events)?;
    calls::other_threads(&report.recording, &has_copies, &layout, &mut events)?;
    nodes::write(report, &layout, &mut events)?;
    calls::overheads(&report.recording, &layout, &mut events)?;
    requests::write(&report.recording, &layout, &mut events)?;
    tail::write(report, &layout, trace_name, &mut events)?;
    events.finish()
}

fn head<W: Write>(report: &Report, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let session = &report.recording.header.session;
    let clock = session.clock;
    let base_unix_ns = i128::from(clock.unix_ns) + i128::from(layout.base_ns) - i128::from(clock.monotonic_ns);
    let mut text = Vec::new();
    text.raw("{\n\"schemaVersion\": 1,\n\"deviceProperties\": [{\"id\": ").int(DEVICE).raw(", \"name\": ");
    text.string(&session.device.name).raw(", \"kind\": ").string(&session.device.kind);
    text.raw(", \"isa\": ").string(&session.device.isa).raw(", \"workers\": ").int(session.device.workers.into());
    text.raw("}],\n\"distributedInfo\": {\"backend\": \"none\", \"rank\": 0, \"world_size\": 1},\n");
    text.raw("\"displayTimeUnit\": \"ms\",\n\"baseTimeNanoseconds\": ").raw(&base_unix_ns.max(0).to_string());
    text.raw(",\n\"traceEvents\": [");
    events.text(&String::from_utf8_lossy(&text));
    Ok(())
}
