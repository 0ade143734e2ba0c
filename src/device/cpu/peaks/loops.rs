//! The loops that are measured: a read of memory, f32 multiply-adds, int8 multiply-adds, per instruction set.

use std::hint::black_box;

use crate::isa::IsaChoice;

/// A loop without memory traffic.
pub(super) struct Arithmetic {
    /// One call of the loop.
    pub(super) run: unsafe fn(),
    /// What one call does, a multiply-add counted as two.
    pub(super) operations: u64,
}

/// Rounds of a loop per call: some ten microseconds.
const ROUNDS: usize = 10_000;

/// Independent accumulators: as many as hide the latency of a multiply-add on every processor in use (4 or 5 cycles,
/// two per cycle) and leave registers for the operands.
const CHAINS: usize = 12;

/// The same for the int8 loops, which need more registers for operands.
const INT8_CHAINS: usize = 8;

/// Reads `bytes`, a multiple of 256.
///
/// # Safety
/// The bytes are readable, `from` is aligned to a cache line, and the machine has the instruction set.
pub(super) unsafe fn read(from: *const u64, bytes: usize, isa: IsaChoice) {
    // SAFETY: the caller's contract is the same.
    unsafe {
        match isa {
            IsaChoice::Portable => read_portable(from, bytes),
            #[cfg(target_arch = "x86_64")]
            IsaChoice::Avx2 => x86::read_avx2(from, bytes),
            #[cfg(target_arch = "x86_64")]
            _ => x86::read_avx512(from, bytes),
            #[cfg(not(target_arch = "x86_64"))]
            _ => read_portable(from, bytes),
        }
    }
}

/// The multiply-adds of the f32 kernels.
pub(super) fn f32(isa: IsaChoice) -> Arithmetic {
    let (run, lanes): (unsafe fn(), _) = match isa {
        IsaChoice::Portable => (f32_portable, PORTABLE_LANES),
        #[cfg(target_arch = "x86_64")]
        IsaChoice::Avx2 => (x86::f32_avx2, 8),
        #[cfg(target_arch = "x86_64")]
        _ => (x86::f32_avx512, 16),
        #[cfg(not(target_arch = "x86_64"))]
        _ => (f32_portable, PORTABLE_LANES),
    };
    Arithmetic { run, operations: (ROUNDS * CHAINS * lanes * 2) as u64 }
}

/// The multiply-adds of the quantised kernels: unsigned by signed bytes, summed in 32 bits.
pub(super) fn int8(isa: IsaChoice) -> Arithmetic {
    let (run, bytes): (unsafe fn(), _) = match isa {
        IsaChoice::Portable => (int8_portable, PORTABLE_LANES),
        #[cfg(target_arch = "x86_64")]
        IsaChoice::Avx2 => (x86::int8_avx2, 32),
        #[cfg(target_arch = "x86_64")]
        _ => (x86::int8_avx512, 64),
        #[cfg(not(target_arch = "x86_64"))]
        _ => (int8_portable, PORTABLE_LANES),
    };
    Arithmetic { run, operations: (ROUNDS * INT8_CHAINS * bytes * 2) as u64 }
}

/// Sums eight-byte words in independent sums, two cache lines a round.
unsafe fn read_portable(from: *const u64, bytes: usize) {
    const WORDS: usize = 16;
    let mut sums = [0u64; WORDS];
    for at in (0..bytes / 8).step_by(WORDS) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller gives whole rounds of readable, aligned words.
            *sum = sum.wrapping_add(unsafe { from.add(at + i).read() });
        }
    }
    black_box(sums);
}

const PORTABLE_LANES: usize = 4;

fn f32_portable() {
    let (factor, term) = black_box(([0.999f32; PORTABLE_LANES], [0.001f32; PORTABLE_LANES]));
    let mut sums = [[1f32; PORTABLE_LANES]; CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            for lane in 0..PORTABLE_LANES {
                sum[lane] = sum[lane] * factor[lane] + term[lane];
            }
        }
    }
    black_box(sums);
}

fn int8_portable() {
    let weights = black_box([[3u8; PORTABLE_LANES]; WEIGHT_VECTORS]);
    let activations = black_box([[5i8; PORTABLE_LANES]; INT8_CHAINS]);
    let mut sums = [[0i32; PORTABLE_LANES]; INT8_CHAINS];
    for round in 0..ROUNDS {
        let weights = &weights[round % WEIGHT_VECTORS];
        for (sum, activations) in sums.iter_mut().zip(&activations) {
            for lane in 0..PORTABLE_LANES {
                sum[lane] = sum[lane].wrapping_add(i32::from(weights[lane]) * i32::from(activations[lane]));
            }
        }
    }
    black_box(sums);
}

/// Weights come from the first-level cache, as in a kernel: a loop of constants would be computed by the compiler.
const WEIGHT_VECTORS: usize = 16;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn read_avx2(from: *const u64, bytes: usize) {
        const READS: usize = 8; // vectors a round, each with a sum of its own: 256 bytes
        let mut sums = [_mm256_setzero_si256(); READS];
        for at in (0..bytes / 32).step_by(READS) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller gives whole rounds of readable, aligned vectors.
                *sum = _mm256_add_epi64(*sum, unsafe { _mm256_load_si256(from.cast::<__m256i>().add(at + i)) });
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn read_avx512(from: *const u64, bytes: usize) {
        const READS: usize = 4; // 256 bytes too
        let mut sums = [_mm512_setzero_si512(); READS];
        for at in (0..bytes / 64).step_by(READS) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller gives whole rounds of readable, aligned vectors.
                *sum = _mm512_add_epi64(*sum, unsafe { _mm512_load_si512(from.cast::<__m512i>().add(at + i)) });
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2() {
        let (factor, term) = black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512() {
        let (factor, term) = black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, term);
            }
        }
        black_box(sums);
    }

    /// Pairs of products in 16 bits, pairs of those in 32 bits, a sum: three instructions per 32 multiply-adds.
    #[target_feature(enable = "avx2")]
    pub(super) fn int8_avx2() {
        let weights = black_box([_mm256_set1_epi8(3); WEIGHT_VECTORS]);
        let (even, odd) = black_box((_mm256_set1_epi8(5), _mm256_set1_epi8(-7)));
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); INT8_CHAINS];
        for round in 0..ROUNDS {
            for chain in 0..INT8_CHAINS / 2 {
                let weights = weights[(round + chain) % WEIGHT_VECTORS];
                for (sum, activations) in sums[2 * chain..].iter_mut().zip([even, odd]) {
                    let products = _mm256_madd_epi16(_mm256_maddubs_epi16(weights, activations), ones);
                    *sum = _mm256_add_epi32(*sum, products);
                }
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_avx512() {
        let weights = black_box([_mm512_set1_epi8(3); WEIGHT_VECTORS]);
        let activations = black_box([_mm512_set1_epi8(5); INT8_CHAINS]);
        let mut sums = [_mm512_setzero_si512(); INT8_CHAINS];
        for round in 0..ROUNDS {
            let weights = weights[round % WEIGHT_VECTORS];
            for (sum, activations) in sums.iter_mut().zip(activations) {
                *sum = _mm512_dpbusd_epi32(*sum, weights, activations);
            }
        }
        black_box(sums);
    }
}
