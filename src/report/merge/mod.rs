//! Recordings of several servers as one trace, on one timeline.

mod clocks;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::clocks::{AlignedBy, Alignment};
use super::sheet::{Cell, Sheet};
use super::{NEVER, Placement, ReportError, Windows, chrome, output};
use crate::trace::spool::SpoolHeader;

/// A wall clock that moved by more against the monotonic one between two recordings was set, or is of another machine.
const WALL_CLOCK_MOVES_NS: u128 = 100_000_000;
/// Of a file that is longer, a double in microseconds does not hold single nanoseconds: 2⁴¹ µs, 25 days.
const LENGTH_NS_MAX: u64 = 1 << 51;

/// What [`merge`] made.
#[derive(Debug)]
pub struct Merged {
    /// The file.
    pub path: PathBuf,
    /// Where each recording stands in it, and how its clock was aligned.
    pub sheet: Sheet,
    /// What is amiss with recordings that are not complete.
    pub incomplete: Vec<String>,
}

/// Why recordings could not be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error(
        "merging takes two recordings or more, and {given} was given: vitrum profile export writes the trace of one"
    )]
    TooFew {
        /// How many there were.
        given: usize,
    },
    /// One recording, given twice.
    #[error("{} and {} are the same recording: {id} of process {pid}", first.display(), second.display())]
    Twice {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The recording's id.
        id: String,
        /// The process.
        pid: u32,
    },
    /// A name by which readers would not know the file.
    #[error("{}: the trace's name has to end in .json.gz", path.display())]
    Name {
        /// The name.
        path: PathBuf,
    },
    /// A recording could not be read, or the trace not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Writes the trace of several recordings: to `out`, or else beside the first one.
pub fn merge(files: &[PathBuf], out: Option<&Path>) -> Result<Merged, MergeError> {
    let [first, _, ..] = files else { return Err(MergeError::TooFew { given: files.len() }) };
    let path = out.map_or_else(|| first.with_extension("merged.pt.trace.json.gz"), Path::to_owned);
    if !path.to_string_lossy().ends_with(".json.gz") {
        return Err(MergeError::Name { path });
    }
    files.iter().try_for_each(|file| output::check_apart(file, &path))?;
    let mut recordings: Vec<Windows<'_, _>> = Vec::with_capacity(files.len());
    for (at, file) in files.iter().enumerate() {
        let windows = Windows::open(file, &NEVER)?;
        let header = windows.header();
        if let Some(before) = recordings.iter().position(|before| is_same(before.header(), header)) {
            let (first, second) = (files[before].clone(), files[at].clone());
            return Err(MergeError::Twice { first, second, id: header.id.clone(), pid: header.session.pid });
        }
        recordings.push(windows);
    }
    let headers: Vec<SpoolHeader> = recordings.iter().map(|windows| windows.header().clone()).collect();
    let anchors: Vec<_> = headers.iter().map(|header| &header.session.clock).collect();
    let mut parts: Vec<_> = recordings.into_iter().zip(clocks::align(&anchors)).collect();
    let (placements, summaries): (Vec<_>, Vec<_>) = chrome::write_merged(&mut parts, &path)?.into_iter().unzip();
    let incomplete = files.iter().zip(&summaries).filter(|(_, summary)| !summary.completeness.complete);
    Ok(Merged {
        path,
        sheet: sheet(&headers, &placements),
        incomplete: incomplete.map(|(file, summary)| format!("{}: {}", file.display(), summary.completeness)).collect(),
    })
}

/// Ids are times in microseconds, and in containers most processes have one pid: the clock says the rest.
fn is_same(one: &SpoolHeader, other: &SpoolHeader) -> bool {
    (&one.id, one.session.pid, &one.session.clock) == (&other.id, other.session.pid, &other.session.clock)
}

fn sheet(headers: &[SpoolHeader], placements: &[Placement]) -> Sheet {
    let row = |(header, placed): (&SpoolHeader, &Placement)| {
        vec![
            Cell::Text(header.id.clone()),
            Cell::Text(header.session.model.clone()),
            Cell::Int(placed.process.into()),
            Cell::Text(format!("{}-{}", placed.pids.device, placed.pids.overheads)),
            Cell::Real(placed.start_ns as f64 / 1e6, 3),
            Cell::Real(placed.end_ns.saturating_sub(placed.start_ns) as f64 / 1e6, 3),
            Cell::Text(placed.clock.by.to_string()),
            Cell::Text(placed.clock.offset_ns.to_string()),
            Cell::int(placed.clock.error_ns),
        ]
    };
    Sheet {
        name: "merge",
        columns: vec![
            "Recording",
            "Model",
            "Pid",
            "Pids in the file",
            "Begin (ms)",
            "Length (ms)",
            "Aligned by",
            "Offset (ns)",
            "Error (ns)",
        ],
        rows: headers.iter().zip(placements).map(row).collect(),
        notes: notes(headers, placements),
    }
}

fn notes(headers: &[SpoolHeader], placements: &[Placement]) -> Vec<String> {
    let mut notes = Vec::new();
    if placements.iter().any(|placed| placed.clock.by == AlignedBy::WallClock) {
        let mut note = "Clocks that are not known to be of one boot are aligned by the wall clock. Error is that of \
                        reading them; those of different machines are only as good as their synchronisation, which \
                        nothing here measures."
            .to_owned();
        if placements.iter().any(|placed| placed.clock.error_ns.is_none()) {
            _ = write!(note, " Without an error: a recording of an older build did not measure it.");
        }
        notes.push(note);
    }
    for (header, placed) in headers.iter().zip(placements) {
        let moved_ns = placed.clock.wall_clock_differs_ns;
        if moved_ns.unsigned_abs() > WALL_CLOCK_MOVES_NS {
            notes.push(format!(
                "WARNING: by its own wall clock recording {} would lie {:+.3} s elsewhere: that clock was set in \
                 between, or machines that are copies of one count different clocks by one name.",
                header.id,
                moved_ns as f64 / 1e9
            ));
        }
    }
    let windows = || placements.iter().map(|placed| (placed.start_ns, placed.end_ns));
    let latest_start_ns = windows().map(|(start_ns, _)| start_ns).max();
    if latest_start_ns > windows().map(|(_, end_ns)| end_ns).min() {
        notes.push("WARNING: there is no moment at which all of them recorded.".to_owned());
    }
    if windows().any(|(_, end_ns)| end_ns > LENGTH_NS_MAX) {
        notes.push("WARNING: they lie more than 25 days apart: readers round their times.".to_owned());
    }
    notes
}
