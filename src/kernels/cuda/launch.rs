//! How kernels are launched: name, grid, block and shared memory, by formats and the graph's bucket.
//!
//! The names are those of csrc/*.cu: `norm_qkv_int8x2_t16` reads activations as int8x2 and has blocks of up to 16 rows.
//! Which line is chosen changes no bit of a result.

use crate::formats::WeightFormat;
use crate::kernels::params::*;

/// Threads of every block but those that say otherwise: 8 warps.
pub(in crate::kernels) const THREADS: u32 = 256;

/// Rows of activations that a block of a linear kernel takes, by the graph's bucket: the first line that is not below
/// it. With few rows the weights are what is read, and every block reads its own once; with many, the rows would be
/// read again by every block.
const LINEAR_ROWS: [(u32, u32); 4] = [(8, 8), (16, 16), (32, 32), (u32::MAX, 64)];

/// The most of them if they are int8x2: a thread has no registers for more.
const LINEAR_ROWS_MAX_INT8X2: u32 = 32;

/// Outputs of a warp of a linear kernel: two of mma's tiles. A sliced block's warps share them.
const LINEAR_OUTPUTS: u32 = 32;

/// Buckets above this may have wide blocks, in which every warp has outputs of its own.
const LINEAR_SLICED_BUCKET_MAX: u32 = 64;

/// Blocks of outputs of a wide block.
const LINEAR_WIDE_WARPS: u32 = 8;

/// A launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// The blocks take their work in turn: the grid is [`Launch::fill`]ed with as many as the GPU holds at once.
    pub(crate) is_persistent: bool,
    /// The weights' formats, for tables.
    pub(crate) formats: String,
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{}, grid {x} x {y} x {z}, {} threads", self.kernel, self.threads)?;
        if self.shared_bytes > 0 { write!(f, ", {} bytes of shared memory", self.shared_bytes) } else { Ok(()) }
    }
}

impl Launch {
    /// Reads the GPU's clock: csrc/device_clock.cu.
    pub(crate) fn clock() -> Launch {
        Launch::of("device_clock".into(), [1, 1, 1], 1)
    }

    pub(crate) fn of(kernel: String, grid: [u32; 3], threads: u32) -> Launch {
        Launch { kernel, grid, threads, shared_bytes: 0, is_persistent: false, formats: String::new() }
    }

    /// The grid of a persistent launch on a GPU whose multiprocessors hold so many of its blocks each. One more block
    /// would begin when another has ended, with nothing left to do; one fewer leaves a multiprocessor's room unused.
    pub(crate) fn fill(&mut self, multiprocessors: u32, held: u32) {
        // A block that no multiprocessor holds fails when it is launched, with the driver's word for why.
        self.grid = [multiprocessors * held.max(1), 1, 1];
    }

    /// The launch in words, for `vitrum graph` and traces.
    pub(crate) fn choice(&self) -> String {
        let [x, y, z] = self.grid;
        let formats = if self.formats.is_empty() { String::new() } else { format!("{}; ", self.formats) };
        let shared =
            if self.shared_bytes == 0 { String::new() } else { format!(", {} bytes shared", self.shared_bytes) };
        format!("{formats}grid {x} x {y} x {z}, {} threads{shared}", self.threads)
    }
}

/// A linear kernel, whose grid has the blocks of outputs of one weight after the other: sliced blocks, or wide ones
/// where there are rows enough and every multiprocessor has one.
pub(in crate::kernels) fn linear(op: &str, weights: &[WeightRef], bucket: u32, multiprocessors: u32) -> Launch {
    let blocks: u32 = weights.iter().map(|weight| weight.rows.div_ceil(LINEAR_OUTPUTS)).sum();
    let form = match weights[0].activations {
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        _ => "bf16",
    };
    let formats = formats(weights);
    let rows = wide_rows(op, form);
    let grid = [blocks.div_ceil(LINEAR_WIDE_WARPS), bucket.div_ceil(rows), 1];
    if bucket > LINEAR_SLICED_BUCKET_MAX && grid[0] * grid[1] >= multiprocessors {
        let launch = Launch::of(format!("{op}_{form}_w{rows}"), grid, THREADS);
        return Launch { formats, shared_bytes: LINEAR_WIDE_SHARED, ..launch };
    }
    let line = LINEAR_ROWS.iter().find(|(bucket_max, _)| bucket <= *bucket_max);
    let rows = line.expect("the last line takes every bucket").1;
    let rows = if form == "int8x2" { rows.min(LINEAR_ROWS_MAX_INT8X2) } else { rows };
    Launch { formats, ..Launch::of(format!("{op}_{form}_t{rows}"), [blocks, bucket.div_ceil(rows), 1], THREADS) }
}

/// Rows of activations of a wide block.
fn wide_rows(op: &str, form: &str) -> u32 {
    // gate·up keeps the gates in the room of half of the sums.
    if op == "norm_gate_up" || form == "int8x2" { 32 } else { 64 }
}

pub(in crate::kernels) fn formats(weights: &[WeightRef]) -> String {
    let mut formats: Vec<_> =
        weights.iter().map(|weight| WeightFormat::from_u32(weight.format).map_or("?", WeightFormat::as_str)).collect();
    formats.dedup();
    formats.join("+")
}
