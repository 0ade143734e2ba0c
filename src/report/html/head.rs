//! The head of the page's data: what was recorded, whether it is whole, the tables, and where the columns are.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::bars::{Bar, OpSums, bars};
use super::columns::Column;
use super::places::Places;
use crate::report::{Completeness, Doing, End, Life, Perturbation, Report, Table, Unaccounted, dominates};
use crate::trace::schema::{Op, Phase};
use crate::trace::session::{SessionDevice, SessionPeaks, SessionSources};

#[derive(Debug, Serialize)]
pub(super) struct Head<'a> {
    /// vitrum's version that recorded.
    version: &'a str,
    recording: &'a str,
    model: &'a str,
    device: &'a SessionDevice,
    peaks: Option<SessionPeaks>,
    sources: &'a SessionSources,
    /// What timed the nodes, in words.
    sources_text: &'static str,
    window: Window,
    /// The sentence on what dominates.
    dominates: String,
    completeness: &'a Completeness,
    /// The same in words.
    completeness_text: String,
    perturbation: Option<Perturbation>,
    /// What the ratio is, or why there is none.
    perturbation_note: Option<String>,
    bars: Vec<Bar>,
    unaccounted: Unaccounted,
    #[serde(flatten)]
    places: Places<'a>,
    /// Tables as `vitrum profile stats --format json` prints them.
    tables: Map<String, Value>,
    /// What the page does not hold, in words.
    left_out: Vec<String>,
    /// Names that columns have indices of.
    ops: Vec<&'static str>,
    phases: Vec<&'static str>,
    stretches: Vec<&'static str>,
    ends: [&'static str; 3],
    /// What clients call their requests, by the requests' numbers.
    request_names: BTreeMap<u64, &'a str>,
    columns: &'a [Column],
}

#[derive(Debug, Serialize)]
struct Window {
    /// Milliseconds since 1970.
    start_unix_ms: f64,
    ns: u64,
    steps: usize,
    nodes: usize,
}

/// The tables that are in the page whole.
const TABLES: [Table; 4] = [Table::KernSum, Table::StepSum, Table::Account, Table::Completeness];

pub(super) fn head<'a>(
    report: &'a Report,
    op_sums: &[OpSums],
    lives: &'a [Life],
    left_out: Vec<String>,
    columns: &'a [Column],
) -> Head<'a> {
    let recording = &report.recording;
    let session = &recording.header.session;
    let (start_ns, end_ns) = recording.span();
    let table = |table: Table| (table.as_str().to_owned(), table.of(report).to_json());
    Head {
        version: &session.version,
        recording: &recording.header.id,
        model: &session.model,
        device: &session.device,
        peaks: session.peaks,
        sources: &session.sources,
        sources_text: session.sources.used.words(),
        window: Window {
            start_unix_ms: session.clock.unix_ns_at(start_ns) as f64 / 1e6,
            ns: end_ns - start_ns,
            steps: recording.steps.len(),
            nodes: recording.nodes.len(),
        },
        dominates: dominates(report),
        completeness: &report.completeness,
        completeness_text: report.completeness.to_string(),
        perturbation: report.perturbation,
        perturbation_note: Table::Perturbation.of(report).notes.into_iter().next(),
        bars: bars(report, op_sums),
        unaccounted: report.account.unaccounted,
        places: Places::of(report),
        tables: TABLES.into_iter().map(table).collect(),
        left_out,
        ops: Op::RECORDED.iter().map(|op| op.as_str()).collect(),
        phases: Phase::ALL.iter().map(|phase| phase.as_str()).collect(),
        stretches: Doing::ALL.iter().map(|doing| doing.as_str()).collect(),
        ends: End::ALL.map(End::as_str),
        request_names: lives.iter().filter_map(|life| Some((life.request, life.name.as_deref()?))).collect(),
        columns,
    }
}
