//! Whether two recordings are of the same thing: what differs besides what is measured.

use std::collections::BTreeMap;

use super::shift::EXECUTIONS_MIN;
use crate::report::perturbation::median;
use crate::report::{Cell, Report, Sheet};
use crate::trace::schema::{GraphKey, StepSizes};
use crate::trace::session::Granularity;

/// Sizes of steps that differ by more make times differ.
const LOAD_DIFFERS: f64 = 0.1;

/// A property of both recordings.
#[derive(Clone, Debug)]
pub struct Property {
    /// What it is.
    pub what: &'static str,
    /// Of the one.
    pub base: String,
    /// Of the other.
    pub new: String,
    /// What a difference means.
    weight: Weight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Times cannot be compared.
    Unlike,
    /// It may be why times differ.
    Matters,
    /// It is to be expected.
    Named,
}

impl Property {
    fn differs(&self) -> bool {
        self.base != self.new
    }

    /// Whether it keeps the two from being compared.
    pub fn is_unlike(&self) -> bool {
        self.weight == Weight::Unlike && self.differs()
    }
}

/// What the two recordings are of.
pub(super) fn properties(base: &Report, new: &Report) -> Vec<Property> {
    let property =
        |what, weight, of: &dyn Fn(&Report) -> String| Property { what, base: of(base), new: of(new), weight };
    let (unlike, matters, named) = (Weight::Unlike, Weight::Matters, Weight::Named);
    let peaks = |report: &Report| match report.recording.header.session.peaks {
        Some(peaks) => format!("{:.1} GB/s", peaks.memory_gb_s),
        None => "not measured".into(),
    };
    vec![
        property("recording", named, &|report| report.recording.header.id.clone()),
        property("version", named, &|report| report.recording.header.session.version.clone()),
        property("model", unlike, &|report| report.recording.header.session.model.clone()),
        property("device", unlike, &|report| report.recording.header.session.device.name.clone()),
        property("kind", unlike, &|report| report.recording.header.session.device.kind.clone()),
        property("isa", unlike, &|report| report.recording.header.session.device.isa.clone()),
        property("workers", unlike, &|report| report.recording.header.session.device.workers.to_string()),
        property("nodes timed by", unlike, &|report| report.recording.header.session.sources.used.words().into()),
        property("a record is of a", unlike, &|report| granularity(report.recording.header.granularity).into()),
        property("steps are chosen", matters, &|report| yes(!report.recording.header.window.is_unbroken())),
        property("profiling library", matters, &|report| {
            report.recording.header.session.sources.library.clone().unwrap_or_else(|| "none".into())
        }),
        property("memory read peak", named, &peaks),
        property("toggled", matters, &|report| yes(report.recording.header.toggle_seed.is_some())),
        property("complete", matters, &|report| yes(report.completeness.complete)),
        property("steps", named, &|report| report.recording.steps.len().to_string()),
        property("node times", named, &|report| report.recording.nodes.len().to_string()),
    ]
}

fn granularity(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Node => "node",
        Granularity::Graph => "whole graph",
    }
}

fn yes(is: bool) -> String {
    (if is { "yes" } else { "no" }).into()
}

/// What has to be said before any number.
pub(super) fn warnings(properties: &[Property], base: &Report, new: &Report) -> Vec<String> {
    let told = properties.iter().filter(|property| property.differs() && property.weight != Weight::Named);
    let mut warnings: Vec<String> = told
        .map(|property| {
            let Property { what, base, new, .. } = property;
            let meaning = if property.is_unlike() { ": their times are not of the same thing" } else { "" };
            format!("{what}: {base} in the first recording, {new} in the second{meaning}")
        })
        .collect();
    for (name, report) in [("first", base), ("second", new)] {
        if !report.completeness.complete {
            warnings.push(format!("the {name} one: {}", report.completeness));
        }
    }
    warnings.extend(loads(base, new));
    warnings
}

/// Graphs whose steps had other sizes.
fn loads(base: &Report, new: &Report) -> Vec<String> {
    let (base, new) = (sizes(base), sizes(new));
    let mut found = Vec::new();
    for (graph, base) in &base {
        let Some(new) = new.get(graph) else { continue };
        let names = ["rows", "sequences", "KV positions", "pairs of query and KV position"];
        for ((name, base), new) in names.into_iter().zip(base).zip(new) {
            if (new - base).abs() > LOAD_DIFFERS * base.max(*new) {
                found.push(format!("the load: {graph} had {base} {name} in a step, and now has {new} (medians)"));
            }
        }
    }
    found
}

/// For each graph that is compared the medians of its steps' sizes.
fn sizes(report: &Report) -> BTreeMap<GraphKey, [f64; 4]> {
    let recording = &report.recording;
    let mut all: BTreeMap<GraphKey, [Vec<f64>; 4]> = BTreeMap::new();
    for replay in recording.replays.iter().filter(|replay| !replay.nodes.is_empty()) {
        let Some(step) = recording.step(replay.record.step) else { continue };
        let StepSizes { tokens, seqs, kv_tokens, qk_pairs, .. } = step.sizes;
        let of_graph = all.entry(recording.graphs[replay.graph].key).or_default();
        for (values, value) in of_graph.iter_mut().zip([tokens, seqs, kv_tokens, qk_pairs]) {
            values.push(value as f64);
        }
    }
    all.retain(|_, sizes| sizes[0].len() >= EXECUTIONS_MIN);
    all.into_iter().map(|(graph, sizes)| (graph, sizes.map(|mut values| median(&mut values)))).collect()
}

/// Both recordings side by side.
pub(super) fn sheet(properties: &[Property], warnings: &[String]) -> Sheet {
    let row = |property: &Property| {
        let differs = if property.differs() { "differs" } else { "" };
        [property.what, &property.base, &property.new, differs].map(|text| Cell::Text(text.into())).to_vec()
    };
    Sheet {
        name: "recordings",
        columns: vec!["Of", "Base", "New", "Note"],
        rows: properties.iter().map(row).collect(),
        notes: warnings.iter().map(|warning| format!("WARNING: {warning}.")).collect(),
    }
}
