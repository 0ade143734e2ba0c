//! What it costs to use the GPU: csrc/probe.cu, in graphs that compute nothing.

use super::chains::{self, Chain, ChainOptions, PROBE, Replay, THREADS, between, distance_ns, overlap_ns};
use super::{Bench, Temporary, median};
use crate::device::DeviceError;
use crate::device::cuda::CudaError;
use crate::kernels::cuda::Launch;
use crate::kernels::params::{ClockStepParams, NodeProbeParams};

pub(super) const CLOCK_STEP: &str = "probe_clock";

/// Reads of the clock: some milliseconds, in which a clock that ticks once in a microsecond has ticked often.
const CLOCK_READS: u32 = 100_000;

/// How long a node stays, so that one can be seen to begin beside it.
const SPIN_NS: u32 = 20_000;

/// Blocks of a multiprocessor of the grid that is large, and computes nothing.
const MANY_BLOCKS: u32 = 64;

/// Runs of which the median counts.
const SAMPLES: usize = 7;

/// What it costs to use the device, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overheads {
    /// The smallest step between two reads of the device's clock that differ.
    pub clock_step_ns: u64,
    /// Steps that were seen, in so many nanoseconds.
    pub clock_steps: u64,
    /// Nanoseconds in which they were seen.
    pub clock_seen_ns: u64,
    /// From one empty node of a graph to the next, each of one block, as graphs are captured: with programmatic edges.
    pub boundary_ns: f64,
    /// The same with full edges.
    pub boundary_full_ns: f64,
    /// How long before the end of the node ahead the first block of a node has begun, up to its wait: the medians of
    /// pairs of nodes that take 20 µs each. Below zero: how long after it.
    pub overlap_ns: f64,
    /// The same with full edges.
    pub overlap_full_ns: f64,
    /// From the end of a node to where the next one is behind its wait, with programmatic edges.
    pub gap_ns: f64,
    /// The same with full edges.
    pub gap_full_ns: f64,
    /// What a further block that computes nothing adds to a kernel, of the whole device.
    pub block_ns: f64,
    /// Blocks of the large grid by which that was measured.
    pub blocks: u32,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Overheads, DeviceError> {
    let [clock_step_ns, clock_steps, clock_seen_ns] = clock_steps(bench)?;
    let cells = chains::cells(bench)?;
    let has_edges = bench.context.gpu.has_programmatic_launch();
    let overlapping = |bench: &mut Bench<'_>, spin_ns| chain(bench, &cells, spin_ns, has_edges);
    let full = |bench: &mut Bench<'_>, spin_ns| chain(bench, &cells, spin_ns, false);
    let (empty, empty_full) = (overlapping(bench, 0)?, full(bench, 0)?);
    let (long, long_full) = (overlapping(bench, SPIN_NS)?, full(bench, SPIN_NS)?);
    let (block_ns, blocks) = block_ns(bench)?;
    Ok(Overheads {
        clock_step_ns,
        clock_steps,
        clock_seen_ns,
        boundary_ns: boundary_ns(&empty),
        boundary_full_ns: boundary_ns(&empty_full),
        overlap_ns: between(&long, overlap_ns),
        overlap_full_ns: between(&long_full, overlap_ns),
        gap_ns: between(&long, |ahead, node| distance_ns(ahead.end_ns, node.start_ns)),
        gap_full_ns: between(&long_full, |ahead, node| distance_ns(ahead.end_ns, node.start_ns)),
        block_ns,
        blocks,
    })
}

fn clock_steps(bench: &mut Bench<'_>) -> Result<[u64; 3], DeviceError> {
    let out = Temporary::alloc(bench.context, 3 * size_of::<u64>(), "measuring the clock")?;
    let launch = Launch::of(CLOCK_STEP.into(), [1, 1, 1], 1);
    // SAFETY: the kernel writes three numbers.
    unsafe { bench.duration_ns(&launch, ClockStepParams { out: out.addr.into(), reads: CLOCK_READS, reserved: 0 })? };
    Ok(out.read(0)?)
}

/// Replays of a chain: the cells of every node, of every sample.
fn chain(
    bench: &mut Bench<'_>,
    cells: &Temporary,
    spin_ns: u32,
    overlapping: bool,
) -> Result<Vec<Replay>, DeviceError> {
    let chain = Chain::capture(bench, cells, ChainOptions { spin_ns, overlapping, named: None })?;
    // One more, which is not looked at: the first replay of a graph takes longer.
    chain.replay(bench.context, cells)?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        samples.push(chain.replay(bench.context, cells)?);
    }
    Ok(samples)
}

/// From node to node, of the median replay.
fn boundary_ns(samples: &[Replay]) -> f64 {
    median(samples.iter().map(Replay::boundary_ns).collect())
}

/// What a further block costs, and how many there were.
fn block_ns(bench: &mut Bench<'_>) -> Result<(f64, u32), DeviceError> {
    let blocks = bench.context.gpu.multiprocessors * MANY_BLOCKS;
    let mut duration_of = |blocks: u32| -> Result<f64, CudaError> {
        let launch = Launch::of(PROBE.into(), [blocks, 1, 1], THREADS);
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            // SAFETY: the kernel writes nothing but its stamp.
            samples.push(unsafe { bench.duration_ns(&launch, NodeProbeParams::default())? } as f64);
        }
        Ok(median(samples))
    };
    let (one, many) = (duration_of(1)?, duration_of(blocks)?);
    Ok(((many - one) / f64::from(blocks - 1), blocks))
}
