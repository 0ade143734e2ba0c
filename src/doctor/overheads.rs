//! Questions about a GPU, answered by measuring: there is no right answer, and no wrong one fails.

use std::error::Error;
use std::time::{Duration, Instant};

use super::{Doctor, Finding, Found, model, open};
use crate::device::cuda::Overheads;
use crate::device::{Device, DeviceChoice};
use crate::request::TokenId;
use crate::step::StepRunner;
use crate::trace::schema::NodeSources;

/// Pairs of an idle step and a traced one, of which the median counts: at most, and at least.
const PAIRS_MAX: usize = 200;
const PAIRS_MIN: usize = 5;

/// When no further pair begins.
const PAIRS_TIME: Duration = Duration::from_secs(2);

/// Asks all of them.
pub(super) fn ask(doctor: &mut Doctor) {
    let mut measured = None;
    doctor.ask("clock: how fine", || {
        let found = measured.insert(measure()?);
        let Overheads { clock_step_ns, clock_steps, clock_seen_ns, .. } = *found;
        let figures = vec![("step_ns", clock_step_ns as f64), ("steps", clock_steps as f64)];
        if clock_steps == 0 {
            return Err("globaltimer did not move while it was read".into());
        }
        Finding::of(
            format!("{clock_step_ns} ns is the smallest step, of {clock_steps} seen in {clock_seen_ns} ns"),
            figures,
        )
    });
    let Some(found) = measured else { return };
    doctor.ask("node boundary: cost", || boundary(&found));
    doctor.ask("programmatic edges: overlap", || overlap(&found));
    doctor.ask("empty block: cost", || {
        let Overheads { block_ns, blocks, .. } = found;
        Finding::of(
            format!("{block_ns:.2} ns of the device for each of {blocks} blocks that compute nothing"),
            vec![("block_ns", block_ns), ("blocks", blocks.into())],
        )
    });
    doctor.ask("a step, and what stamps add", stamps);
}

fn measure() -> Result<Overheads, Box<dyn Error>> {
    match open(DeviceChoice::Cuda)? {
        Device::Cuda(mut device) => Ok(device.measure_overheads()?),
        other => Err(format!("{} was opened", other.info().kind).into()),
    }
}

fn boundary(found: &Overheads) -> Found {
    let Overheads { boundary_ns, boundary_full_ns, .. } = *found;
    Finding::of(
        format!("{boundary_ns:.0} ns from an empty node to the next; {boundary_full_ns:.0} ns with full edges"),
        vec![("boundary_ns", boundary_ns), ("boundary_full_edges_ns", boundary_full_ns)],
    )
}

/// How long before or after something.
pub(super) fn side_of(ns: f64) -> String {
    if ns >= 0.0 { format!("{ns:.0} ns before") } else { format!("{:.0} ns after", -ns) }
}

fn overlap(found: &Overheads) -> Found {
    let Overheads { overlap_ns, overlap_full_ns, gap_ns, gap_full_ns, .. } = *found;
    let note = format!(
        "a node's first block begins {} the node ahead of it ends ({} with full edges), and is behind its wait \
         {gap_ns:.0} ns after that ({gap_full_ns:.0} ns)",
        side_of(overlap_ns),
        side_of(overlap_full_ns),
    );
    Finding::of(
        note,
        vec![
            ("overlap_ns", overlap_ns),
            ("overlap_full_edges_ns", overlap_full_ns),
            ("gap_ns", gap_ns),
            ("gap_full_edges_ns", gap_full_ns),
        ],
    )
}

/// A decode step of the small model, by the host's clock from its submission to its token: idle and, where nodes can be
/// stamped, traced, in turn. A build without feature `profiling` replays the idle one, too: what it takes there, in a
/// run of that build, says what the feature costs while nothing is recorded.
fn stamps() -> Found {
    let mut runner = model::small_runner(DeviceChoice::Cuda)?;
    let can_trace = crate::trace::record::ENABLED;
    let nodes = step(&mut runner, false)?.1;
    step(&mut runner, can_trace)?;
    let (begin, mut idle, mut added) = (Instant::now(), Vec::new(), Vec::new());
    while idle.len() < PAIRS_MIN || (idle.len() < PAIRS_MAX && begin.elapsed() < PAIRS_TIME) {
        let idle_ns = step(&mut runner, false)?.0;
        idle.push(idle_ns);
        if can_trace {
            added.push(step(&mut runner, true)?.0 - idle_ns);
        }
    }
    let (pairs, idle_us) = (idle.len(), median(idle) / 1e3);
    let mut figures = vec![("idle_step_us", idle_us), ("nodes", nodes as f64), ("samples", pairs as f64)];
    let step = format!("{idle_us:.1} us a step of {nodes} nodes");
    if !can_trace {
        return Finding::of(format!("{step}; this build, without feature `profiling`, has no stamps"), figures);
    }
    let node_ns = median(added) / nodes as f64;
    figures.push(("stamps_ns_per_node", node_ns));
    Finding::of(format!("{step}; {node_ns:.0} ns more for each node when it is traced"), figures)
}

/// One step: nanoseconds from its submission until its token is there, and its nodes.
fn step(runner: &mut StepRunner, traced: bool) -> Result<(f64, usize), Box<dyn Error>> {
    model::push(runner, 0, &[TokenId(5)], 0);
    let begin = Instant::now();
    let step = runner.submit(NodeSources { stamps: traced, activity: false })?;
    let nodes = step.graphs.iter().flatten().map(|graph| runner.graph(*graph).nodes.len()).sum();
    runner.wait(step)?;
    Ok((begin.elapsed().as_nanos() as f64, nodes))
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
