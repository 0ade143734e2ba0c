//! AVX2 with FMA and F16C: a vector is two registers, lanes 0..8 and 8..16.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers at once")]

use std::arch::x86_64::*;

use super::{Body, Isa};

/// AVX2, FMA, F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

type V = [__m256; 2];

/// Methods that are one instruction per register.
macro_rules! lanewise {
    ($($name:ident($($arg:ident),+) = $instruction:ident;)+) => {
        $(
            #[inline(always)]
            unsafe fn $name($($arg: V),+) -> V {
                // SAFETY: the processor has AVX2 and FMA.
                unsafe { [$instruction($($arg[0]),+), $instruction($($arg[1]),+)] }
            }
        )+
    };
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";
    const INT8_ROWS: usize = 4;
    const F32_ROWS: usize = 6;
    type F32 = V;

    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn enter<B: Body>(body: B) -> B::Output {
        // SAFETY: the processor has the set; the rest is the caller's.
        unsafe { body.run::<Avx2>() }
    }

    lanewise! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        min(a, b) = _mm256_min_ps;
        max(a, b) = _mm256_max_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        round(a) = round_ties_even;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        // SAFETY: the processor has AVX.
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))] }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[0]));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[1]));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe {
            let lower = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            [widen_bf16(lower), widen_bf16(upper)]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(from: *const u16) -> (V, V) {
        // SAFETY: the caller gives 32 readable values; a bf16 is the upper half of an f32.
        unsafe {
            let (lower, upper) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast()));
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let second_lower = _mm256_castsi256_ps(_mm256_and_si256(lower, mask));
            let second_upper = _mm256_castsi256_ps(_mm256_and_si256(upper, mask));
            ([widen_bf16(lower), widen_bf16(upper)], [second_lower, second_upper])
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe {
            let packed = _mm256_packus_epi32(narrow_bf16(value[0]), narrow_bf16(value[1]));
            // packus works within 128-bit halves: 64-bit groups 0, 2, 1, 3 are lanes in order.
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(a: V, n: V) -> V {
        let mut scaled = a;
        for i in 0..2 {
            // SAFETY: the processor has AVX2.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n[i]), _mm256_set1_epi32(127));
                scaled[i] = _mm256_mul_ps(a[i], _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)));
            }
        }
        scaled
    }
    #[inline(always)]
    unsafe fn keep_first(a: V, count: usize, fill: f32) -> V {
        let mut kept = a;
        for i in 0..2 {
            // SAFETY: the processor has AVX2.
            unsafe {
                let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32 - 8 * i as i32), lane);
                kept[i] = _mm256_blendv_ps(_mm256_set1_ps(fill), a[i], _mm256_castsi256_ps(keep));
            }
        }
        kept
    }
    #[inline(always)]
    unsafe fn sum_lanes(a: V) -> f32 {
        // SAFETY: the processor has AVX.
        unsafe {
            let eight = _mm256_add_ps(a[0], a[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn max_lane(a: V) -> f32 {
        // SAFETY: the processor has AVX.
        unsafe {
            let eight = _mm256_max_ps(a[0], a[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(value[0]), _mm256_cvtps_epi32(value[1]));
            // Packing works within 128-bit halves: lanes 0..4 and 8..12 are in the lower one, the others in the upper.
            let bytes = _mm256_packs_epi16(words, words);
            let (lower, upper) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storeu_si128(to.cast(), _mm_unpacklo_epi32(lower, upper));
        }
    }

    #[inline(always)]
    unsafe fn dot_nibbles<const M: usize>(weights: *const u8, a: [*const i8; M]) -> [V; M] {
        // SAFETY: the caller gives 256 bytes of weights and M times 32 activations.
        unsafe {
            let low_nibbles = _mm256_set1_epi8(15);
            // 8 rows x 2 sums of 16 products: at most 16 * 15 * 127 = 30480, so i16 holds them.
            let mut sums = [[_mm256_setzero_si256(); 2]; M];
            let (mut k, end) = (0, if M == 1 { 16 } else { not_unrolled(16) });
            while k != end {
                let from = weights.add(16 * k);
                let pairs = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())];
                let low = [_mm256_and_si256(pairs[0], low_nibbles), _mm256_and_si256(pairs[1], low_nibbles)];
                add_products(&mut sums, low, a, k);
                let high = [
                    _mm256_and_si256(_mm256_srli_epi16::<4>(pairs[0]), low_nibbles),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(pairs[1]), low_nibbles),
                ];
                add_products(&mut sums, high, a, 16 + k);
                k += 4;
            }
            let mut dots = [[_mm256_setzero_ps(); 2]; M];
            for m in 0..M {
                for half in 0..2 {
                    dots[m][half] = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums[m][half], _mm256_set1_epi16(1)));
                }
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn dot_bytes<const M: usize>(weights: *const i8, a: [*const i8; M], _sums: [i32; M]) -> [V; M] {
        // SAFETY: the caller gives 512 bytes of weights and M times 32 activations.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; M];
            let (mut k, end) = (0, if M == 1 { 32 } else { not_unrolled(32) });
            while k != end {
                let from = weights.add(16 * k);
                let w = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())];
                let magnitudes = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                for m in 0..M {
                    let values = four_values(a[m].add(k));
                    for half in 0..2 {
                        // w·a = |w| · (a with w's sign); |−128| is 128 as an unsigned byte, and 2 * 128 * 127 fits an
                        // i16.
                        let products = _mm256_maddubs_epi16(magnitudes[half], _mm256_sign_epi8(values, w[half]));
                        let fours = _mm256_madd_epi16(products, _mm256_set1_epi16(1));
                        sums[m][half] = _mm256_add_epi32(sums[m][half], fours);
                    }
                }
                k += 4;
            }
            let mut dots = [[_mm256_setzero_ps(); 2]; M];
            for m in 0..M {
                for half in 0..2 {
                    dots[m][half] = _mm256_cvtepi32_ps(sums[m][half]);
                }
            }
            dots
        }
    }

    #[inline(always)]
    unsafe fn fma_bf16_pairs<const M: usize>(weights: *const u16, a: [*const u16; M], acc: [V; M]) -> [V; M] {
        // SAFETY: the caller gives 32 weights and M pairs; a bf16 is the upper half of an f32.
        unsafe {
            let (w0, w1) = Self::load_bf16_pairs(weights);
            let mut sums = acc;
            for m in 0..M {
                let pair = _mm256_set1_epi32(a[m].cast::<i32>().read_unaligned());
                let second = _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(0xffff_0000_u32 as i32)));
                sums[m] = Self::fma(w0, [widen_bf16(pair); 2], Self::fma(w1, [second; 2], sums[m]));
            }
            sums
        }
    }
}

/// Adds, to 16 rows' sums of each of M rows of activations, the products with the 4 values from `k` on.
#[inline(always)]
unsafe fn add_products<const M: usize>(
    sums: &mut [[__m256i; 2]; M],
    weights: [__m256i; 2],
    a: [*const i8; M],
    k: usize,
) {
    for m in 0..M {
        // SAFETY: the caller gives activations; the processor has AVX2.
        unsafe {
            let values = four_values(a[m].add(k));
            for half in 0..2 {
                sums[m][half] = _mm256_add_epi16(sums[m][half], _mm256_maddubs_epi16(weights[half], values));
            }
        }
    }
}

/// The end of a loop, which the compiler does not get to know. Where it unrolls the loops of a tile it reorders the
/// whole tile row by row, and spills the weights and activations, which takes 1.6 times as long.
/// A single row has nothing to reorder.
#[inline(always)]
fn not_unrolled(mut end: usize) -> usize {
    // SAFETY: no instruction.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) end, options(pure, nomem, nostack, preserves_flags)) }
    end
}

/// The same four bytes, eight times.
#[inline(always)]
unsafe fn four_values(from: *const i8) -> __m256i {
    // SAFETY: the caller gives four readable bytes; the processor has AVX2.
    unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

#[inline(always)]
unsafe fn round_ties_even(a: __m256) -> __m256 {
    // SAFETY: the processor has AVX.
    unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
}

/// The lower 16 bits of each lane, a bf16, as f32: a bf16 is the upper half of an f32.
#[inline(always)]
unsafe fn widen_bf16(lanes: __m256i) -> __m256 {
    // SAFETY: the processor has AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lanes)) }
}

/// Rounds to bf16 in the lower 16 bits of each lane: adding 0x7fff, and 1 if the kept part is odd, rounds the upper
/// half to nearest even.
#[inline(always)]
unsafe fn narrow_bf16(value: __m256) -> __m256i {
    // SAFETY: the processor has AVX2.
    unsafe {
        let bits = _mm256_castps_si256(value);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))))
    }
}
