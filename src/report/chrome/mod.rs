//! The trace in Kineto's format, for Perfetto, HTA, speedscope and whatever else reads it: of one recording, or of
//! several on one timeline.
//!
//! Rules that readers impose, each with what happens otherwise: the first event is `M` (HTA takes row 0 for "not
//! linked"); times are relative to `baseTimeNanoseconds` (19 digits do not fit a double); no partial overlap in a lane
//! (Perfetto drops the slice); `"rank": 0` with its space and on a line before the events (HTA looks for it by line);
//! stream numbers above 0, and none on slices that are no node (HTA counts every slice with a stream as a kernel).
//!
//! A recording comes window by window, so lanes, and what is not ordered yet, are carried from one to the next. A slice
//! is written once everything that begins before it was: work of the device that begins behind the next window's begin
//! waits for it. Slices of one lane stand in the order of time; those of different lanes follow the windows.
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
mod ranges;
mod requests;
mod tail;
mod track;

use std::borrow::Cow;
use std::io::{Read, Seek, Write};
use std::path::Path;

use self::events::Events;
pub use self::track::Summary;
use self::track::Track;
use super::error::Fault;
use super::json::Json;
use super::layout::{Layout, Placement};
use super::model::Windows;
use super::{Alignment, Recording, ReportError, output};

/// Writes the trace of a recording, gzipped if `path` ends in `.gz`; a file that is there is replaced by a whole one
/// only. Of a recording that was cancelled nothing is left.
pub fn write<R: Read + Seek>(mut windows: Windows<'_, R>, path: &Path) -> Result<Summary, ReportError> {
    output::maybe_gzipped(path, |out| {
        let layout = Layout::alone(windows.recording());
        let parts = &mut [Part { windows: &mut windows, layout }];
        write_parts(parts, &name_of(path), out).map(|(_, summaries)| summaries)
    })
    .map(only)
}

/// Writes the trace of several recordings in the same way, each with how its clock is put on the first one's. Says
/// where each stands in the file, and what it came to.
pub fn write_merged<R: Read + Seek>(
    recordings: &mut [(Windows<'_, R>, Alignment)],
    path: &Path,
) -> Result<Vec<(Placement, Summary)>, ReportError> {
    output::maybe_gzipped(path, |out| write_merged_parts(recordings, &name_of(path), out).map(|(_, merged)| merged))
}

/// Writes the trace of a recording as plain JSON, and returns what it wrote to.
pub fn write_json<R: Read + Seek, W: Write>(
    mut windows: Windows<'_, R>,
    trace_name: &str,
    out: W,
) -> Result<(W, Summary), ReportError> {
    let layout = Layout::alone(windows.recording());
    let parts = &mut [Part { windows: &mut windows, layout }];
    let written = write_parts(parts, trace_name, out).map_err(|fault| fault.at(Path::new(trace_name)));
    written.map(|(out, summaries)| (out, only(summaries)))
}

/// Writes the trace of several recordings as plain JSON, and returns what it wrote to.
#[cfg(test)]
pub(super) fn write_merged_json<R: Read + Seek, W: Write>(
    recordings: &mut [(Windows<'_, R>, Alignment)],
    trace_name: &str,
    out: W,
) -> Result<W, ReportError> {
    let written = write_merged_parts(recordings, trace_name, out).map_err(|fault| fault.at(Path::new(trace_name)));
    written.map(|(out, _)| out)
}

fn write_merged_parts<R: Read + Seek, W: Write>(
    recordings: &mut [(Windows<'_, R>, Alignment)],
    trace_name: &str,
    out: W,
) -> Result<(W, Vec<(Placement, Summary)>), Fault> {
    let all = recordings.iter().map(|(windows, alignment)| (windows.recording(), windows.survey(), alignment.clone()));
    let layouts = Layout::merged(&all.collect::<Vec<_>>());
    let parts = recordings.iter_mut().zip(layouts).map(|((windows, _), layout)| Part { windows, layout });
    let mut parts: Vec<_> = parts.collect();
    let (out, summaries) = write_parts(&mut parts, trace_name, out)?;
    let placed = parts.iter().map(|part| part.layout.placement(part.recording()));
    Ok((out, placed.zip(summaries).filter_map(|(placed, summary)| Some((placed?, summary))).collect()))
}

fn only(mut summaries: Vec<Summary>) -> Summary {
    summaries.remove(0)
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// A recording with its place in the file.
struct Part<'a, 'c, R> {
    windows: &'a mut Windows<'c, R>,
    layout: Layout,
}

impl<R: Read + Seek> Part<'_, '_, R> {
    fn recording(&self) -> &Recording {
        self.windows.recording()
    }

    fn write<W: Write>(&mut self, events: &mut Events<W>) -> Result<Summary, Fault> {
        let Part { windows, layout } = self;
        host::node_tables(&windows.recording().graphs, windows.survey(), layout, events)?;
        let mut track = Track::new(windows, layout);
        while let Some(window) = windows.next()? {
            track.write(&window, layout, events)?;
        }
        Ok(track.end(windows, layout, events)?)
    }
}

fn write_parts<R: Read + Seek, W: Write>(
    parts: &mut [Part<'_, '_, R>],
    trace_name: &str,
    out: W,
) -> Result<(W, Vec<Summary>), Fault> {
    let mut events = Events::new(out);
    head(parts, &mut events);
    for part in &*parts {
        host::name_lanes(part.recording(), &part.layout, &mut events)?;
    }
    let summaries: Vec<Summary> = parts.iter_mut().map(|part| part.write(&mut events)).collect::<Result<_, _>>()?;
    let whole = parts.iter().zip(&summaries).map(|(part, summary)| (part.recording(), &part.layout, summary));
    tail::write(&whole.collect::<Vec<_>>(), trace_name, &mut events)?;
    Ok((events.finish()?, summaries))
}

fn head<R: Read + Seek, W: Write>(parts: &[Part<'_, '_, R>], events: &mut Events<W>) {
    let mut text = Vec::new();
    text.raw("{\n\"schemaVersion\": 1,\n\"deviceProperties\": [");
    for (at, part) in parts.iter().enumerate() {
        let device = &part.recording().header.session.device;
        text.raw(if at == 0 { "" } else { ", " }).raw("{\"id\": ").int(part.layout.device);
        text.raw(", \"name\": ").string(&device.name).raw(", \"kind\": ").string(&device.kind);
        text.raw(", \"isa\": ").string(&device.isa).raw(", \"workers\": ").int(device.workers.into()).raw("}");
    }
    text.raw("],\n\"distributedInfo\": {\"backend\": \"none\", \"rank\": 0, \"world_size\": 1},\n");
    text.raw("\"displayTimeUnit\": \"ms\",\n\"baseTimeNanoseconds\": ").raw(&base_unix_ns(parts).to_string());
    text.raw(",\n\"traceEvents\": [");
    events.text(&String::from_utf8_lossy(&text));
}

/// The wall clock's time where the file's is 0: by the first recording's clocks.
fn base_unix_ns<R: Read + Seek>(parts: &[Part<'_, '_, R>]) -> i128 {
    let Some(part) = parts.first() else { return 0 };
    part.recording().header.session.clock.unix_ns_at(part.layout.zero_ns).max(0)
}
