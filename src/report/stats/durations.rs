//! Tables in the shape of `nsys stats`: durations by name.

use std::collections::BTreeMap;

use super::{percent, sum};
use crate::report::sheet::Cell;
use crate::report::{Report, Sheet};
use crate::trace::activity::CopyKind;

/// `cuda_gpu_kern_sum`: nodes by kernel name.
pub(super) fn kern_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let mut durations = Durations::new();
    for node in &recording.nodes {
        durations.entry(&recording.info(node).kernel).or_default().push(node.end_ns - node.start_ns);
    }
    sheet(name, ("Instances", "Name"), durations, Extra::default())
}

/// `cuda_api_sum`: calls of the driver by function.
pub(super) fn api_sum(name: &'static str, report: &Report) -> Sheet {
    let mut durations = Durations::new();
    for call in &report.recording.seen.calls {
        durations.entry(call.record.call.as_str()).or_default().push(call.record.end_ns - call.record.start_ns);
    }
    let note = match durations.is_empty() {
        true => "Calls are seen by the driver's profiling library alone, and it saw none.",
        false => "Calls that launch something or wait, on every thread, by the driver's profiling library.",
    };
    sheet(name, ("Num Calls", "Name"), durations, Extra { style: None, notes: vec![note.into()] })
}

/// `cuda_gpu_mem_time_sum`: copies and fills by kind.
pub(super) fn mem_time_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let mut durations = Durations::new();
    for copy in &recording.seen.copies {
        let ns = copy.record.end_ns - copy.record.start_ns;
        durations.entry(operation(copy.record.kind)).or_default().push(ns);
    }
    let mut is_stamped = false;
    for (_, kind, stamp) in recording.stamped_copies() {
        durations.entry(operation(kind)).or_default().push(stamp.end_ns - stamp.start_ns);
        is_stamped = true;
    }
    let note = match (is_stamped, recording.seen.copies.is_empty()) {
        (true, true) => "Each step's upload and download, by the device's own stamps.",
        (true, false) => {
            "Every copy and fill, by the driver's profiling library; of steps that it was not to see the upload and \
             the download, by the device's own stamps."
        }
        (false, false) => "Every copy and fill, by the driver's profiling library.",
        (false, true) => "The recording holds no copies.",
    };
    sheet(name, ("Count", "Operation"), durations, Extra { style: None, notes: vec![note.into()] })
}

/// A copy's name, as nsys has it.
pub(super) fn operation(kind: CopyKind) -> &'static str {
    match kind {
        CopyKind::HtoD => "[CUDA memcpy Host-to-Device]",
        CopyKind::DtoH => "[CUDA memcpy Device-to-Host]",
        CopyKind::DtoD => "[CUDA memcpy Device-to-Device]",
        CopyKind::Other => "[CUDA memcpy Other]",
        CopyKind::Fill => "[CUDA memset]",
    }
}

/// Durations by name.
pub(super) type Durations<'a> = BTreeMap<&'a str, Vec<u64>>;

/// What a table has beside durations by name.
#[derive(Default)]
pub(super) struct Extra {
    /// The column `Style`, the same in all rows.
    pub(super) style: Option<&'static str>,
    pub(super) notes: Vec<String>,
}

/// Durations by name, the largest sum first.
pub(super) fn sheet(
    name: &'static str,
    (count, key): (&'static str, &'static str),
    durations: Durations<'_>,
    Extra { style, notes }: Extra,
) -> Sheet {
    let total_ns = sum(durations.values().flatten().copied());
    let mut names: Vec<(u64, &str, Vec<u64>)> =
        durations.into_iter().map(|(name, durations)| (sum(durations.iter().copied()), name, durations)).collect();
    names.sort_by_key(|(sum_ns, name, _)| (std::cmp::Reverse(*sum_ns), *name));
    let row = |(sum_ns, name, mut durations): (u64, &str, Vec<u64>)| {
        durations.sort_unstable();
        let spread = Spread::of(&durations);
        let mut cells = vec![
            Cell::real(percent(sum_ns as f64, total_ns as f64), 1),
            Cell::Int(sum_ns),
            Cell::Int(durations.len() as u64),
            Cell::Real(spread.mean, 1),
            Cell::Real(spread.median, 1),
            Cell::Int(durations[0]),
            Cell::Int(durations[durations.len() - 1]),
            Cell::Real(spread.deviation, 1),
        ];
        cells.extend(style.map(|style| Cell::Text(style.into())));
        cells.push(Cell::Text(name.into()));
        cells
    };
    let mut columns =
        vec!["Time (%)", "Total Time (ns)", count, "Avg (ns)", "Med (ns)", "Min (ns)", "Max (ns)", "StdDev (ns)"];
    columns.extend(style.map(|_| "Style"));
    columns.push(key);
    Sheet { name, columns, rows: names.into_iter().map(row).collect(), notes }
}

/// What sorted values, at least one, have in common.
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) median: f64,
    /// Of a sample: divided by n − 1; 0 for a single value.
    pub(super) deviation: f64,
}

impl Spread {
    /// The value below which this share of the values lies, with what lies between two of them in proportion.
    pub(super) fn quantile(sorted: &[u64], share: f64) -> Option<f64> {
        let at = share * sorted.len().checked_sub(1)? as f64;
        let (low, high) = (sorted[at.floor() as usize] as f64, sorted[at.ceil() as usize] as f64);
        Some(low + (high - low) * at.fract())
    }

    pub(super) fn of(sorted: &[u64]) -> Spread {
        let count = sorted.len() as f64;
        let mean = sorted.iter().map(|value| *value as f64).sum::<f64>() / count;
        let squares: f64 = sorted.iter().map(|value| (*value as f64 - mean).powi(2)).sum();
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Spread {
            mean,
            median: (low as f64 + high as f64) / 2.0,
            deviation: if sorted.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy.quantile([1, 2, 4, 8, 100], share)
    #[test]
    fn quantiles_are_those_of_numpy() {
        let sorted = [1, 2, 4, 8, 100];
        for (share, value) in [(0.0, 1.0), (0.5, 4.0), (0.6, 5.6), (0.99, 96.32), (1.0, 100.0)] {
            let found = Spread::quantile(&sorted, share).expect("values");
            assert!((found - value).abs() < 1e-9, "{share}: {found}");
        }
        assert_eq!(Spread::quantile(&[7], 0.99), Some(7.0));
        assert_eq!(Spread::quantile(&[], 0.5), None);
    }
}
