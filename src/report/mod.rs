//! What a recording says: tables, an account of every step's time, a trace for Perfetto and HTA. Always compiled.
//!
//! A [`Report`] is made from a spool in one pass ([`Recording`]) and three computations on it: [`Completeness`] (is
//! every node there), [`Account`] (where did each step's time go), [`Perturbation`] (what did recording cost). Renders
//! read it: [`chrome`] writes the trace, [`stats`] the tables, [`html`] a page that shows both.

mod account;
pub mod chrome;
mod completeness;
mod error;
pub mod html;
mod lives;
mod model;
mod perturbation;
mod sheet;
pub mod stats;
#[cfg(test)]
mod tests;
mod whole_file;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

pub use self::account::{Account, Parts, StepAccount, Unaccounted};
pub use self::completeness::{ActivityCompleteness, Completeness, GraphCompleteness};
pub use self::error::ReportError;
pub use self::model::{Call, DeviceCopy, NodeTime, Recording, Replay, Seen, SeenNode};
pub use self::perturbation::Perturbation;
pub use self::sheet::{Cell, Format, Sheet};
pub use self::stats::{Table, dominates};

/// A recording and what follows from it.
#[derive(Debug)]
pub struct Report {
    /// The records.
    pub recording: Recording,
    /// Whether they are all there.
    pub completeness: Completeness,
    /// Where the steps' time went.
    pub account: Account,
    /// What recording cost, if the recording was toggled.
    pub perturbation: Option<Perturbation>,
}

impl Report {
    /// Reads a spool.
    pub fn load(spool: &Path) -> Result<Report, ReportError> {
        Ok(Report::new(Recording::load(spool)?))
    }

    /// Computes what follows from a recording.
    pub fn new(recording: Recording) -> Report {
        let completeness = Completeness::of(&recording);
        let account = Account::of(&recording);
        let perturbation = recording.header.toggle_seed.and_then(|_| Perturbation::of(&recording));
        Report { recording, completeness, account, perturbation }
    }
}

/// What [`render`] made.
#[derive(Clone, Debug, Serialize)]
pub struct Rendered {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Node times in them.
    pub nodes: u64,
    /// How long it took.
    pub render_ms: u64,
    /// Whether the recording holds what the engine counted: to be checked, and shown.
    pub completeness: Completeness,
}

/// Writes `DIR/PREFIX.ID.pt.trace.json.gz` beside `DIR/PREFIX.ID.vtr`.
pub fn render(spool: &Path) -> Result<Rendered, ReportError> {
    let begin = Instant::now();
    let report = Report::load(spool)?;
    let trace = spool.with_extension("pt.trace.json.gz");
    chrome::write(&report, &trace)?;
    Ok(Rendered {
        files: vec![trace],
        nodes: report.recording.nodes.len() as u64,
        render_ms: begin.elapsed().as_millis() as u64,
        completeness: report.completeness,
    })
}

/// One table of a recording, or all of them, as text, CSV or JSON.
pub fn stats(report: &Report, table: Option<Table>, format: Format) -> String {
    let sheets: Vec<Sheet> = match table {
        Some(table) => vec![table.of(report)],
        None => Table::ALL.iter().map(|table| table.of(report)).collect(),
    };
    sheet::print(&sheets, format)
}
