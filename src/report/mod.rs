//! What a recording says: tables, an account of every step's time, a trace for Perfetto and HTA. Always compiled.
//!
//! A [`Report`] is made from a spool in one pass ([`Recording`]) and three computations on it: [`Completeness`] (is
//! every node there), [`Account`] (where did each step's time go), [`Perturbation`] (what did recording cost). It is in
//! memory as a whole, and renders read it: [`html`] writes a page, [`speedscope`] flame graphs, [`sqlite`] a file to
//! query, [`stats`] the tables; [`diff`] compares two. The trace, which a server writes while it serves, is made of a
//! few steps at a time instead ([`Windows`]): [`chrome`] carries lanes and sums from one window to the next, and
//! [`merge`] puts several recordings on one timeline.

mod account;
pub mod chrome;
mod completeness;
mod copies;
pub mod diff;
mod error;
pub mod html;
mod json;
mod layout;
mod lives;
pub mod merge;
mod model;
mod output;
mod perturbation;
mod ranges;
mod requests;
mod sheet;
pub mod speedscope;
pub mod sqlite;
pub mod stats;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

pub use self::account::{Account, Part, PartKind, Parts, StepAccount, Unaccounted};
pub use self::completeness::{ActivityCompleteness, Completeness, GraphCompleteness};
pub use self::error::ReportError;
pub use self::layout::{Pids, Placement};
pub use self::merge::Alignment;
pub use self::model::{Call, DeviceCopy, Lost, NodeTime, Recording, Replay, Seen, SeenNode, WINDOW_RECORDS, Windows};
pub use self::perturbation::Perturbation;
pub use self::ranges::DeviceRange;
pub use self::requests::{Doing, End, Life, Stretch};
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

/// What a recording is rendered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// The trace for Perfetto and HTA.
    Chrome,
    /// Flame graphs.
    Speedscope,
    /// A file to query, which readers of nsys' exports open, too.
    Sqlite,
    /// One page for any browser.
    Page,
}

impl Export {
    /// What stands behind a recording's name in place of `vtr`.
    fn extension(self) -> &'static str {
        match self {
            Export::Chrome => "pt.trace.json.gz",
            Export::Speedscope => "speedscope.json",
            Export::Sqlite => "sqlite",
            Export::Page => "html",
        }
    }
}

/// What nobody sets, for what nobody cancels.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Writes `DIR/PREFIX.ID.pt.trace.json.gz` beside `DIR/PREFIX.ID.vtr`.
pub fn render(spool: &Path) -> Result<Rendered, ReportError> {
    render_unless(spool, &NEVER)
}

/// The same, until `cancel` is set: then no file is left of it, and the error is [`ReportError::Cancelled`].
pub fn render_unless(spool: &Path, cancel: &AtomicBool) -> Result<Rendered, ReportError> {
    // Whoever waits for it at the other end of a pipe is not waited for.
    output::check_regular(&spool.with_extension(Export::Chrome.extension()))?;
    export_unless(spool, Export::Chrome, None, cancel)
}

/// Renders a recording to a file, beside the recording if no other is named.
pub fn export(spool: &Path, format: Export, file: Option<&Path>) -> Result<Rendered, ReportError> {
    export_unless(spool, format, file, &NEVER)
}

fn export_unless(
    spool: &Path,
    format: Export,
    file: Option<&Path>,
    cancel: &AtomicBool,
) -> Result<Rendered, ReportError> {
    let begin = Instant::now();
    let file = file.map_or_else(|| spool.with_extension(format.extension()), Path::to_owned);
    output::check_apart(spool, &file)?;
    let (nodes, completeness) = match format {
        Export::Chrome => {
            let summary = chrome::write(Windows::open(spool, cancel)?, &file)?;
            (summary.nodes, summary.completeness)
        }
        Export::Speedscope | Export::Sqlite | Export::Page => {
            let report = Report::load(spool)?;
            match format {
                Export::Speedscope => speedscope::write(&report, &file)?,
                Export::Sqlite => sqlite::write(&report, &file)?,
                Export::Chrome | Export::Page => html::write(&report, &file)?,
            }
            (report.recording.nodes.len() as u64, report.completeness)
        }
    };
    Ok(Rendered { files: vec![file], nodes, render_ms: begin.elapsed().as_millis() as u64, completeness })
}

/// One table of a recording, or all that are usual, as text, CSV or JSON.
pub fn stats(report: &Report, table: Option<Table>, format: Format) -> String {
    let tables = table.map_or_else(Table::usual, |table| vec![table]);
    sheet::print(stats::printed(report, &tables), format)
}

/// Writes tables of a recording to a file, several as CSV to one file each: `FILE_TABLE.csv`. Gives the files' names.
pub fn write_stats(
    spool: &Path,
    report: &Report,
    tables: &[Table],
    format: Format,
    file: &Path,
) -> Result<Vec<PathBuf>, ReportError> {
    let parts: Vec<(PathBuf, &[Table])> = match (format, tables) {
        (Format::Csv, [_, _, ..]) => tables.chunks(1).map(|table| (file_of_table(file, table[0]), table)).collect(),
        _ => vec![(file.to_owned(), tables)],
    };
    for (file, tables) in &parts {
        output::check_apart(spool, file)?;
        output::whole(file, |out| Ok(stats::write(report, tables, format, out)?))?;
    }
    Ok(parts.into_iter().map(|(file, _)| file).collect())
}

/// `a.csv` and `a` give `a_TABLE.csv`.
fn file_of_table(file: &Path, table: Table) -> PathBuf {
    let is_csv = file.extension().is_some_and(|extension| extension == "csv");
    let mut name = if is_csv { file.with_extension("") } else { file.to_owned() }.into_os_string();
    name.push(format!("_{}.csv", table.as_str()));
    name.into()
}
