//! What it costs that the driver's profiling library records, and what its records say: by chains of nodes that take so
//! and so long, replayed idle and while it records.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::chains::{self, Chain, ChainOptions, NODES, Replay, between, overlap_ns};
use super::records::{self, RecordCounts, RecordTimes};
use super::{Bench, Temporary, median};
use crate::device::DeviceError;
use crate::trace::record::ActivityLibrary;

/// How long the nodes of each chain stay: such lengths show what is added to a node, and what is hidden in it.
pub const CHAIN_SPINS_NS: [u32; 3] = [0, 1_000, 3_000];

/// Nodes of each chain.
pub const CHAIN_NODES: usize = NODES;

/// What comes before the replays that are measured: one replay at least, and as many as begin in this time.
const WARM_UP: Duration = Duration::from_millis(10);

/// Replays of each chain in a run, of which the median counts.
const REPLAYS: usize = 3;

/// How long a node of a chain takes: medians of the replays of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChainTimes {
    /// By the nodes' stamps, from the first one's start to the last one's end, for each node.
    pub node_ns: f64,
    /// By the host's clock, from the replay's launch until its end was seen.
    pub replay_ns: f64,
    /// How long before the end of the node ahead a node's first block begins: below zero, how long after it.
    pub overlap_ns: f64,
}

/// A run: every chain, in the order of [`CHAIN_SPINS_NS`].
pub type ChainRun = [ChainTimes; CHAIN_SPINS_NS.len()];

/// A run that was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordedRun {
    /// As of every run.
    pub times: ChainRun,
    /// By the records, of every chain.
    pub records: [RecordTimes; CHAIN_SPINS_NS.len()],
    /// Of the records.
    pub counts: RecordCounts,
}

/// Captured chains, with programmatic edges where the GPU has them.
pub struct Chains<'a> {
    chains: Vec<Chain>,
    /// Lives longer than the graphs that write it.
    cells: Temporary,
    bench: Bench<'a>,
}

impl<'a> Chains<'a> {
    pub(super) fn capture(mut bench: Bench<'a>) -> Result<Chains<'a>, DeviceError> {
        let (activity, cells) = (ActivityLibrary::get().ok(), chains::cells(&bench)?);
        let mut chains = Vec::with_capacity(CHAIN_SPINS_NS.len());
        for (graph, spin_ns) in (1..).zip(CHAIN_SPINS_NS) {
            let named = activity.map(|activity| (activity, graph));
            chains.push(Chain::capture(&mut bench, &cells, ChainOptions { spin_ns, overlapping: true, named })?);
        }
        Ok(Chains { chains, cells, bench })
    }

    /// Replays all chains.
    pub fn run(&mut self) -> Result<ChainRun, DeviceError> {
        Ok(self.run_counted()?.0)
    }

    /// Replays all chains while the profiling library records. The inner error says why it does not.
    pub fn run_recorded(&mut self) -> Result<Result<RecordedRun, String>, DeviceError> {
        let watch = match ActivityLibrary::get().and_then(|activity| activity.watch()) {
            Ok(watch) => watch,
            Err(reason) => return Ok(Err(reason)),
        };
        let (times, replays) = self.run_counted()?;
        let watched = watch.stop();
        if let Some(error) = watched.errors.first() {
            return Ok(Err(error.clone()));
        }
        let known: Vec<_> = self.chains.iter().filter_map(|chain| chain.executable.known()).collect();
        let (counts, of_chains) = records::examine(&watched, &known, replays);
        let mut run = RecordedRun { times, counts, ..RecordedRun::default() };
        run.records.iter_mut().zip(of_chains).for_each(|(to, times)| *to = times);
        Ok(Ok(run))
    }

    /// A run, and how many replays it was.
    fn run_counted(&mut self) -> Result<(ChainRun, u64), DeviceError> {
        let context = self.bench.context;
        context.bind()?;
        let (begin, mut replays) = (Instant::now(), 0);
        while replays == 0 || begin.elapsed() < WARM_UP {
            self.chains[0].replay(context, &self.cells)?;
            replays += 1;
        }
        let mut run = ChainRun::default();
        for (times, chain) in run.iter_mut().zip(&self.chains) {
            // One more, which is not looked at: a graph's first replay takes longer.
            chain.replay(context, &self.cells)?;
            let mut measured = Vec::with_capacity(REPLAYS);
            for _ in 0..REPLAYS {
                measured.push(chain.replay(context, &self.cells)?);
            }
            replays += 1 + REPLAYS as u64;
            *times = ChainTimes {
                node_ns: median(measured.iter().map(Replay::node_ns).collect()),
                replay_ns: median(measured.iter().map(|replay| replay.wall_ns).collect()),
                overlap_ns: between(&measured, overlap_ns),
            };
        }
        Ok((run, replays))
    }
}

impl std::fmt::Debug for Chains<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chains")
    }
}
