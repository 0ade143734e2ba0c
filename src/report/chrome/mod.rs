//! The trace in Kineto's format, for Perfetto, HTA, speedscope and whatever else reads it: of one recording, or of
//! several on one timeline.
//!
//! Rules that readers impose, each with what happens otherwise: the first event is `M` (HTA takes row 0 for "not
//! linked"); times are relative to `baseTimeNanoseconds` (19 digits do not fit a double); no partial overlap in a lane
//! (Perfetto drops the slice); `"rank": 0` with its space and on a line before the events (HTA looks for it by line);
//! stream numbers above 0, and none on slices that are no node (HTA counts every slice with a stream as a kernel).
//!
//! Of several recordings, pids, streams, correlations and graph ids are moved apart, always: HTA takes nodes of one
//! stream for one device's, and joins what has one correlation.

mod calls;
mod copies;
mod engine;
mod events;
mod host;
mod lanes;
mod nodes;
mod requests;
mod tail;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use self::events::Events;
use super::json::Json;
use super::layout::{Layout, Placement};
use super::{Alignment, Report, ReportError, output};

/// Writes the trace of a recording, gzipped if `path` ends in `.gz`; a file that is there is replaced by a whole one
/// only.
pub fn write(report: &Report, path: &Path) -> Result<(), ReportError> {
    output::maybe_gzipped(path, |out| write_json(report, &name_of(path), out).map(drop))
}

/// Writes the trace of several recordings in the same way, each with how its clock is put on the first one's. Says
/// where each stands in the file.
pub fn write_merged(reports: &[(&Report, Alignment)], path: &Path) -> Result<Vec<Placement>, ReportError> {
    output::maybe_gzipped(path, |out| write_merged_json(reports, &name_of(path), out).map(|(_, placements)| placements))
}

/// Writes the trace of a recording as plain JSON, and returns what it wrote to.
pub fn write_json<W: Write>(report: &Report, trace_name: &str, out: W) -> io::Result<W> {
    write_parts(&[Part { report, layout: Layout::alone(&report.recording) }], trace_name, out)
}

/// Writes the trace of several recordings as plain JSON, and returns what it wrote to, and where each stands in it.
pub(super) fn write_merged_json<W: Write>(
    reports: &[(&Report, Alignment)],
    trace_name: &str,
    out: W,
) -> io::Result<(W, Vec<Placement>)> {
    let recordings: Vec<_> = reports.iter().map(|(report, alignment)| (&report.recording, alignment.clone())).collect();
    let layouts = Layout::merged(&recordings).into_iter();
    let parts: Vec<_> = reports.iter().zip(layouts).map(|((report, _), layout)| Part { report, layout }).collect();
    let out = write_parts(&parts, trace_name, out)?;
    Ok((out, parts.iter().filter_map(|part| part.layout.placement(&part.report.recording)).collect()))
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// A recording with its place in the file.
struct Part<'a> {
    report: &'a Report,
    layout: Layout,
}

fn write_parts<W: Write>(parts: &[Part<'_>], trace_name: &str, out: W) -> io::Result<W> {
    let mut events = Events::new(out);
    head(parts, &mut events);
    for Part { report, layout } in parts {
        host::name_lanes(report, layout, &mut events)?;
    }
    for Part { report, layout } in parts {
        host::node_tables(&report.recording, layout, &mut events)?;
        let has_copies = calls::has_copies(&report.recording);
        engine::engine_thread(report, &has_copies, layout, &mut events)?;
        calls::other_threads(&report.recording, &has_copies, layout, &mut events)?;
        nodes::write(report, layout, &mut events)?;
        calls::overheads(&report.recording, layout, &mut events)?;
        requests::write(&report.recording, layout, &mut events)?;
    }
    tail::write(parts, trace_name, &mut events)?;
    events.finish()
}

fn head<W: Write>(parts: &[Part<'_>], events: &mut Events<W>) {
    let mut text = Vec::new();
    text.raw("{\n\"schemaVersion\": 1,\n\"deviceProperties\": [");
    for (at, Part { report, layout }) in parts.iter().enumerate() {
        let device = &report.recording.header.session.device;
        text.raw(if at == 0 { "" } else { ", " }).raw("{\"id\": ").int(layout.device);
        text.raw(", \"name\": ").string(&device.name).raw(", \"kind\": ").string(&device.kind);
        text.raw(", \"isa\": ").string(&device.isa).raw(", \"workers\": ").int(device.workers.into()).raw("}");
    }
    text.raw("],\n\"distributedInfo\": {\"backend\": \"none\", \"rank\": 0, \"world_size\": 1},\n");
    text.raw("\"displayTimeUnit\": \"ms\",\n\"baseTimeNanoseconds\": ").raw(&base_unix_ns(parts).to_string());
    text.raw(",\n\"traceEvents\": [");
    events.text(&String::from_utf8_lossy(&text));
}

/// The wall clock's time where the file's is 0: by the first recording's clocks.
fn base_unix_ns(parts: &[Part<'_>]) -> i128 {
    let Some(Part { report, layout }) = parts.first() else { return 0 };
    report.recording.header.session.clock.unix_ns_at(layout.zero_ns).max(0)
}
