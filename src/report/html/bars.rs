//! Where steps' wall time went, by kind of step: the parts of the account, the nodes' part by op.

use serde::Serialize;

use crate::report::{Part, PartKind, Parts, Recording, Report};
use crate::trace::schema::Op;
use crate::trace::window::Stage;

/// Exclusive node time by op, in the order of [`Op::RECORDED`].
pub(super) type OpSums = [u64; Op::RECORDED.len()];

/// One bar: the parts sum up to `wall_ns`.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    name: &'static str,
    steps: u64,
    wall_ns: u64,
    /// Those that are not 0.
    parts: Vec<Part>,
}

/// A bar for all accounted steps, and one for each kind that there is.
pub(super) fn bars(report: &Report, op_sums: &[OpSums]) -> Vec<Bar> {
    let recording = &report.recording;
    let bar = |name, only: Option<Stage>| {
        let (mut steps, mut parts, mut ops) = (0, Parts::default(), OpSums::default());
        for account in &report.account.steps {
            let Ok(at) = recording.steps.binary_search_by_key(&account.step, |step| step.step) else { continue };
            let step = &recording.steps[at];
            if only.is_some_and(|only| only != Stage::of(&step.sizes, step.prefill_tokens)) {
                continue;
            }
            steps += 1;
            parts += &account.parts;
            ops.iter_mut().zip(op_sums[at]).for_each(|(sum, ns)| *sum = sum.saturating_add(ns));
        }
        Bar { name, steps, wall_ns: parts.wall_ns, parts: named(&parts, &ops) }
    };
    let bars = [
        bar("all steps", None),
        bar("decode rows only", Some(Stage::Decode)),
        bar("prompt and decode rows", Some(Stage::Mixed)),
        bar("prompt rows only", Some(Stage::Prefill)),
    ];
    bars.into_iter().filter(|bar| bar.steps > 0).collect()
}

/// Node time of each step by op; steps are in the order of [`Recording::steps`].
pub(super) fn op_sums(recording: &Recording) -> Vec<OpSums> {
    let mut sums = vec![OpSums::default(); recording.steps.len()];
    for replay in &recording.replays {
        let Ok(at) = recording.steps.binary_search_by_key(&replay.record.step, |step| step.step) else { continue };
        for node in &recording.nodes[replay.nodes.clone()] {
            let sum = &mut sums[at][recording.info(node).place.op as usize];
            *sum = sum.saturating_add(node.excl_ns);
        }
    }
    sums
}

fn named(parts: &Parts, ops: &OpSums) -> Vec<Part> {
    let mut named = Vec::new();
    for part in parts.named() {
        if part.kind == PartKind::Node {
            let shares = shares(part.ns, ops);
            let other_ns = part.ns - shares.iter().sum::<u64>();
            let by_op = Op::RECORDED.into_iter().zip(shares).map(|(op, ns)| Part { name: op.as_str(), ns, ..part });
            named.extend(by_op);
            named.push(Part { name: "nodes of no op", ns: other_ns, ..part });
        } else {
            named.push(part);
        }
    }
    named.retain(|part| part.ns > 0);
    named
}

/// The nodes' part of an account by op. Exclusive times are this part, to the nanosecond, unless nodes ran beside a
/// copy or beside another step's: then it is divided in their proportion.
fn shares(nodes_ns: u64, ops: &OpSums) -> OpSums {
    let total = ops.iter().map(|ns| u128::from(*ns)).sum::<u128>();
    if total == 0 {
        return OpSums::default();
    }
    let mut shares = ops.map(|ns| (u128::from(nodes_ns) * u128::from(ns) / total) as u64);
    let rest_ns = nodes_ns - shares.iter().sum::<u64>();
    if let Some(largest) = shares.iter_mut().max() {
        *largest += rest_ns;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_up() {
        let ops: OpSums = std::array::from_fn(|index| index as u64);
        assert_eq!(shares(ops.iter().sum(), &ops), ops);
        for nodes_ns in [0, 1, 27, 1_000_003, u64::MAX] {
            assert_eq!(shares(nodes_ns, &ops).iter().sum::<u64>(), nodes_ns);
        }
        assert_eq!(shares(u64::MAX, &[u64::MAX; Op::RECORDED.len()]).iter().sum::<u64>(), u64::MAX);
        assert_eq!(shares(5, &OpSums::default()), OpSums::default());
    }

    #[test]
    fn a_bar_is_its_account() {
        let parts = Parts { wall_ns: 60, nodes_ns: 40, download_ns: 5, unattributed_ns: 15, ..Parts::default() };
        let named = named(&parts, &OpSums::default());
        let found: Vec<_> = named.iter().map(|part| (part.name, part.kind, part.ns)).collect();
        let expected = [
            ("unattributed", PartKind::Unattributed, 15),
            ("nodes of no op", PartKind::Node, 40),
            ("download", PartKind::Copy, 5),
        ];
        assert_eq!(found, expected);
    }
}
