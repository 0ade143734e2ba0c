//! One sentence: what a recording's time goes into, and what bounds it.

use super::nodes::{NodeSums, merged};
use crate::report::{Part, PartKind, Report};
use crate::trace::session::SessionPeaks;

/// A node that reaches this share of a roof is bound by it.
const BOUND_PERCENT: f64 = 50.0;

/// Says what dominates a recording.
pub fn dominates(report: &Report) -> String {
    let total = &report.account.total;
    let largest = total.named().into_iter().max_by_key(|part| part.ns).filter(|part| part.ns > 0);
    if let Some(Part { name, ns, .. }) = largest.filter(|part| part.kind != PartKind::Node) {
        let share = 100.0 * ns as f64 / total.wall_ns as f64;
        let nodes = 100.0 * total.nodes_ns as f64 / total.wall_ns as f64;
        return format!("{name} takes {share:.0} % of step time, nodes {nodes:.0} %: the device waits for the host.");
    }
    let by_op = merged(report, |(_, op)| op);
    let total_ns: u64 = by_op.values().map(|sums| sums.excl_ns).sum();
    let Some((op, sums)) = by_op.iter().max_by_key(|(_, sums)| sums.excl_ns).filter(|_| total_ns > 0) else {
        return "The recording holds no node times.".into();
    };
    let share = 100.0 * sums.excl_ns as f64 / total_ns as f64;
    let peaks = report.recording.header.session.peaks;
    format!("{op} takes {share:.0} % of node time {}.", bound(sums, peaks))
}

fn bound(sums: &NodeSums, peaks: Option<SessionPeaks>) -> String {
    let (Some(gb_s), Some(gflop_s)) = (sums.gb_s(), sums.gflop_s()) else {
        return "(its steps' sizes are not in the recording)".into();
    };
    let Some((peaks, read)) = peaks.zip(sums.read_peak_percent()) else {
        return format!("at {gb_s:.1} GB/s and {gflop_s:.1} GFLOP/s (the device's peaks were not measured)");
    };
    let peak_gflop_s = peaks.arithmetic_gop_s();
    let arithmetic = if peak_gflop_s > 0.0 { 100.0 * gflop_s / peak_gflop_s } else { 0.0 };
    let level = sums.level().unwrap_or("memory");
    if read.max(arithmetic) < BOUND_PERCENT {
        format!(
            "at {gb_s:.1} GB/s ({read:.0} % of the measured read peak, {level}) and {gflop_s:.1} GFLOP/s \
             ({arithmetic:.0} % of the measured arithmetic peak): far from both roofs"
        )
    } else if read >= arithmetic {
        format!("at {gb_s:.1} GB/s ({read:.0} % of the measured read peak, {level}): memory-bound")
    } else {
        format!("at {gflop_s:.1} GFLOP/s ({arithmetic:.0} % of the measured arithmetic peak): compute-bound")
    }
}
