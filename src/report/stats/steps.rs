//! Tables of steps: what they did, where their time went, what recording cost.

use std::collections::BTreeMap;

use super::durations::Spread;
use super::{percent, sum};
use crate::report::sheet::Cell;
use crate::report::{Report, Sheet, model};
use crate::trace::schema::GraphKey;

/// Steps by the graphs that they replayed.
pub(super) fn step_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let graphs_of = recording.graphs_by_step();
    let mut classes: BTreeMap<Vec<GraphKey>, StepClass> = BTreeMap::new();
    for step in &recording.steps {
        let class = classes.entry(graphs_of.get(&step.step).cloned().unwrap_or_default()).or_default();
        class.steps += 1;
        class.tokens = class.tokens.saturating_add(step.sizes.tokens);
        class.prefill_tokens = class.prefill_tokens.saturating_add(step.prefill_tokens);
        class.seqs = class.seqs.saturating_add(step.sizes.seqs);
    }
    for step in &report.account.steps {
        if let Some(class) = graphs_of.get(&step.step).and_then(|keys| classes.get_mut(keys)) {
            class.walls_ns.push(step.parts.wall_ns);
            class.nodes_ns = class.nodes_ns.saturating_add(step.parts.nodes_ns);
        }
    }
    Sheet {
        name,
        columns: vec![
            "Graphs",
            "Steps",
            "Tokens",
            "Prompt tokens",
            "Avg seqs",
            "Accounted",
            "Avg (ns)",
            "Med (ns)",
            "Min (ns)",
            "Max (ns)",
            "Nodes (%)",
        ],
        rows: classes.into_iter().map(|(keys, class)| class.row(&keys)).collect(),
        notes: vec!["Times are those of accounted steps, from the end of the device's work on the step before.".into()],
    }
}

#[derive(Default)]
struct StepClass {
    steps: u64,
    tokens: u64,
    prefill_tokens: u64,
    seqs: u64,
    walls_ns: Vec<u64>,
    nodes_ns: u64,
}

impl StepClass {
    fn row(mut self, keys: &[GraphKey]) -> Vec<Cell> {
        let name = model::names(keys);
        self.walls_ns.sort_unstable();
        let spread = (!self.walls_ns.is_empty()).then(|| Spread::of(&self.walls_ns));
        let wall_ns = sum(self.walls_ns.iter().copied());
        vec![
            Cell::Text(if name.is_empty() { "not recorded".into() } else { name }),
            Cell::Int(self.steps),
            Cell::Int(self.tokens),
            Cell::Int(self.prefill_tokens),
            Cell::Real(self.seqs as f64 / self.steps as f64, 2),
            Cell::Int(self.walls_ns.len() as u64),
            Cell::real(spread.as_ref().map(|spread| spread.mean), 1),
            Cell::real(spread.as_ref().map(|spread| spread.median), 1),
            Cell::int(self.walls_ns.first().copied()),
            Cell::int(self.walls_ns.last().copied()),
            Cell::real(percent(self.nodes_ns as f64, wall_ns as f64), 1),
        ]
    }
}

/// The account's parts; they sum up to its wall time.
pub(super) fn account(name: &'static str, report: &Report) -> Sheet {
    let account = &report.account;
    let (total, left_out) = (&account.total, &account.unaccounted);
    let steps = account.steps.len() as f64;
    let row = |part: &str, ns: u64| {
        vec![
            Cell::Text(part.into()),
            Cell::Int(ns),
            Cell::real(percent(ns as f64, total.wall_ns as f64), 2),
            Cell::real(Some(ns as f64 / steps), 1),
        ]
    };
    let parts = total.named().into_iter().map(|part| row(part.name, part.ns));
    Sheet {
        name,
        columns: vec!["Part", "Total (ns)", "Wall (%)", "Avg per step (ns)"],
        rows: parts.chain([row("wall", total.wall_ns)]).collect(),
        notes: vec![
            format!(
                "{} steps accounted for, {:.2} % of their time unattributed.",
                account.steps.len(),
                100.0 * total.unattributed_share()
            ),
            "Host parts are times in which the device waited for the engine's thread: a step that was submitted while \
             the one before it ran has none. Gaps are what lies between measured times."
                .to_owned(),
            format!(
                "Without an account: {} not traced, {} behind a step without node times, {} behind one that was left \
                 out, {} with node times missing.",
                left_out.untraced, left_out.after_untraced, left_out.after_left_out, left_out.incomplete
            ),
        ],
    }
}

/// What recording cost.
pub(super) fn perturbation(name: &'static str, report: &Report) -> Sheet {
    let rows = report.perturbation.map(|cost| {
        vec![
            Cell::Real(cost.ratio, 4),
            Cell::Real(cost.ratio_low, 4),
            Cell::Real(cost.ratio_high, 4),
            Cell::Int(cost.pairs),
            Cell::Int(cost.traced_ns_median),
            Cell::Int(cost.untraced_ns_median),
        ]
    });
    let note = match (report.perturbation, report.recording.header.toggle_seed) {
        (Some(_), _) => "Step time with node recording over step time without, in pairs of equal steps; 95 % interval.",
        (None, Some(_)) => "Too few pairs of equal steps to compare.",
        (None, None) => "Not measured: record with toggle to measure it.",
    };
    Sheet {
        name,
        columns: vec!["Ratio", "Low", "High", "Pairs", "Med recorded (ns)", "Med not recorded (ns)"],
        rows: rows.into_iter().collect(),
        notes: vec![note.into()],
    }
}
