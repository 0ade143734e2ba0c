//! Node times of a running server: one step in N is timed and enters histograms, one for each node, for as long as the
//! server runs. Nothing is written anywhere; whoever asks reads them ([`Samples`]).
//!
//! The engine's thread never waits here: where somebody reads a graph, a step that would enter its times is left out,
//! and counted. Once a graph is known nothing is allocated. A histogram has 2560 counters of 4 bytes, so that a graph
//! of 151 nodes takes 1.5 MiB, and all of them at most [`NODES_MAX`] × 10 KiB.

mod choice;
mod cost;
mod histograms;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use self::choice::Choice;
use self::cost::{Neighbours, Ratios, TimedStep};
use self::histograms::{GraphTimes, SampledGraph};
use crate::request::StepId;
use crate::trace::sample::{By, NodeTimeSeries, SERIES_BOUNDS_NS, SampleReading, SampleTotals};
use crate::trace::schema::{GraphKey, GraphKind, GraphTable, NodeSources, NodeStamp, Op, StepSizes};
use crate::trace::session::{RecordError, SessionPeaks};

/// The most nodes that have histograms, of all graphs: 80 MiB. A graph beyond is not sampled, and its steps count as
/// left out.
pub const NODES_MAX: usize = 8192;

/// The graphs of a step.
const STEP_GRAPHS: usize = 2;
/// More steps than any device has under way.
const OPEN_MAX: usize = 8;

/// Decides which steps are timed, and takes their times. On the engine's thread.
#[derive(Debug)]
pub struct Sampler {
    choice: Choice,
    shared: Arc<Shared>,
    /// By graph id; of a graph that there was no room for, nothing.
    graphs: Vec<Option<Arc<SampledGraph>>>,
    nodes: usize,
    /// Of the step that is about to be submitted.
    next: Decision,
    open: VecDeque<OpenStep>,
    last_done_ns: Option<u64>,
    neighbours: Neighbours,
    /// Nodes of a step by their begin: room for sorting.
    order: Vec<NodeAt>,
}

/// The histograms, as everybody but the engine's thread sees them.
#[derive(Clone, Debug)]
pub struct Samples(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    every: NonZeroU32,
    /// Held by the engine's thread only where a graph is new.
    graphs: Mutex<Vec<Arc<SampledGraph>>>,
    peaks: OnceLock<SessionPeaks>,
    ratios: Ratios,
    steps: AtomicU64,
    sampled: AtomicU64,
    left_out: AtomicU64,
    base: Mutex<Base>,
    series: Box<[Series]>,
}

/// What was there at the last reset.
#[derive(Debug)]
struct Base {
    totals: SampleTotals,
    unix_s: u64,
}

/// Times of one op in graphs of one kind.
#[derive(Debug, Default)]
struct Series {
    buckets: [AtomicU64; SERIES_BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Decision {
    is_chosen: bool,
    /// A recording has the step: nothing is compared with it.
    is_recorded: bool,
}

/// A step that was submitted and not read yet.
#[derive(Clone, Copy, Debug)]
struct OpenStep {
    id: StepId,
    decision: Decision,
    sources: NodeSources,
    sizes: StepSizes,
    prefill_tokens: u64,
    /// Their ids.
    graphs: [Option<u32>; STEP_GRAPHS],
}

/// A node of a step that was timed.
#[derive(Clone, Copy, Debug)]
struct NodeAt {
    stamp: NodeStamp,
    graph: usize,
    ordinal: usize,
}

impl Sampler {
    /// Times one step in `every`, by a lot that `seed` decides.
    pub fn start(every: NonZeroU32, seed: u64) -> Result<Sampler, RecordError> {
        let shared = Shared {
            every,
            graphs: Mutex::default(),
            peaks: OnceLock::new(),
            ratios: Ratios::new(),
            steps: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            base: Mutex::new(Base { totals: SampleTotals::default(), unix_s: unix_s() }),
            series: (0..OPS * GraphKind::ALL.len()).map(|_| Series::default()).collect(),
        };
        Ok(Sampler {
            choice: Choice::new(every, seed),
            shared: Arc::new(shared),
            graphs: Vec::new(),
            nodes: 0,
            next: Decision::default(),
            open: VecDeque::with_capacity(OPEN_MAX),
            last_done_ns: None,
            neighbours: Neighbours::default(),
            order: Vec::new(),
        })
    }

    /// The histograms.
    pub fn samples(&self) -> Samples {
        Samples(self.shared.clone())
    }

    /// A graph was captured: allocates all that its times will need.
    pub fn know(&mut self, table: &GraphTable) {
        let at = table.id as usize;
        if self.graphs.len() <= at {
            self.graphs.resize(at + 1, None);
        }
        if self.graphs[at].is_some() || self.nodes + table.nodes.len() + 1 > NODES_MAX {
            return;
        }
        self.nodes += table.nodes.len() + 1; // all of it has a histogram, too
        self.order.reserve(STEP_GRAPHS * table.nodes.len());
        let graph = Arc::new(SampledGraph::new(table));
        self.graphs[at] = Some(graph.clone());
        self.shared.graphs().push(graph);
    }

    /// The device's roofs were measured.
    pub fn set_peaks(&self, peaks: SessionPeaks) {
        let _ = self.shared.peaks.set(peaks); // they are measured once
    }

    /// What is to time the next step's nodes. What a recording that has the step wants for it is not changed: then a
    /// chosen step has the recording's stamps, or is left out.
    pub fn decide(&mut self, by_recording: Option<NodeSources>) -> NodeSources {
        self.next = Decision { is_chosen: self.choice.next(), is_recorded: by_recording.is_some() };
        let own = if self.next.is_chosen { NodeSources::STAMPS } else { NodeSources::NONE };
        by_recording.unwrap_or(own)
    }

    /// The step that was decided on was submitted.
    pub fn submitted(
        &mut self,
        id: StepId,
        sources: NodeSources,
        (sizes, prefill_tokens): (StepSizes, u64),
        graphs: [Option<&GraphTable>; STEP_GRAPHS],
    ) {
        for table in graphs.into_iter().flatten() {
            self.know(table);
        }
        self.shared.steps.fetch_add(1, Ordering::Relaxed);
        if self.open.len() == OPEN_MAX {
            self.open.pop_front(); // it was never read
        }
        let graphs = graphs.map(|graph| graph.map(|table| table.id));
        self.open.push_back(OpenStep { id, decision: self.next, sources, sizes, prefill_tokens, graphs });
    }

    /// The engine waits for something to do: the next step does not follow the last one.
    pub fn paused(&mut self) {
        self.last_done_ns = None;
        self.neighbours.part();
    }

    /// A step's tokens have been read. Its stamps are those of all its nodes, in order of graph and node.
    pub fn finished(&mut self, id: StepId, stamps: &[NodeStamp], done_ns: u64) {
        while self.open.front().is_some_and(|open| open.id.0 < id.0) {
            self.open.pop_front();
        }
        if self.open.front().is_none_or(|open| open.id != id) {
            return;
        }
        let Some(step) = self.open.pop_front() else { return };
        if step.decision.is_chosen && self.take(&step, stamps).is_none() {
            self.shared.left_out.fetch_add(1, Ordering::Relaxed);
        }
        self.compare(&step, done_ns);
    }

    /// Enters a step's times, of all its graphs or of none.
    fn take(&mut self, step: &OpenStep, mut stamps: &[NodeStamp]) -> Option<()> {
        self.order.clear();
        let mut graphs: [Option<&SampledGraph>; STEP_GRAPHS] = [None; STEP_GRAPHS];
        let mut whole = [NodeStamp::default(); STEP_GRAPHS];
        for (at, id) in step.graphs.iter().enumerate().filter_map(|(at, id)| Some((at, (*id)?))) {
            let graph: &SampledGraph = self.graphs.get(id as usize)?.as_ref()?;
            let (own, rest) = stamps.split_at_checked(graph.table.nodes.len())?;
            whole[at] = NodeStamp::of_all(own).filter(NodeStamp::is_valid)?;
            self.order.extend(own.iter().enumerate().map(|(ordinal, stamp)| NodeAt {
                stamp: *stamp,
                graph: at,
                ordinal,
            }));
            graphs[at] = Some(graph);
            stamps = rest;
        }
        let mut times = [None, None];
        for (times, graph) in times.iter_mut().zip(graphs) {
            *times = match graph {
                Some(graph) => Some(graph.try_lock()?),
                None => None,
            };
        }
        let step_bytes: f64 = graphs.iter().flatten().map(|graph| graph.bytes.at(&step.sizes)).sum();
        for (times, whole) in times.iter_mut().zip(&whole) {
            if let Some(times) = times {
                times.replay(&step.sizes, step_bytes, whole);
            }
        }
        self.order.sort_unstable_by_key(|node| (node.stamp.start_ns, node.graph, node.ordinal));
        enter(&self.order, graphs, &mut times, &self.shared.series);
        self.shared.sampled.fetch_add(1, Ordering::Relaxed); // while the locks are held: a reset comes before or after
        Some(())
    }

    /// Compares timed steps with those around them.
    fn compare(&mut self, step: &OpenStep, done_ns: u64) {
        let ns = self.last_done_ns.map(|last_ns| done_ns.saturating_sub(last_ns));
        self.last_done_ns = Some(done_ns);
        let Some(ns) = ns.filter(|_| !step.decision.is_recorded) else { return self.neighbours.part() };
        let StepSizes { tokens, seqs, logit_rows, .. } = step.sizes;
        let class = [tokens, seqs, logit_rows, step.prefill_tokens];
        if let Some(ratio) = self.neighbours.push(TimedStep { class, is_timed: step.sources.any(), ns }) {
            self.shared.ratios.count(ratio);
        }
    }
}

/// Enters nodes, in order of their begin: what overlaps an earlier one counts once.
fn enter(
    nodes: &[NodeAt],
    graphs: [Option<&SampledGraph>; STEP_GRAPHS],
    times: &mut [Option<MutexGuard<'_, GraphTimes>>; STEP_GRAPHS],
    series: &[Series],
) {
    let mut latest_end_ns = 0;
    for NodeAt { stamp, graph, ordinal } in nodes {
        let excl_ns = stamp.end_ns.saturating_sub(stamp.start_ns.max(latest_end_ns));
        latest_end_ns = latest_end_ns.max(stamp.end_ns);
        if let (Some(table), Some(times)) = (graphs[*graph].map(|graph| &graph.table), &mut times[*graph]) {
            times.node(*ordinal, excl_ns);
            series[series_index(table.nodes[*ordinal].place.op, table.key.kind)].count(excl_ns);
        }
    }
}

impl Samples {
    /// Everything that was sampled, of one graph if it is said which.
    pub fn read(&self, by: By, graph: Option<GraphKey>) -> SampleReading {
        let totals = self.totals();
        let (base, since) = {
            let base = self.0.base();
            (base.totals, base.unix_s)
        };
        // The list is let go before any graph is read: the engine's thread adds to it.
        let graphs = self.0.graphs().clone();
        let wanted = graphs.iter().filter(|known| graph.is_none_or(|key| known.table.key == key));
        SampleReading {
            every: self.0.every.get(),
            steps: totals.steps.saturating_sub(base.steps),
            sampled: totals.sampled.saturating_sub(base.sampled),
            left_out: totals.left_out.saturating_sub(base.left_out),
            since,
            cost: self.0.ratios.cost(),
            graphs: wanted.map(|graph| graph.read(by, self.0.peaks.get())).collect(),
        }
    }

    /// Empties the histograms, all at one moment, and gives that moment in seconds of the Unix clock. Steps that end
    /// meanwhile are left out.
    pub fn reset(&self) -> u64 {
        let mut base = self.0.base();
        let graphs = self.0.graphs().clone();
        let mut times: Vec<_> = graphs.iter().map(|graph| graph.lock()).collect();
        // No step can be entered now.
        *base = Base { totals: self.totals(), unix_s: unix_s() };
        times.iter_mut().for_each(|times| times.reset());
        self.0.ratios.reset();
        base.unix_s
    }

    /// Counts since the start.
    pub fn totals(&self) -> SampleTotals {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SampleTotals { steps: of(&self.0.steps), sampled: of(&self.0.sampled), left_out: of(&self.0.left_out) }
    }

    /// Node times since the start by op and kind of graph, of those that there are.
    pub fn series(&self) -> Vec<NodeTimeSeries> {
        let pairs = Op::ALL.into_iter().flat_map(|op| GraphKind::ALL.map(|kind| (op, kind)));
        let read = pairs.map(|(op, kind)| {
            let series = &self.0.series[series_index(op, kind)];
            let buckets = std::array::from_fn(|at| series.buckets[at].load(Ordering::Relaxed));
            NodeTimeSeries { op, kind, buckets, sum_ns: series.sum_ns.load(Ordering::Relaxed) }
        });
        read.filter(|series| series.buckets.iter().any(|count| *count > 0)).collect()
    }
}

impl Shared {
    fn graphs(&self) -> MutexGuard<'_, Vec<Arc<SampledGraph>>> {
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner) // a list is whole after every change
    }

    fn base(&self) -> MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner) // it is written in one piece
    }
}

impl Series {
    fn count(&self, ns: u64) {
        let at = SERIES_BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// Ops that a node can have; the last one is a whole graph's.
const OPS: usize = Op::ALL.len() + 1;
const _: () = assert!(Op::Graph as usize == OPS - 1, "an op is missing in Op::ALL");

fn series_index(op: Op, kind: GraphKind) -> usize {
    op as usize * GraphKind::ALL.len() + kind as usize
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
