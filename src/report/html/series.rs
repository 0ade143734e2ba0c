//! Records as columns: steps, batch compositions, host phases, requests, replays and their nodes. Times are from the
//! window's begin.

use super::Limits;
use super::bars::OpSums;
use super::columns::Columns;
use crate::report::stats::sum;
use crate::report::{DeviceRange, End, Life, NodeTime, Recording, Replay, Report};

/// Writes every column, and returns what was left out, in words.
pub(super) fn write(
    report: &Report,
    op_sums: &[OpSums],
    lives: &[Life],
    limits: &Limits,
    columns: &mut Columns,
) -> Vec<String> {
    let recording = &report.recording;
    let (start_ns, _) = recording.span();
    let at = |ns: u64| ns.saturating_sub(start_ns);
    let left_out = [
        steps(report, op_sums, limits.steps, at, columns),
        members(recording, limits, columns),
        spans(recording, limits.spans, at, columns),
        requests(lives, limits.requests, at, columns),
        nodes(recording, limits.nodes, at, columns),
    ];
    left_out.into_iter().flatten().collect()
}

/// The first records up to a limit, and the sentence that says so.
fn first<'a, T>(records: &'a [T], limit: usize, what: &str, where_else: &str) -> (&'a [T], Option<String>) {
    let shown = &records[..records.len().min(limit)];
    let sentence = (shown.len() < records.len())
        .then(|| format!("This page holds the first {} of {} {what}. {where_else}", shown.len(), records.len()));
    (shown, sentence)
}

fn steps(
    report: &Report,
    op_sums: &[OpSums],
    limit: usize,
    at: impl Fn(u64) -> u64 + Copy,
    columns: &mut Columns,
) -> Option<String> {
    let recording = &report.recording;
    let (steps, left_out) = first(&recording.steps, limit, "steps", "Bars and tables are of all of them.");
    let wall_ns = |step: u64| {
        let accounts = &report.account.steps;
        accounts.binary_search_by_key(&step, |account| account.step).map_or(0, |at| accounts[at].parts.wall_ns)
    };
    columns.delta("step.number", steps.iter().map(|step| step.step));
    columns.delta("step.start", steps.iter().map(|step| at(step.start_ns)));
    // 0 for a step that has no account.
    columns.plain("step.wall_ns", steps.iter().map(|step| wall_ns(step.step)));
    columns.plain("step.node_ns", op_sums.iter().take(steps.len()).map(|ops| sum(*ops)));
    columns.plain("step.rows", steps.iter().map(|step| step.sizes.tokens));
    columns.plain("step.prompt_rows", steps.iter().map(|step| step.prefill_tokens));
    columns.plain("step.seqs", steps.iter().map(|step| step.sizes.seqs));
    columns.plain("step.traced", steps.iter().map(|step| u64::from(step.traced)));
    left_out
}

/// Rows of the shown steps' batches; their step is an index of the steps.
fn members(recording: &Recording, limits: &Limits, columns: &mut Columns) -> Option<String> {
    let shown = &recording.steps[..recording.steps.len().min(limits.steps)];
    let step = |number: u64| shown.binary_search_by_key(&number, |step| step.step).ok();
    let where_else = "A request's steps are those among them.";
    let (members, left_out) = first(&recording.members, limits.members, "rows of batch compositions", where_else);
    let members: Vec<_> = members.iter().filter_map(|member| Some((step(member.step)?, member))).collect();
    columns.delta("member.step", members.iter().map(|(step, _)| *step as u64));
    columns.delta("member.request", members.iter().map(|(_, member)| member.request));
    columns.plain("member.rows", members.iter().map(|(_, member)| member.tokens.into()));
    columns.plain("member.prompt_rows", members.iter().map(|(_, member)| member.prefill_tokens.into()));
    left_out
}

fn spans(recording: &Recording, limit: usize, at: impl Fn(u64) -> u64 + Copy, columns: &mut Columns) -> Option<String> {
    let (spans, left_out) = first(&recording.spans, limit, "host phases", "Bars and tables are of all of them.");
    columns.plain("span.phase", spans.iter().map(|span| span.phase as u64));
    columns.delta("span.step", spans.iter().map(|span| span.step));
    columns.delta("span.start", spans.iter().map(|span| at(span.start_ns)));
    columns.plain("span.ns", spans.iter().map(|span| span.end_ns.saturating_sub(span.start_ns)));
    left_out
}

fn requests(lives: &[Life], limit: usize, at: impl Fn(u64) -> u64 + Copy, columns: &mut Columns) -> Option<String> {
    let (lives, left_out) = first(lives, limit, "requests", "Those that came later are not in it.");
    columns.delta("request.id", lives.iter().map(|life| life.request));
    columns.delta("request.start", lives.iter().map(|life| at(life.start_ns)));
    columns.plain("request.ns", lives.iter().map(|life| life.end_ns.saturating_sub(life.start_ns)));
    // 0 where it is not known.
    let plus_1 = |tokens: Option<u32>| tokens.map_or(0, |tokens| u64::from(tokens) + 1);
    columns.plain("request.prompt_plus_1", lives.iter().map(|life| plus_1(life.prompt_tokens)));
    columns.plain("request.answer_plus_1", lives.iter().map(|life| plus_1(life.answer_tokens())));
    columns.plain("request.end", lives.iter().map(|life| End::of(life.ended) as u64));
    columns.plain("request.stretches", lives.iter().map(|life| life.stretches.len() as u64));
    let stretches = || lives.iter().flat_map(|life| &life.stretches);
    columns.plain("stretch.kind", stretches().map(|stretch| stretch.doing as u64));
    columns.delta("stretch.start", stretches().map(|stretch| at(stretch.start_ns)));
    columns.plain("stretch.ns", stretches().map(|stretch| stretch.end_ns.saturating_sub(stretch.start_ns)));
    left_out
}

/// Replays up to the limit of nodes, and their nodes.
fn nodes(recording: &Recording, limit: usize, at: impl Fn(u64) -> u64 + Copy, columns: &mut Columns) -> Option<String> {
    let mut count = 0_usize;
    let fits = |replay: &&Replay| {
        count += replay.nodes.len();
        count <= limit
    };
    let replays = &recording.replays[..recording.replays.iter().take_while(fits).count()];
    let nodes: Vec<&NodeTime> = replays.iter().flat_map(|replay| &recording.nodes[replay.nodes.clone()]).collect();
    columns.delta("replay.step", replays.iter().map(|replay| replay.record.step));
    columns.plain("replay.graph", replays.iter().map(|replay| replay.graph as u64));
    columns.plain("replay.nodes", replays.iter().map(|replay| replay.nodes.len() as u64));
    columns.plain("node.ordinal", nodes.iter().map(|node| node.ordinal.into()));
    // From the end of the node before to the node's begin.
    let mut last_end_ns = 0;
    let gap = |node: &&NodeTime| {
        let gap_ns = at(node.start_ns).cast_signed().saturating_sub(last_end_ns);
        last_end_ns = at(node.end_ns).cast_signed();
        gap_ns
    };
    columns.signed("node.gap_ns", nodes.iter().map(gap));
    columns.plain("node.ns", nodes.iter().map(|node| node.end_ns - node.start_ns));
    columns.plain("node.overlap_ns", nodes.iter().map(|node| node.end_ns - node.start_ns - node.excl_ns));
    ranges(recording, replays, at, columns);
    let total = recording.nodes.len();
    (nodes.len() < total).then(|| {
        let shown = nodes.len();
        format!("The timeline holds the first {shown} of {total} node times. Charts and tables are of all of them.")
    })
}

/// Stretches of the device that the shown replays make up: steps, and layers within them.
fn ranges(recording: &Recording, replays: &[Replay], at: impl Fn(u64) -> u64 + Copy, columns: &mut Columns) {
    let starts = |ranges: &[DeviceRange]| ranges.iter().map(|range| at(range.start_ns)).collect::<Vec<_>>();
    let durations =
        |ranges: &[DeviceRange]| ranges.iter().map(|range| range.end_ns - range.start_ns).collect::<Vec<_>>();
    let steps = DeviceRange::steps(recording, replays);
    columns.delta("step_range.step", steps.iter().map(|range| range.step));
    columns.delta("step_range.start", starts(&steps));
    columns.plain("step_range.ns", durations(&steps));
    let layers = DeviceRange::layers(recording, replays);
    columns.plain("layer_range.layer", layers.iter().filter_map(|range| range.layer));
    columns.delta("layer_range.start", starts(&layers));
    columns.plain("layer_range.ns", durations(&layers));
}
