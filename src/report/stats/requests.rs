//! The table of requests: where each one's time went.

use std::collections::HashMap;

use super::sum;
use crate::report::sheet::Cell;
use crate::report::{Doing, Life, Recording, Report, Sheet};

/// One row for each request, by begin.
pub(super) fn request_sum(name: &'static str, report: &Report) -> Sheet {
    let recording = &report.recording;
    let node_ns = node_ns_by_step(recording);
    let row = |life: &Life| {
        let of_steps = life.steps.iter().filter_map(|step| node_ns.get(step).copied());
        vec![
            Cell::Int(life.request),
            Cell::Int(life.ns_of(Doing::Queued)),
            Cell::Int(life.ns_of(Doing::Prefill)),
            Cell::Int(life.ns_of(Doing::Decode)),
            Cell::Int(life.ns_of(Doing::Preempted)),
            Cell::int(life.whole_ns()),
            Cell::int(life.first_token_after_ns()),
            Cell::real(life.inter_token_ns(), 1),
            Cell::int(life.prompt_tokens.map(u64::from)),
            Cell::int(life.answer_tokens().map(u64::from)),
            Cell::Int(life.steps.len() as u64),
            Cell::Int(sum(of_steps)),
            Cell::Text(life.end_word().into()),
            life.name.clone().map_or(Cell::Missing, Cell::Text),
        ]
    };
    let (with, of) = (node_ns.len(), recording.steps.len());
    Sheet {
        name,
        columns: vec![
            "Request",
            "Queue (ns)",
            "Prefill (ns)",
            "Decode (ns)",
            "Preempted (ns)",
            "E2E (ns)",
            "TTFT (ns)",
            "Avg ITL (ns)",
            "Prompt tokens",
            "Answer tokens",
            "Steps",
            "Nodes of its steps (ns)",
            "End",
            "Name",
        ],
        rows: Life::all(recording).iter().map(row).collect(),
        notes: vec![
            format!(
                "A step's node time is shared by the requests of its batch, and counts in full for each of them; \
                 {with} of {of} steps have node times."
            ),
            "What is not known is left out: of requests that began before the recording, or ended after it.".into(),
        ],
    }
}

/// Exclusive node time of each step that has any.
pub(in crate::report) fn node_ns_by_step(recording: &Recording) -> HashMap<u64, u64> {
    let mut by_step: HashMap<u64, u64> = HashMap::new();
    for replay in recording.replays.iter().filter(|replay| !replay.nodes.is_empty()) {
        let nodes = recording.nodes[replay.nodes.clone()].iter();
        let ns = by_step.entry(replay.record.step).or_default();
        *ns = ns.saturating_add(sum(nodes.map(|node| node.excl_ns)));
    }
    by_step
}
