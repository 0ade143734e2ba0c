//! Which replay a launch was, and so which step a node belongs to; which call a copy was asked for by.

use std::cmp::Reverse;

use super::{Call, DeviceCopy, NodeTime, Recording, SeenNode};
use crate::trace::activity::{
    Activity, CallActivity, CopyActivity, CopyKind, DriverCall, NodeActivity, OverheadActivity,
};
use crate::trace::schema::{CopyStamp, StepCopies, StepRecord, is_time};

/// The profiling library's records as they come.
#[derive(Default)]
pub(super) struct RawActivity {
    nodes: Vec<NodeActivity>,
    copies: Vec<CopyActivity>,
    calls: Vec<CallActivity>,
    overheads: Vec<OverheadActivity>,
}

impl RawActivity {
    pub(super) fn push(&mut self, activity: Activity) {
        match activity {
            Activity::Node(node) => self.nodes.push(node),
            Activity::Copy(copy) => self.copies.push(copy),
            Activity::Call(call) => self.calls.push(call),
            Activity::Overhead(overhead) => self.overheads.push(overhead),
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What the calls are numbered by, with those that are no times left out, as everywhere.
    pub(super) fn correlations(&self) -> Vec<u32> {
        let calls = self.calls.iter().filter(|call| is_time(call.start_ns, call.end_ns));
        let mut correlations: Vec<u32> = calls.map(|call| call.correlation).collect();
        correlations.sort_unstable();
        correlations.dedup();
        correlations
    }
}

/// What is known of the calls of a whole recording where a part of it is resolved; nothing where that is all of it.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownCalls {
    /// Whether the engine's thread made launches under its own number.
    pub(super) has_own_launch: bool,
    /// The engine's thread, in the words of its calls.
    pub(super) engine_thread: Option<u32>,
    /// Correlations that calls before this part have, ascending: what they name is not this part's.
    pub(super) foreign: Vec<u32>,
}

/// Whether a call may be a replay's launch.
pub(super) fn is_launch(record: &CallActivity) -> bool {
    record.call == DriverCall::GraphLaunch && record.status == 0
}

impl Recording {
    /// Finds the replay of every node, and the call of every copy.
    pub(super) fn resolve_activity(&mut self, raw: RawActivity, known: &KnownCalls) {
        let RawActivity { nodes, copies, calls, mut overheads } = raw;
        let steps = self.replays.iter().filter(|replay| replay.record.sources.activity);
        self.seen.steps = steps.map(|replay| replay.record.step).collect();
        self.seen.steps.sort_unstable();
        self.seen.steps.dedup();
        self.seen.calls = self.launched(calls, known);
        let launch = || self.seen.calls.iter().find(|call| call.replay.is_some()).map(|call| call.record.thread);
        self.seen.engine_thread = known.engine_thread.or_else(launch).unwrap_or(self.header.session.engine_tid);
        let by_correlation = ByCorrelation::of(&self.seen.calls, &known.foreign);
        let nodes = self.nodes_of_replays(nodes, &by_correlation);
        self.take_nodes(nodes);
        self.take_copies(copies, &by_correlation);
        overheads.retain(|overhead| is_time(overhead.start_ns, overhead.end_ns));
        overheads.sort_by_key(|overhead| (overhead.start_ns, Reverse(overhead.end_ns)));
        self.seen.overheads = overheads;
        self.fill_copies();
    }

    /// Calls by begin, each launch with its replay: the engine took the time of the call around the call itself, so the
    /// call's middle lies within it, though the library's clock reads may be a little off.
    fn launched(&self, mut calls: Vec<CallActivity>, known: &KnownCalls) -> Vec<Call> {
        calls.retain(|call| is_time(call.start_ns, call.end_ns));
        calls.sort_by_key(|call| (call.start_ns, Reverse(call.end_ns)));
        let replays = self.replays.iter().enumerate().filter(|(_, replay)| replay.record.sources.activity);
        let mut replays: Vec<(u64, u64, u32)> = replays
            .map(|(at, replay)| (replay.record.launch_start_ns, replay.record.launch_end_ns, at as u32))
            .collect();
        replays.sort_unstable();
        let mut replays = replays.into_iter().peekable();
        // The engine's own, where its thread is known by its number.
        let engine_tid = self.header.session.engine_tid;
        let is_own = |record: &CallActivity| is_launch(record) && record.thread == engine_tid;
        let is_known = known.has_own_launch || calls.iter().any(is_own);
        let call = |record: CallActivity| {
            if !is_launch(&record) || (is_known && record.thread != engine_tid) {
                return Call { record, replay: None };
            }
            let middle_ns = record.start_ns.midpoint(record.end_ns);
            // Calls follow each other, and so do the engine's times: what ends before this call has none any more.
            while replays.next_if(|(_, end_ns, _)| *end_ns < middle_ns).is_some() {}
            let replay = replays.next_if(|(start_ns, ..)| *start_ns <= middle_ns);
            Call { record, replay: replay.map(|(.., at)| at) }
        };
        calls.into_iter().map(call).collect()
    }

    /// The valid nodes of replays, by replay and ordinal, each once.
    fn nodes_of_replays(&mut self, nodes: Vec<NodeActivity>, by_correlation: &ByCorrelation) -> Vec<SeenNode> {
        let Recording { replays, graphs, seen, .. } = self;
        // The nodes of one launch mostly stand together.
        let mut last: Option<(u32, Option<u32>)> = None;
        let resolved = |node: NodeActivity| {
            let replay = match last {
                Some((correlation, replay)) if correlation == node.correlation => replay,
                _ => by_correlation.call(node.correlation).and_then(|call| seen.calls[call as usize].replay),
            };
            last = Some((node.correlation, replay));
            let known = replay.filter(|replay| {
                let replay = &replays[*replay as usize];
                let nodes = graphs[replay.graph].nodes.len();
                replay.record.graph == node.graph && (node.ordinal as usize) < nodes
            });
            let Some(at) = known else {
                seen.unresolved += 1;
                return None;
            };
            if !node.is_valid() {
                let replay = &mut replays[at as usize];
                replay.seen_invalid += 1;
                replay.invalid += u64::from(replay.is_activity_alone());
                return None;
            }
            Some(SeenNode { replay: at, ordinal: node.ordinal, start_ns: node.start_ns, end_ns: node.end_ns })
        };
        // In the memory of the records themselves.
        let mut found: Vec<SeenNode> = nodes.into_iter().filter_map(resolved).collect();
        // Stable: of two times of one node the first that came is kept.
        found.sort_by_key(|node| (node.replay, node.ordinal));
        found.dedup_by(|second, first| {
            let is_same = (first.replay, first.ordinal) == (second.replay, second.ordinal);
            let is_alone = replays[first.replay as usize].is_activity_alone();
            seen.surplus[usize::from(is_alone)] += u64::from(is_same);
            is_same
        });
        found
    }

    /// Makes node times of the nodes of replays without stamps, and keeps the others.
    fn take_nodes(&mut self, mut found: Vec<SeenNode>) {
        let is_alone = |node: &&SeenNode| self.replays[node.replay as usize].is_activity_alone();
        self.nodes.reserve(found.iter().filter(is_alone).count());
        for nodes in found.chunk_by(|a, b| a.replay == b.replay) {
            let replay = &mut self.replays[nodes[0].replay as usize];
            if !replay.is_activity_alone() {
                continue;
            }
            let from = self.nodes.len();
            self.nodes.extend(nodes.iter().map(|node| NodeTime {
                replay: node.replay,
                ordinal: node.ordinal,
                start_ns: node.start_ns,
                end_ns: node.end_ns,
                excl_ns: 0,
                wait_ns: 0,
            }));
            self.nodes[from..].sort_by_key(|node| (node.start_ns, node.ordinal));
            replay.nodes = from..self.nodes.len();
        }
        let replays = &mut self.replays;
        found.retain(|node| replays[node.replay as usize].has_both());
        found.shrink_to_fit();
        let mut from = 0;
        for nodes in found.chunk_by(|a, b| a.replay == b.replay) {
            replays[nodes[0].replay as usize].seen = from..from + nodes.len();
            from += nodes.len();
        }
        self.seen.nodes = found;
    }

    fn take_copies(&mut self, mut copies: Vec<CopyActivity>, by_correlation: &ByCorrelation) {
        copies.retain(|copy| is_time(copy.start_ns, copy.end_ns));
        copies.sort_by_key(|copy| copy.start_ns);
        let copies = copies.into_iter();
        self.seen.copies =
            copies.map(|record| DeviceCopy { record, call: by_correlation.call(record.correlation) }).collect();
        self.seen.unlaunched_copies = self.seen.copies.iter().filter(|copy| copy.call.is_none()).count() as u64;
    }

    /// Gives steps whose copies nothing stamped those that the engine's thread asked for in their iterations.
    fn fill_copies(&mut self) {
        let is_open = |step: &StepRecord| {
            let StepCopies { upload, download } = &step.copies;
            self.seen.steps.binary_search(&step.step).is_ok() && !upload.is_valid() && !download.is_valid()
        };
        let open = self.steps.iter().enumerate().filter(|(_, step)| is_open(step));
        let mut open: Vec<(u64, usize)> = open.map(|(at, step)| (step.start_ns, at)).collect();
        open.sort_unstable();
        let copies = if open.is_empty() { &[] } else { &self.seen.copies[..] };
        for copy in copies {
            let Some(call) = copy.call.map(|call| &self.seen.calls[call as usize]) else { continue };
            let after = open.partition_point(|(start_ns, _)| *start_ns <= call.record.start_ns);
            let Some((_, at)) = after.checked_sub(1).map(|at| open[at]) else { continue };
            let step = &mut self.steps[at];
            if !self.seen.is_engine(call) || call.record.end_ns > step.end_ns {
                continue;
            }
            match copy.record.kind {
                CopyKind::HtoD => extend(&mut step.copies.upload, &copy.record),
                CopyKind::DtoH => extend(&mut step.copies.download, &copy.record),
                CopyKind::DtoD | CopyKind::Other | CopyKind::Fill => {}
            }
        }
    }
}

/// From the first copy's begin to the last one's end.
fn extend(stamp: &mut CopyStamp, copy: &CopyActivity) {
    let CopyActivity { start_ns, end_ns, bytes, .. } = *copy;
    *stamp = if stamp.is_valid() {
        CopyStamp {
            start_ns: stamp.start_ns.min(start_ns),
            end_ns: stamp.end_ns.max(end_ns),
            bytes: stamp.bytes.saturating_add(bytes),
        }
    } else {
        CopyStamp { start_ns, end_ns, bytes }
    };
}

/// Calls by correlation, the first of each.
struct ByCorrelation(Vec<(u32, u32)>);

impl ByCorrelation {
    fn of(calls: &[Call], foreign: &[u32]) -> ByCorrelation {
        let numbered = calls.iter().enumerate().map(|(at, call)| (call.record.correlation, at as u32));
        let mut indices: Vec<(u32, u32)> =
            numbered.filter(|(correlation, _)| foreign.binary_search(correlation).is_err()).collect();
        indices.sort_unstable();
        indices.dedup_by_key(|(correlation, _)| *correlation);
        ByCorrelation(indices)
    }

    /// A call, by its index.
    fn call(&self, correlation: u32) -> Option<u32> {
        self.0.binary_search_by_key(&correlation, |(of, _)| *of).ok().map(|at| self.0[at].1)
    }
}
