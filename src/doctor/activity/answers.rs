//! The answers in words and figures.

use super::super::overheads::{median, side_of};
use super::{Pairs, Sides, middle};
use crate::device::cuda::{CHAIN_NODES, CHAIN_SPINS_NS, ChainRun, RecordCounts, RecordTimes};
use crate::doctor::{Finding, Found};
use crate::trace::record::ACTIVITY_NAME;

/// A value for each chain.
type PerChain = [f64; CHAIN_SPINS_NS.len()];

/// Names of figures for each chain.
type Names = [&'static str; CHAIN_SPINS_NS.len()];

/// The chain whose nodes overlap: the longest.
const LONG: usize = CHAIN_SPINS_NS.len() - 1;

const CHAINS: &str = "a node of 0 / 1 / 3 us";

const _: () = assert!(CHAIN_SPINS_NS[0] == 0 && CHAIN_SPINS_NS[1] == 1_000 && CHAIN_SPINS_NS[2] == 3_000);

fn nodes_ns(run: &ChainRun) -> PerChain {
    run.map(|times| times.node_ns)
}

fn replays_us(run: &ChainRun) -> PerChain {
    run.map(|times| times.replay_ns / 1e3)
}

fn minus(a: PerChain, b: PerChain) -> PerChain {
    std::array::from_fn(|chain| a[chain] - b[chain])
}

/// `1300 / 2300 / 4300`
fn listed(values: PerChain) -> String {
    values.map(|value| format!("{value:.0}")).join(" / ")
}

/// `+10 / -3 / +0`
fn changes(values: PerChain) -> String {
    values.map(|value| format!("{value:+.0}")).join(" / ")
}

fn figures<const N: usize>(lists: [(Names, PerChain); N]) -> Vec<(&'static str, f64)> {
    lists.into_iter().flat_map(|(names, values)| names.into_iter().zip(values)).collect()
}

const PREPARED_NS: Names = ["activity_prepared_0us_ns", "activity_prepared_1us_ns", "activity_prepared_3us_ns"];
const WITHOUT_NS: Names = ["activity_without_0us_ns", "activity_without_1us_ns", "activity_without_3us_ns"];
const ADDED_NS: Names = ["activity_added_0us_ns", "activity_added_1us_ns", "activity_added_3us_ns"];

/// Prepared and never switched on, against processes without it.
pub(super) fn idle(before: &Sides) -> Found {
    let own = nodes_ns(&middle(&before.own));
    let (others, added) = match (&before.others, before.difference_ns()) {
        (Ok(others), Ok(added)) => (nodes_ns(&middle(others)), added),
        (Err(reason), _) => return super::not_answered(reason),
        (_, Err(reason)) => return super::not_answered(reason),
    };
    Finding::of(
        format!(
            "{CHAINS}: {} ns with {ACTIVITY_NAME} prepared but not recording, {} ns in processes without it ({})",
            listed(own),
            listed(others),
            changes(added)
        ),
        figures([(PREPARED_NS, own), (WITHOUT_NS, others), (ADDED_NS, added)]),
    )
}

const IDLE_NS: Names = ["activity_idle_0us_ns", "activity_idle_1us_ns", "activity_idle_3us_ns"];
const RECORDING_NS: Names = ["activity_recording_0us_ns", "activity_recording_1us_ns", "activity_recording_3us_ns"];
const IDLE_US: Names = ["activity_idle_replay_0us_us", "activity_idle_replay_1us_us", "activity_idle_replay_3us_us"];
const RECORDING_US: Names =
    ["activity_recording_replay_0us_us", "activity_recording_replay_1us_us", "activity_recording_replay_3us_us"];

/// What recording adds to a node.
pub(super) fn cost(pairs: &Pairs) -> Found {
    let (idle, recording) = (middle(&pairs.idle), middle_recorded(pairs));
    let (idle_ns, recording_ns) = (nodes_ns(&idle), nodes_ns(&recording));
    let (idle_us, recording_us) = (replays_us(&idle), replays_us(&recording));
    let added = std::array::from_fn(|chain| {
        let pairs = pairs.idle.iter().zip(&pairs.recorded);
        median(pairs.map(|(idle, recorded)| recorded.times[chain].node_ns - idle[chain].node_ns).collect())
    });
    let lists = [
        (IDLE_NS, idle_ns),
        (RECORDING_NS, recording_ns),
        (ADDED_NS, added),
        (IDLE_US, idle_us),
        (RECORDING_US, recording_us),
    ];
    let mut figures = figures(lists);
    figures.extend([("activity_nodes", CHAIN_NODES as f64), ("activity_samples", pairs.idle.len() as f64)]);
    let note = format!(
        "{CHAINS}: {} ns idle, {} ns while {ACTIVITY_NAME} records ({}); a replay of {CHAIN_NODES}, by the host's \
         clock: {} us idle, {} us",
        listed(idle_ns),
        listed(recording_ns),
        changes(added),
        listed(idle_us),
        listed(recording_us)
    );
    Finding::of(note, figures)
}

fn middle_recorded(pairs: &Pairs) -> ChainRun {
    middle(&pairs.recorded.iter().map(|run| run.times).collect::<Vec<_>>())
}

/// Whether nodes overlap as they do without it.
pub(super) fn overlap(pairs: &Pairs) -> Found {
    let (idle, recording) = (middle(&pairs.idle)[LONG], middle_recorded(pairs)[LONG]);
    let of_records =
        |value: fn(&RecordTimes) -> f64| median(pairs.recorded.iter().map(|run| value(&run.records[LONG])).collect());
    let (record_overlap_ns, record_ns) = (of_records(|times| times.overlap_ns), of_records(|times| times.node_ns));
    let note = format!(
        "nodes of 3 us: a node's first block begins {} the node ahead of it ends, and while {ACTIVITY_NAME} records {} \
         that; by its records a node starts {} the end of the one ahead, and takes {record_ns:.0} ns",
        side_of(idle.overlap_ns),
        side_of(recording.overlap_ns),
        side_of(record_overlap_ns),
    );
    Finding::of(
        note,
        vec![
            ("activity_overlap_idle_ns", idle.overlap_ns),
            ("activity_overlap_recording_ns", recording.overlap_ns),
            ("activity_overlap_of_records_ns", record_overlap_ns),
            ("activity_node_of_records_ns", record_ns),
        ],
    )
}

/// Which nodes its records are of.
pub(super) fn records(pairs: &Pairs) -> Found {
    let mut counts = RecordCounts::default();
    pairs.recorded.iter().for_each(|run| counts.add(&run.counts));
    let RecordCounts { replays, nodes, records, by_executable, by_captured, unchanged, unfound, .. } = counts;
    let RecordCounts { one_id_replays, whole_replays, called_replays, untimed, dropped, .. } = counts;
    let mut note = format!(
        "{records} records of {nodes} nodes: {by_executable} found by the executable graph's id, {by_captured} by the \
         captured node's, {unfound} by neither; of {replays} replays {one_id_replays} have one correlation id, \
         {called_replays} that of their launch, and {whole_replays} a record of each node"
    );
    let others = [(unchanged, "with the captured node's id alone"), (untimed, "without times"), (dropped, "dropped")];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        note += &format!("; {count} {what}");
    }
    let figures = [
        ("activity_nodes", nodes),
        ("activity_records", records),
        ("activity_found_by_executable", by_executable),
        ("activity_found_by_captured", by_captured),
        ("activity_found_unchanged", unchanged),
        ("activity_not_found", unfound),
        ("activity_replays", replays),
        ("activity_replays_with_one_id", one_id_replays),
        ("activity_replays_with_id_of_launch", called_replays),
        ("activity_replays_whole", whole_replays),
        ("activity_untimed", untimed),
        ("activity_dropped", dropped),
    ];
    Finding::of(note, figures.into_iter().map(|(name, count)| (name, count as f64)).collect())
}

const BEFORE_NS: Names = ["activity_before_0us_ns", "activity_before_1us_ns", "activity_before_3us_ns"];
const AFTER_NS: Names = ["activity_after_0us_ns", "activity_after_1us_ns", "activity_after_3us_ns"];
const CHANGE_NS: Names = ["activity_change_0us_ns", "activity_change_1us_ns", "activity_change_3us_ns"];
const OTHER_CHANGE_NS: Names =
    ["activity_other_change_0us_ns", "activity_other_change_1us_ns", "activity_other_change_3us_ns"];

/// What remains when it was switched off, against before it was first switched on.
pub(super) fn afterwards(before: &Sides, after: &Sides) -> Found {
    let (own_before, own_after) = (nodes_ns(&middle(&before.own)), nodes_ns(&middle(&after.own)));
    let change = minus(own_after, own_before);
    let mut note = format!(
        "{CHAINS}: {} ns after {ACTIVITY_NAME} was switched off, {} ns before it was first switched on ({})",
        listed(own_after),
        listed(own_before),
        changes(change)
    );
    let mut all = figures([(BEFORE_NS, own_before), (AFTER_NS, own_after), (CHANGE_NS, change)]);
    if let (Ok(others_before), Ok(others_after)) = (&before.others, &after.others) {
        let other = minus(nodes_ns(&middle(others_after)), nodes_ns(&middle(others_before)));
        note += &format!("; processes without it changed by {} ns", changes(other));
        all.extend(figures([(OTHER_CHANGE_NS, other)]));
    }
    Finding::of(note, all)
}
