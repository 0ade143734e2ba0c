//! The account closes on a session of which every part is known; so does what recording cost.

use vitrum::report::{Format, Report, Table, dominates};
use vitrum::trace::schema::{Op, Phase};
use vitrum::trace::session::SessionOptions;

use super::synthetic::{
    APPLY_NS, COPIES_NS, COPY_GAP_NS, EMIT_NS, GRAPH_GAP_NS, LAUNCH_GAP_NS, LOOP_NS, NODE_GAP_NS, PHASES_NS, Plan,
    READ_NS, options,
};
use super::{folder, load, record, record_with, rows};

/// A step's node time in a plan without overlap.
fn nodes_ns(plan: &Plan) -> u64 {
    let forward: u64 = (0..plan.forward_nodes()).map(|ordinal| plan.node_ns(1, ordinal)).sum();
    forward + plan.node_ns(2, 0) + plan.node_ns(2, 1)
}

#[test]
fn the_account_closes_with_known_parts() {
    let plan = Plan::default();
    let report = load("account", &plan);
    let account = &report.account;
    assert_eq!(account.steps.len() as u64, plan.steps);
    let replay_ns = PHASES_NS[3].1;
    for (at, step) in account.steps.iter().enumerate() {
        let parts = &step.parts;
        assert_eq!(parts.named().iter().map(|part| part.ns).sum::<u64>(), parts.wall_ns, "step {}", step.step);
        assert_eq!(parts.nodes_ns, nodes_ns(&plan));
        assert_eq!(parts.node_gaps_ns, (plan.step_nodes() - 2) * NODE_GAP_NS);
        assert_eq!(parts.graph_gap_ns, GRAPH_GAP_NS);
        assert_eq!([parts.upload_ns, parts.download_ns], COPIES_NS);
        assert_eq!(parts.copy_gaps_ns, 2 * COPY_GAP_NS);
        // The first graph's submission returns in the middle of the phase.
        assert_eq!(parts.launch_gap_ns, LAUNCH_GAP_NS + replay_ns.div_ceil(2));
        // A step's window begins where the device was done with the last step, the first at its iteration's begin.
        let first = at == 0;
        for (phase, ns) in PHASES_NS {
            let expected = if phase == Phase::Replay { ns / 2 } else { ns };
            assert_eq!(parts.phases_ns[phase as usize], expected, "{phase:?}");
        }
        for (phase, ns) in [(Phase::Download, READ_NS), (Phase::Apply, APPLY_NS), (Phase::Emit, EMIT_NS)] {
            assert_eq!(parts.phases_ns[phase as usize], if first { 0 } else { ns }, "{phase:?}");
        }
        assert_eq!(parts.unattributed_ns, if first { 0 } else { LOOP_NS });
    }
    assert!(account.total.unattributed_share() < 0.01);
    let last = &account.steps[plan.steps as usize - 1];
    let end_ns = report.recording.steps.iter().map(|step| step.copies.download.end_ns).max().expect("steps");
    assert_eq!(last.start_ns + last.parts.wall_ns, end_ns);
    assert_eq!(account.total.wall_ns, end_ns - account.steps[0].start_ns, "windows follow each other");
}

#[test]
fn overlap_counts_once() {
    let plan = Plan { overlap_ns: 500, ..Plan::default() };
    let report = load("overlap-account", &plan);
    for node in &report.recording.nodes {
        let replay = &report.recording.replays[node.replay as usize];
        let full_ns = plan.node_ns(replay.record.graph, node.ordinal.into());
        assert_eq!(node.end_ns - node.start_ns, full_ns);
        assert_eq!(node.excl_ns, if node.ordinal == 0 { full_ns } else { full_ns - 500 }, "node {}", node.ordinal);
    }
    let exclusive_ns: u64 = report.recording.nodes.iter().map(|node| node.excl_ns).sum();
    assert_eq!(report.account.total.nodes_ns, exclusive_ns);
    assert_eq!(report.account.total.node_gaps_ns, 0);
}

#[test]
fn tables_say_what_was_played() {
    let plan = Plan::default();
    let summary = record("tables", &plan);
    let report = Report::load(&summary.path).expect("a report");
    let kernels = rows(&report, Table::KernSum);
    let columns: Vec<&String> = kernels[0].as_object().expect("a row").keys().collect();
    assert_eq!(
        columns,
        [
            "Time (%)",
            "Total Time (ns)",
            "Instances",
            "Avg (ns)",
            "Med (ns)",
            "Min (ns)",
            "Max (ns)",
            "StdDev (ns)",
            "Name"
        ]
    );
    let total: u64 = kernels.iter().map(|row| row["Total Time (ns)"].as_u64().unwrap()).sum();
    assert_eq!(total, plan.steps * nodes_ns(&plan));
    let csv = vitrum::report::stats(&report, Some(Table::KernSum), Format::Csv);
    assert!(
        csv.starts_with("Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n")
    );

    let nodes = rows(&report, Table::NodeSum);
    assert_eq!(nodes.len(), 3 + 5 * plan.layers as usize);
    let row = nodes.iter().find(|row| row["Layer"] == 2 && row["Op"] == "mlp.up").expect("layer 2, mlp.up");
    let ordinal = 1 + 2 * 5 + 3;
    let node_ns = plan.node_ns(1, ordinal);
    assert_eq!((row["Count"].as_u64(), row["Total (ns)"].as_u64()), (Some(plan.steps), Some(plan.steps * node_ns)));
    let gb_s = 40_200.0 / node_ns as f64;
    assert!((row["GB/s"].as_f64().unwrap() - gb_s).abs() < 1e-9);
    // A step moves less than the cache holds, so the cache's peak of 80 GB/s is the roof.
    assert_eq!(row["Level"], "cache");
    assert!((row["Read peak (%)"].as_f64().unwrap() - 100.0 * gb_s / 80.0).abs() < 1e-9);
    assert!((row["GFLOP/s"].as_f64().unwrap() - 160_000.0 / node_ns as f64).abs() < 1e-9);
    assert!((row["Wait (%)"].as_f64().unwrap() - 100.0 * 100.0 / (2.0 * node_ns as f64)).abs() < 1e-9);

    let steps = rows(&report, Table::StepSum);
    assert_eq!(steps[0]["Graphs"], "forward.decode.8 + sample.plain.8");
    assert_eq!(steps[0]["Accounted"].as_u64(), Some(plan.steps));
    let all = vitrum::report::stats(&report, None, Format::Text);
    for table in Table::usual() {
        assert!(all.contains(&format!("{}\n", table.as_str())), "{all}");
    }
}

#[test]
fn one_sentence_says_what_dominates() {
    let report = load("dominates", &Plan::default());
    let op_ns = |op: Op| -> u64 {
        let nodes = report.recording.nodes.iter().filter(|node| report.recording.info(node).place.op == op);
        nodes.map(|node| node.excl_ns).sum()
    };
    let largest = Op::ALL.into_iter().max_by_key(|op| op_ns(*op)).expect("an op");
    let sentence = dominates(&report);
    assert!(sentence.starts_with(&format!("{largest} takes ")) && sentence.contains("GB/s"), "{sentence}");
}

#[test]
fn the_cost_of_recording_is_found() {
    let plan = Plan { steps: 3000, traced_cost_permille: 30, ..Plan::default() };
    let options = SessionOptions { toggle: true, ..options(&folder("perturbation")) };
    let report = Report::load(&record_with(&plan, &options).path).expect("a report");
    let cost = report.perturbation.expect("pairs");
    // A step's time, apart from its nodes, is what the host does between the tokens of two steps.
    let host_ns =
        READ_NS + APPLY_NS + EMIT_NS + LOOP_NS + LAUNCH_GAP_NS + PHASES_NS.iter().map(|(_, ns)| ns).sum::<u64>();
    let copies_ns = COPIES_NS.iter().sum::<u64>() + 2 * COPY_GAP_NS;
    let other_ns = host_ns + copies_ns + (plan.step_nodes() - 2) * NODE_GAP_NS + GRAPH_GAP_NS;
    let added_ns: u64 = (0..plan.forward_nodes()).map(|ordinal| plan.node_ns(1, ordinal) * 30 / 1000).sum::<u64>()
        + (0..2).map(|ordinal| plan.node_ns(2, ordinal) * 30 / 1000).sum::<u64>();
    let untraced_ns = nodes_ns(&plan) + other_ns;
    assert_eq!(cost.untraced_ns_median, untraced_ns);
    assert_eq!(cost.traced_ns_median, untraced_ns + added_ns);
    assert!((cost.ratio - (untraced_ns + added_ns) as f64 / untraced_ns as f64).abs() < 1e-9, "{cost:?}");
    assert!(cost.ratio_low <= cost.ratio && cost.ratio <= cost.ratio_high && cost.pairs > 500, "{cost:?}");
    let left_out = report.account.unaccounted;
    assert!(left_out.untraced > 1000 && left_out.after_untraced > 500 && left_out.incomplete == 0, "{left_out:?}");
    assert_eq!(left_out.untraced + left_out.after_untraced + report.account.steps.len() as u64, plan.steps);
}
