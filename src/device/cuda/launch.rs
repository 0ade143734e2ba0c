//! How each node is launched: kernel, grid, block and shared memory, by op, formats and the graph's bucket.
//!
//! The names are those of csrc/*.cu: `norm_qkv_int8x2_t16` reads activations as int8x2 and has blocks of up to 16 rows.
//! Which line is chosen changes no bit of a result.

use crate::device::params::*;
use crate::device::{KernelParams, WeightFormat};

/// Threads of every block but those that say otherwise: 8 warps.
const THREADS: u32 = 256;

/// Threads of a block of `sample`, which has one row.
const SAMPLE_THREADS: u32 = 1024;

/// Rows of activations that a block of a linear kernel takes, by the graph's bucket: the first line that is not below
/// it. With few rows the weights are what is read, and every block reads its own once; with many, the rows would be
/// read again by every block.
const LINEAR_ROWS: [(u32, u32); 4] = [(8, 8), (16, 16), (32, 32), (u32::MAX, 64)];

/// Outputs of a block of a linear kernel: two of mma's tiles.
const LINEAR_OUTPUTS: u32 = 32;

/// A launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
    /// The weights' formats, for tables.
    pub(super) formats: String,
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
    pub(super) fn clock() -> Launch {
        Launch::of("device_clock".into(), [1, 1, 1], 1)
    }

    fn of(kernel: String, grid: [u32; 3], threads: u32) -> Launch {
        Launch { kernel, grid, threads, shared_bytes: 0, formats: String::new() }
    }

    /// The launch in words, for `vitrum graph` and traces.
    pub(super) fn choice(&self) -> String {
        let [x, y, z] = self.grid;
        let formats = if self.formats.is_empty() { String::new() } else { format!("{}; ", self.formats) };
        let shared =
            if self.shared_bytes == 0 { String::new() } else { format!(", {} bytes shared", self.shared_bytes) };
        format!("{formats}grid {x} x {y} x {z}, {} threads{shared}", self.threads)
    }
}

/// The launch of a node in a graph with this bucket.
pub(super) fn choose(params: &KernelParams, bucket: u32, multiprocessors: u32) -> Launch {
    match params {
        KernelParams::Embed(_) => Launch::of("embed".into(), [bucket, 1, 1], THREADS),
        KernelParams::NormQkv(p) => linear("norm_qkv", &[p.wq, p.wk, p.wv], LINEAR_OUTPUTS, bucket),
        KernelParams::Attention(p) => {
            let kernel = format!("attention_f16_d{}", p.head_dim);
            Launch::of(kernel, [multiprocessors, 1, 1], THREADS)
        }
        KernelParams::LinearResidual(p) => linear("linear_residual", &[p.weight], LINEAR_OUTPUTS, bucket),
        KernelParams::NormGateUp(p) => linear("norm_gate_up", &[p.gate], LINEAR_OUTPUTS, bucket),
        KernelParams::NormLmHead(p) => linear("norm_lm_head", &[p.weight], LINEAR_OUTPUTS, bucket),
        KernelParams::Sample(_) => Launch::of("sample".into(), [bucket, 1, 1], SAMPLE_THREADS),
    }
}

/// A linear kernel on blocks of `outputs` rows of each weight.
fn linear(op: &str, weights: &[WeightRef], outputs: u32, bucket: u32) -> Launch {
    let line = LINEAR_ROWS.iter().find(|(bucket_max, _)| bucket <= *bucket_max);
    let rows = line.expect("the last line takes every bucket").1;
    let activations = match weights[0].activations {
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        _ => "bf16",
    };
    let blocks = weights.iter().map(|weight| weight.rows.div_ceil(outputs)).sum();
    let launch = Launch::of(format!("{op}_{activations}_t{rows}"), [blocks, bucket.div_ceil(rows), 1], THREADS);
    Launch { formats: formats(weights), ..launch }
}

fn formats(weights: &[WeightRef]) -> String {
    let mut formats: Vec<_> =
        weights.iter().map(|weight| WeightFormat::from_u32(weight.format).map_or("?", WeightFormat::as_str)).collect();
    formats.dedup();
    formats.join("+")
}
