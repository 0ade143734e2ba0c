//! The end of the file: one object `vitrum` with everything that is not an event. Of several recordings it holds a list
//! `recordings` of what it is for one.

use std::io::{self, Write};

use serde::Serialize;

use super::events::Events;
use super::track::Summary;
use crate::report::json::Json;
use crate::report::layout::{Layout, Placement};
use crate::report::stats::SourceComparison;
use crate::report::{Account, Completeness, Perturbation, Recording};
use crate::trace::schema::GraphTable;
use crate::trace::session::{SessionDevice, SessionPeaks, SessionSources};

#[derive(Serialize)]
#[serde(untagged)]
enum Vitrum<'a> {
    One(Box<Entry<'a>>),
    Several { recordings: Vec<Entry<'a>> },
}

#[derive(Serialize)]
struct Entry<'a> {
    version: &'a str,
    recording: &'a str,
    model: &'a str,
    device: &'a SessionDevice,
    window: Window,
    peaks: Option<SessionPeaks>,
    /// Set if there are others in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    merged: Option<Placement>,
    /// Set where the device's pid in the file of one recording is not its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_pid: Option<u64>,
    toggled: bool,
    /// What was asked to time the nodes, and what did.
    sources: &'a SessionSources,
    /// Set where two sources timed the same nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_comparison: Option<SourceComparison>,
    completeness: &'a Completeness,
    account: &'a Account,
    perturbation: Option<Perturbation>,
    /// How the file was made of the recording.
    rendered: Rendered,
    graphs: Vec<Graph<'a>>,
}

#[derive(Serialize)]
struct Rendered {
    /// Parts of the recording that were in memory one after the other.
    windows: u64,
    /// Slices that came out of the order of time: each is there, on a lane where nothing else is at its time, or, of
    /// layers and steps, cut where another one ends.
    late: u64,
}

#[derive(Serialize)]
struct Window {
    /// Nanoseconds of the monotonic clock: what `ts` 0 is in a file of one recording.
    start_ns: u64,
    end_ns: u64,
    steps: u64,
}

/// A node table, with the graph's name as launches say it.
#[derive(Serialize)]
struct Graph<'a> {
    name: String,
    #[serde(flatten)]
    table: &'a GraphTable,
}

/// What is known of a recording when all of it was written: header and graphs, where it stands, and what it came to.
pub(super) type Whole<'a> = (&'a Recording, &'a Layout, &'a Summary);

pub(super) fn write<W: Write>(parts: &[Whole<'_>], trace_name: &str, events: &mut Events<W>) -> io::Result<()> {
    events.text("\n],\n\"vitrum\": ");
    events.value(&match parts {
        [only] => Vitrum::One(Box::new(entry(only))),
        several => Vitrum::Several { recordings: several.iter().map(entry).collect() },
    })?;
    let mut name = Vec::new();
    name.raw(",\n\"traceName\": ").string(trace_name).raw("\n}\n");
    events.text(&String::from_utf8_lossy(&name));
    Ok(())
}

fn entry<'a>((recording, layout, summary): &Whole<'a>) -> Entry<'a> {
    let session = &recording.header.session;
    let is_moved = layout.among.is_none() && layout.pids.device != layout.device;
    Entry {
        version: &session.version,
        recording: &recording.header.id,
        model: &session.model,
        device: &session.device,
        window: Window { start_ns: layout.start_ns, end_ns: layout.end_ns, steps: summary.steps },
        peaks: session.peaks,
        merged: layout.placement(recording),
        device_pid: is_moved.then_some(layout.pids.device),
        toggled: recording.header.toggle_seed.is_some(),
        sources: &session.sources,
        source_comparison: summary.source_comparison,
        completeness: &summary.completeness,
        account: &summary.account,
        perturbation: summary.perturbation,
        rendered: Rendered { windows: summary.windows, late: summary.late },
        graphs: recording.graphs.iter().map(|table| Graph { name: table.key.to_string(), table }).collect(),
    }
}
