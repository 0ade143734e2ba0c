//! The roofs of a roofline: csrc/peak.cu in grids that fill the GPU.

use super::{Bench, Temporary, median};
use crate::device::{DeviceError, DevicePeaks};
use crate::kernels::cuda::Launch;
use crate::kernels::params::{PEAK_MATRIX_CHAINS, PeakMatrixParams, PeakMemoryParams};

/// How long one sample lasts at least, if not the smallest one lasts longer. What a grid takes to begin and to end is
/// little beside it.
const SAMPLE_NS: u64 = 2_000_000;

/// How often a sample is made longer at most: a clock that stands still would have it made longer for ever.
const LENGTHENINGS_MAX: usize = 3;

/// Samples of which the median counts.
const SAMPLES: usize = 5;

/// A working set of so many second-level caches comes from memory, but for an eighth at most.
const STREAM_CACHES: u64 = 8;

/// And of less than this many it says nothing.
const STREAM_CACHES_MIN: u64 = 2;

const THREADS: u32 = 256;
const WARPS: u64 = THREADS as u64 / 32;

/// Blocks of a multiprocessor: as many threads as it holds, to have loads enough under way.
const MEMORY_BLOCKS: u32 = 8;

/// Blocks of a multiprocessor: 4 warps for each of its 4 tensor cores, with 8 products each that wait for none.
const MATRIX_BLOCKS: u32 = 2;

/// Operations of one product of a warp, a multiply-add counted as two: m16n8k16 and m16n8k32.
const BF16_PRODUCT_FLOPS: u64 = 2 * 16 * 8 * 16;
const INT8_PRODUCT_OPS: u64 = 2 * 16 * 8 * 32;

/// The first sample of a matrix loop, which says how many rounds the others need.
const MATRIX_ROUNDS_FIRST: u32 = 4;

/// Measures all roofs. Takes some ten milliseconds on a GPU, and memory of several times its second-level cache.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<DevicePeaks, DeviceError> {
    let l2_bytes = bench.context.gpu.l2_bytes.max(1 << 20);
    let (free_bytes, _) = bench.context.driver.memory().map_err(super::CudaError::from)?;
    let stream_bytes = (STREAM_CACHES * l2_bytes).min(free_bytes as u64 / 2) / 256 * 256;
    if stream_bytes < STREAM_CACHES_MIN * l2_bytes {
        let (bytes, purpose) = ((STREAM_CACHES * l2_bytes) as usize, "measuring memory bandwidth");
        let source = std::io::Error::other(format!("{free_bytes} bytes are free"));
        return Err(DeviceError::OutOfMemory { bytes, purpose, source });
    }
    let memory = Temporary::alloc(bench.context, stream_bytes as usize, "measuring memory bandwidth")?;
    let word = Temporary::alloc(bench.context, size_of::<u32>(), "measuring peaks")?;
    // A cache in two parts keeps what both read twice: so a working set of half of it fits.
    let cache_bytes = l2_bytes / 2;
    let memory_gb_s = read_gb_s(bench, &memory, &word, stream_bytes)?;
    let cache_gb_s = read_gb_s(bench, &memory, &word, cache_bytes)?;
    let half = stream_bytes / 2 / 16 * 16;
    let copy = |rounds| PeakMemoryParams {
        from: memory.addr.into(),
        to: (memory.addr + half).into(),
        bytes: half,
        rounds,
        reserved: 0,
    };
    let launch = launch(bench, "peak_copy", MEMORY_BLOCKS);
    // SAFETY: the memory holds both halves.
    let copy_gb_s = rate(1, |rounds| Ok((2.0 * half as f64, unsafe { bench.duration_ns(&launch, copy(rounds))? })))?;
    let float_gflop_s = matrix_rate(bench, &word, "peak_bf16", BF16_PRODUCT_FLOPS)?;
    let int8_gop_s = matrix_rate(bench, &word, "peak_int8", INT8_PRODUCT_OPS)?;
    Ok(DevicePeaks { memory_gb_s, cache_gb_s, cache_bytes, copy_gb_s, float_gflop_s, int8_gop_s })
}

fn launch(bench: &Bench<'_>, kernel: &str, blocks: u32) -> Launch {
    Launch::of(kernel.to_owned(), [bench.context.gpu.multiprocessors * blocks, 1, 1], THREADS)
}

fn read_gb_s(bench: &mut Bench<'_>, memory: &Temporary, word: &Temporary, bytes: u64) -> Result<f64, DeviceError> {
    let params =
        |rounds| PeakMemoryParams { from: memory.addr.into(), to: word.addr.into(), bytes, rounds, reserved: 0 };
    let launch = launch(bench, "peak_read", MEMORY_BLOCKS);
    // SAFETY: the memory is at least as large as the working set; the word is one.
    rate(1, |rounds| Ok((bytes as f64, unsafe { bench.duration_ns(&launch, params(rounds))? })))
}

fn matrix_rate(
    bench: &mut Bench<'_>,
    word: &Temporary,
    kernel: &str,
    product_operations: u64,
) -> Result<f64, DeviceError> {
    let launch = launch(bench, kernel, MATRIX_BLOCKS);
    let round = u64::from(launch.grid[0]) * WARPS * u64::from(PEAK_MATRIX_CHAINS) * product_operations;
    let params = |rounds| PeakMatrixParams { out: word.addr.into(), rounds, reserved: 0 };
    // SAFETY: the kernel writes nothing but a word.
    rate(MATRIX_ROUNDS_FIRST, |rounds| Ok((round as f64, unsafe { bench.duration_ns(&launch, params(rounds))? })))
}

/// What is done per nanosecond, if a run of so many rounds does `amount` in each and takes so long: the median of
/// samples that are long enough.
fn rate(rounds_first: u32, mut run: impl FnMut(u32) -> Result<(f64, u64), DeviceError>) -> Result<f64, DeviceError> {
    run(rounds_first)?; // clocks and caches warm up
    let mut rounds = rounds_first;
    for _ in 0..LENGTHENINGS_MAX {
        let (_, took_ns) = run(rounds)?;
        let factor = SAMPLE_NS.div_ceil(took_ns.max(1)).min(64) as u32;
        if factor <= 1 {
            break;
        }
        rounds = rounds.saturating_mul(factor);
    }
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let (amount, took_ns) = run(rounds)?;
        samples.push(amount * f64::from(rounds) / took_ns.max(1) as f64);
    }
    Ok(median(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_samples_that_are_long_enough() {
        // 3 units a nanosecond, behind 1000 ns that every run takes.
        let mut longest = 0;
        let found = rate(1, |rounds| {
            let took_ns = 1_000 + u64::from(rounds) * 100;
            longest = longest.max(took_ns);
            Ok((300.0, took_ns))
        });
        let found = found.unwrap();
        assert!((2.99..3.0).contains(&found), "{found}");
        assert!(longest >= SAMPLE_NS, "{longest}");
        // A run that is long by itself is not made longer.
        let slow = rate(1, |rounds| {
            assert_eq!(rounds, 1);
            Ok((8e6, 2 * SAMPLE_NS))
        });
        assert_eq!(slow.unwrap(), 2.0);
    }
}
