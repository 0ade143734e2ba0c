//! The report: one page that shows a recording, and needs neither a network nor anything beside it.
//!
//! ```text
//! report ── head.rs: JSON: facts, tables, places ─┐
//!        └─ series.rs: columns of integers ───────┴─ gzip ─ base64 ─┐
//! page/*.js, page/page.css, vendor/* ──────────────────────────────┴─ page/page.html
//! ```
//!
//! Numbers that a table has are computed here, by the code of the tables; the page draws, sorts and filters them, and
//! adds up those of an op and of a request's steps. A name is untrusted: it is in the page as data alone, which the
//! page shows as text, and scripts that are not this page's do not run (`Content-Security-Policy`, by the scripts'
//! hashes).

mod bars;
mod columns;
mod head;
mod places;
mod series;
mod text;

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use self::columns::Columns;
use super::{Life, Report, ReportError, output};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLES: [&str; 3] =
    [include_str!("vendor/uplot/uPlot.min.css"), include_str!("page/colours.css"), include_str!("page/page.css")];
const LIBRARY: &str = include_str!("vendor/uplot/uPlot.iife.min.js");
/// Parts of one script: what they declare, the others see.
const SCRIPTS: [&str; 16] = [
    include_str!("page/data.js"),
    include_str!("page/format.js"),
    include_str!("page/theme.js"),
    include_str!("page/table.js"),
    include_str!("page/top.js"),
    include_str!("page/steps.js"),
    include_str!("page/account.js"),
    include_str!("page/places.js"),
    include_str!("page/roofline.js"),
    include_str!("page/requests.js"),
    include_str!("page/lanes.js"),
    include_str!("page/timeline.js"),
    include_str!("page/timeline_draw.js"),
    include_str!("page/timeline_move.js"),
    include_str!("page/timeline_search.js"),
    include_str!("page/main.js"),
];

/// The most of each kind of record that a page holds. What is beyond is in the tables, and the page says so.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Node times, for the timeline.
    pub nodes: usize,
    /// Steps.
    pub steps: usize,
    /// Host phases.
    pub spans: usize,
    /// Rows of batch compositions.
    pub members: usize,
    /// Requests.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: 1_000_000, steps: 200_000, spans: 1_000_000, members: 1_000_000, requests: 50_000 }
    }
}

/// Writes the page to a temporary file beside `path` and renames it when it is whole.
pub fn write(report: &Report, path: &Path) -> Result<(), ReportError> {
    output::whole(path, |out| Ok(out.write_all(page(report, &Limits::default())?.as_bytes())?))
}

/// The page.
pub fn page(report: &Report, limits: &Limits) -> io::Result<String> {
    let data = text::base64(&gzip(&data(report, limits)?)?);
    let own = format!("(() => {{\n'use strict';\n{}}})();\n", SCRIPTS.join("\n"));
    let scripts = [LIBRARY, own.as_str()];
    let hashes: Vec<String> = scripts.iter().map(|script| format!("'sha256-{}'", text::sha256(script))).collect();
    let tags: Vec<String> = scripts.iter().map(|script| format!("<script>{script}</script>\n")).collect();
    let session = &report.recording.header.session;
    let parts = [
        ("TITLE", text::escape(&format!("{} · {} · vitrum", session.model, report.recording.header.id))),
        ("POLICY", hashes.join(" ")),
        ("STYLES", STYLES.join("\n")),
        ("DATA", data),
        ("SCRIPTS", tags.concat()),
    ];
    Ok(text::fill(TEMPLATE, &parts))
}

/// Length of the head in four bytes, the lowest first; the head as JSON; the columns.
fn data(report: &Report, limits: &Limits) -> io::Result<Vec<u8>> {
    let mut columns = Columns::default();
    let op_sums = bars::op_sums(&report.recording);
    let lives = Life::all(&report.recording);
    let left_out = series::write(report, &op_sums, &lives, limits, &mut columns);
    let shown = &lives[..lives.len().min(limits.requests)];
    let head = serde_json::to_vec(&head::head(report, &op_sums, shown, left_out, columns.index()))?;
    let length = u32::try_from(head.len()).map_err(|_| io::Error::other("the page's tables are longer than 4 GB"))?;
    Ok([&length.to_le_bytes(), head.as_slice(), columns.bytes()].concat())
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(bytes)?;
    gzip.finish()
}
