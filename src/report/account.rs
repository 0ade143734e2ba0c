//! Where each step's time went, to the nanosecond.
//!
//! The window of step N begins when the device was done with step N−1, and ends when it is done with step N, so that a
//! busy engine's windows leave nothing out. If the engine waited for requests in between, it begins where step N's loop
//! iteration does. It is cut into parts that sum up to it:
//!
//! ```text
//! |<- the device has not begun ---------------------->|<- the device is at it ------------------------>|
//! | host phases, by name · unattributed | launch gap  | upload · nodes · download · the gaps between   |
//!                                       ^ the submission has returned
//! ```
//!
//! Every part is measured but the gaps, which are what lies between: a large gap says that something is not accounted
//! for as well as an unattributed share does.

use std::ops::AddAssign;

use serde::Serialize;

use super::model::{NodeTime, Recording, Replay};
use crate::trace::schema::{CopyStamp, HostSpan, Phase, StepRecord};

/// A step whose iteration begins this much after the last one's end did not wait for requests in between.
const BACK_TO_BACK_NS: u64 = 100_000;

/// Whether a step is the next one, and the engine did not wait for requests before it.
pub(super) fn follows(last: &StepRecord, step: &StepRecord) -> bool {
    let next = last.step.checked_add(1) == Some(step.step);
    next && step.start_ns <= last.end_ns.saturating_add(BACK_TO_BACK_NS)
}

/// The parts of a stretch of time. They sum up to `wall_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// The whole.
    pub wall_ns: u64,
    /// The device copied the step's inputs in.
    pub upload_ns: u64,
    /// A node ran.
    pub nodes_ns: u64,
    /// The device copied the step's tokens out.
    pub download_ns: u64,
    /// Between two nodes of one graph.
    pub node_gaps_ns: u64,
    /// Between the two graphs.
    pub graph_gap_ns: u64,
    /// Between a copy and the node behind or before it: the device's threads begin and end a step. On a GPU, which
    /// zeroes the cells of stamps before a graph and copies them away behind it, recording is part of this gap and of
    /// the one between the graphs.
    pub copy_gaps_ns: u64,
    /// Submitted, and the device had not begun: it woke up, or came from the step before.
    pub launch_gap_ns: u64,
    /// Before the submission, the device idle: the engine's thread was in this phase, in the order of [`Phase::ALL`].
    pub phases_ns: [u64; Phase::ALL.len()],
    /// Nothing of the above.
    pub unattributed_ns: u64,
}

impl Parts {
    /// The parts with their names, in the order of the sketch above.
    pub fn named(&self) -> Vec<Part> {
        let part = |name, kind, ns| Part { name, kind, ns };
        let phases = Phase::ALL.iter().zip(self.phases_ns);
        let phases = phases.map(|(phase, ns)| part(host_part(*phase), PartKind::Host, ns));
        let rest = [
            part("unattributed", PartKind::Unattributed, self.unattributed_ns),
            part("launch gap", PartKind::Gap, self.launch_gap_ns),
            part("upload", PartKind::Copy, self.upload_ns),
            part("nodes", PartKind::Node, self.nodes_ns),
            part("download", PartKind::Copy, self.download_ns),
            part("gaps between nodes", PartKind::Gap, self.node_gaps_ns),
            part("gap between graphs", PartKind::Gap, self.graph_gap_ns),
            part("gaps around copies", PartKind::Gap, self.copy_gaps_ns),
        ];
        phases.chain(rest).collect()
    }

    /// The unattributed share, from 0 to 1.
    pub fn unattributed_share(&self) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { self.unattributed_ns as f64 / self.wall_ns as f64 }
    }
}

/// A part with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it is a kind of.
    pub kind: PartKind,
    /// How long it is.
    pub ns: u64,
}

/// What a part is a kind of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// The device waited for the engine's thread, which was in a phase.
    Host,
    /// The device waited, and nothing says why.
    Unattributed,
    /// Between the submission and what the device does, or between two things that it does.
    Gap,
    /// The device copied.
    Copy,
    /// Nodes ran.
    Node,
}

fn host_part(phase: Phase) -> &'static str {
    match phase {
        Phase::Receive => "host: receive",
        Phase::Schedule => "host: schedule",
        Phase::Upload => "host: upload",
        Phase::Replay => "host: replay",
        Phase::Download => "host: download",
        Phase::Apply => "host: apply",
        Phase::Emit => "host: emit",
    }
}

impl AddAssign<&Parts> for Parts {
    // Saturating: times may be anything in a file that others wrote.
    fn add_assign(&mut self, other: &Parts) {
        let add = |sum: &mut u64, ns: u64| *sum = sum.saturating_add(ns);
        add(&mut self.wall_ns, other.wall_ns);
        add(&mut self.upload_ns, other.upload_ns);
        add(&mut self.nodes_ns, other.nodes_ns);
        add(&mut self.download_ns, other.download_ns);
        add(&mut self.node_gaps_ns, other.node_gaps_ns);
        add(&mut self.graph_gap_ns, other.graph_gap_ns);
        add(&mut self.copy_gaps_ns, other.copy_gaps_ns);
        add(&mut self.launch_gap_ns, other.launch_gap_ns);
        self.phases_ns.iter_mut().zip(other.phases_ns).for_each(|(sum, ns)| add(sum, ns));
        add(&mut self.unattributed_ns, other.unattributed_ns);
    }
}

/// One step's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepAccount {
    /// The step.
    pub step: u64,
    /// Begin of its window.
    pub start_ns: u64,
    /// Where its time went.
    #[serde(flatten)]
    pub parts: Parts,
}

/// Steps that have no account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unaccounted {
    /// Their nodes were not recorded, by the coin of a toggled recording.
    pub untraced: u64,
    /// The step before them has no node times, so where their window begins is not known.
    pub after_untraced: u64,
    /// The step before them was left out of the recording: where their window begins is not known either.
    pub after_left_out: u64,
    /// Some of their node times are missing.
    pub incomplete: u64,
}

/// The account of a recording.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Account {
    /// All accounted steps together.
    pub total: Parts,
    /// Steps without an account.
    pub unaccounted: Unaccounted,
    /// Step by step.
    #[serde(skip)]
    pub steps: Vec<StepAccount>,
}

impl Account {
    /// Accounts for every step of a recording.
    pub fn of(recording: &Recording) -> Account {
        let mut accounting = Accounting::default();
        let mut steps = Vec::new();
        accounting.add(recording, |step| steps.push(step));
        Account { steps, ..accounting.account }
    }
}

/// An account of one window after the other.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    /// So far, without its steps.
    pub(super) account: Account,
    /// The step before, and when the device was done with it.
    before: Option<(StepRecord, Option<u64>)>,
    /// Phases of earlier windows that the next step's time may reach back to.
    spans: Vec<HostSpan>,
}

impl Accounting {
    /// Accounts for the steps of a window, or of a whole recording, and gives each one's account.
    pub(super) fn add(&mut self, recording: &Recording, mut each: impl FnMut(StepAccount)) {
        let replays_by_step = by_step(recording);
        // Else a step that was left out may have been under way when the first one of the recording began.
        let is_unbroken = recording.header.window.is_unbroken();
        let mut carried = std::mem::take(&mut self.spans);
        carried.extend_from_slice(if carried.is_empty() { &[] } else { &recording.spans });
        let spans = if carried.is_empty() { &recording.spans } else { &carried };
        for step in &recording.steps {
            let from = replays_by_step.partition_point(|replay| replay.record.step < step.step);
            let to = replays_by_step.partition_point(|replay| replay.record.step <= step.step);
            let replays = &replays_by_step[from..to];
            let complete = !replays.is_empty() && replays.iter().all(|replay| is_complete(recording, replay));
            let is_next = |last: &StepRecord| last.step.checked_add(1) == Some(step.step);
            let window_start_ns = match self.before {
                Some((last, end_ns)) if follows(&last, step) => end_ns,
                Some((last, Some(end_ns))) if is_next(&last) => Some(end_ns.max(step.start_ns)),
                None if is_unbroken => Some(step.start_ns),
                _ => None,
            };
            let is_behind_left_out = self.before.map_or(!is_unbroken, |(last, _)| !is_next(&last));
            let unaccounted = &mut self.account.unaccounted;
            match (step.traced, complete, window_start_ns) {
                (false, _, _) => unaccounted.untraced += 1,
                (true, false, _) => unaccounted.incomplete += 1,
                (true, true, None) if is_behind_left_out => unaccounted.after_left_out += 1,
                (true, true, None) => unaccounted.after_untraced += 1,
                (true, true, Some(start_ns)) => {
                    let step = account_step(recording, spans, step, replays, start_ns);
                    self.account.total += &step.parts;
                    each(step);
                }
            }
            self.before = Some((*step, device_end(recording, step, replays).filter(|_| step.traced && complete)));
        }
        let from = match self.before {
            // No later step's time begins before the device was done with this one.
            Some((_, Some(end_ns))) => spans.partition_point(|span| span.start_ns < end_ns).saturating_sub(1),
            Some((_, None)) => spans.len(),
            None => 0,
        };
        self.spans = spans[from..].to_vec();
    }
}

/// Replays by step; those of one step stay in the order of their numbers, which is the order of submission.
fn by_step(recording: &Recording) -> Vec<&Replay> {
    let mut replays: Vec<&Replay> = recording.replays.iter().collect();
    replays.sort_by_key(|replay| replay.record.step);
    replays
}

fn is_complete(recording: &Recording, replay: &Replay) -> bool {
    replay.record.sources.any() && replay.nodes.len() == recording.graphs[replay.graph].nodes.len()
}

/// When the device was done with a step.
fn device_end(recording: &Recording, step: &StepRecord, replays: &[&Replay]) -> Option<u64> {
    let nodes = replays.iter().flat_map(|replay| &recording.nodes[replay.nodes.clone()]).map(|node| node.end_ns);
    let download = Some(step.copies.download).filter(CopyStamp::is_valid).map(|copy| copy.end_ns);
    nodes.chain(download).max()
}

/// What the device does in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Upload,
    /// A node of the replay with this index.
    Node(u32),
    Download,
}

/// What the device did in a step, by begin.
fn device_work(recording: &Recording, step: &StepRecord, replays: &[&Replay]) -> Vec<(Work, u64, u64)> {
    let nodes = replays.iter().flat_map(|replay| &recording.nodes[replay.nodes.clone()]);
    let nodes = nodes.map(|node: &NodeTime| (Work::Node(node.replay), node.start_ns, node.end_ns));
    let copies = [(Work::Upload, step.copies.upload), (Work::Download, step.copies.download)];
    let copies = copies.into_iter().filter(|(_, copy)| copy.is_valid());
    let mut work: Vec<_> = nodes.chain(copies.map(|(work, copy)| (work, copy.start_ns, copy.end_ns))).collect();
    work.sort_by_key(|(_, start_ns, _)| *start_ns);
    work
}

fn account_step(
    recording: &Recording,
    spans: &[HostSpan],
    step: &StepRecord,
    replays: &[&Replay],
    start_ns: u64,
) -> StepAccount {
    let mut parts = Parts::default();
    let (mut at_ns, mut last) = (start_ns, None);
    for (work, work_start_ns, work_end_ns) in device_work(recording, step, replays) {
        let gap_ns = work_start_ns.saturating_sub(at_ns);
        match (last, work) {
            (None, _) => {
                let launched_ns = replays.first().map_or(at_ns, |replay| replay.record.launch_end_ns);
                before_device(spans, (at_ns, launched_ns, at_ns + gap_ns), &mut parts);
            }
            (Some(Work::Node(before)), Work::Node(replay)) if before == replay => parts.node_gaps_ns += gap_ns,
            (Some(Work::Node(_)), Work::Node(_)) => parts.graph_gap_ns += gap_ns,
            _ => parts.copy_gaps_ns += gap_ns,
        }
        at_ns += gap_ns;
        let busy_ns = work_end_ns.saturating_sub(at_ns);
        match work {
            Work::Upload => parts.upload_ns += busy_ns,
            Work::Node(_) => parts.nodes_ns += busy_ns,
            Work::Download => parts.download_ns += busy_ns,
        }
        at_ns += busy_ns;
        last = Some(work);
    }
    parts.wall_ns = at_ns - start_ns;
    StepAccount { step: step.step, start_ns, parts }
}

/// From the window's begin over the submission's return to the device's begin.
fn before_device(spans: &[HostSpan], (from_ns, launched_ns, to_ns): (u64, u64, u64), parts: &mut Parts) {
    let launched_ns = launched_ns.clamp(from_ns, to_ns);
    parts.launch_gap_ns = to_ns - launched_ns;
    parts.phases_ns = phases_within(spans, from_ns, launched_ns);
    parts.unattributed_ns = launched_ns - from_ns - parts.phases_ns.iter().sum::<u64>();
}

/// How long the engine's thread was in each phase between two moments. Where two spans overlap, the earlier counts.
fn phases_within(spans: &[HostSpan], from_ns: u64, to_ns: u64) -> [u64; Phase::ALL.len()] {
    let mut phases_ns = [0; Phase::ALL.len()];
    // Spans follow each other, so the one before the first that begins inside is the only one that may reach inside.
    let first = spans.partition_point(|span| span.start_ns < from_ns).saturating_sub(1);
    let mut at_ns = from_ns;
    for span in spans[first..].iter().take_while(|span| span.start_ns < to_ns) {
        let start_ns = span.start_ns.max(at_ns);
        let end_ns = span.end_ns.min(to_ns);
        if end_ns > start_ns {
            phases_ns[span.phase as usize] += end_ns - start_ns;
            at_ns = end_ns;
        }
    }
    phases_ns
}
