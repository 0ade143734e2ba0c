//! AVX-512 (F, BW, VL, DQ) with VNNI: a vector is one register.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers at once")]

use std::arch::x86_64::*;

use super::{Body, Isa};

/// AVX-512 with VNNI, and with the bf16 dot product if `BF16`.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const BF16: bool>;

type V = __m512;

/// Methods that are one instruction.
macro_rules! lanewise {
    ($($name:ident($($arg:ident),+) = $instruction:ident;)+) => {
        $(
            #[inline(always)]
            unsafe fn $name($($arg: V),+) -> V {
                // SAFETY: the processor has AVX-512 F.
                unsafe { $instruction($($arg),+) }
            }
        )+
    };
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn enter<B: Body>(body: B) -> B::Output {
    // SAFETY: the processor has the set; the rest is the caller's.
    unsafe { body.run::<Avx512<false>>() }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
unsafe fn enter_bf16<B: Body>(body: B) -> B::Output {
    // SAFETY: the processor has the set; the rest is the caller's.
    unsafe { body.run::<Avx512<true>>() }
}

impl<const BF16: bool> Isa for Avx512<BF16> {
    const NAME: &'static str = if BF16 { "avx512bf16" } else { "avx512" };
    const INT8_ROWS: usize = 8;
    const F32_ROWS: usize = 8;
    type F32 = V;

    #[inline(always)]
    unsafe fn enter<B: Body>(body: B) -> B::Output {
        // SAFETY: the processor has the set; the rest is the caller's.
        unsafe { if BF16 { enter_bf16(body) } else { enter(body) } }
    }

    lanewise! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        min(a, b) = _mm512_min_ps;
        max(a, b) = _mm512_max_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        round(a) = round_ties_even;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> V {
        // SAFETY: the processor has AVX-512 F.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> V {
        // SAFETY: the caller gives 16 readable values; a bf16 is the upper half of an f32.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(from: *const u16) -> (V, V) {
        // SAFETY: the caller gives 32 readable values; a bf16 is the upper half of an f32.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe {
            // Adding 0x7fff, and 1 if the kept part is odd, rounds the upper half to nearest even.
            let bits = _mm512_castps_si512(value);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(sum)));
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that the program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(a: V, n: V) -> V {
        // SAFETY: the processor has AVX-512 F.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn keep_first(a: V, count: usize, fill: f32) -> V {
        let keep = if count < 16 { (1u16 << count) - 1 } else { u16::MAX };
        // SAFETY: the processor has AVX-512 F.
        unsafe { _mm512_mask_blend_ps(keep, _mm512_set1_ps(fill), a) }
    }
    #[inline(always)]
    unsafe fn sum_lanes(a: V) -> f32 {
        // SAFETY: the processor has AVX-512 DQ.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn max_lane(a: V) -> f32 {
        // SAFETY: the processor has AVX-512 F.
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: V) {
        // SAFETY: the caller gives room for 16 values.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value))) }
    }

    #[inline(always)]
    unsafe fn dot_nibbles<const M: usize>(weights: *const u8, a: [*const i8; M]) -> [V; M] {
        // SAFETY: the caller gives 256 bytes of weights and M times 32 activations.
        unsafe {
            let low_nibbles = _mm512_set1_epi8(15);
            let mut sums = [_mm512_setzero_si512(); M];
            for j in 0..4 {
                let pair = _mm512_loadu_si512(weights.add(j * 64).cast());
                let low = _mm512_and_si512(pair, low_nibbles);
                let high = _mm512_and_si512(_mm512_srli_epi16::<4>(pair), low_nibbles);
                for m in 0..M {
                    sums[m] = _mm512_dpbusd_epi32(sums[m], low, four_values(a[m].add(4 * j)));
                    sums[m] = _mm512_dpbusd_epi32(sums[m], high, four_values(a[m].add(16 + 4 * j)));
                }
            }
            lanes(sums)
        }
    }

    #[inline(always)]
    unsafe fn dot_bytes<const M: usize>(weights: *const i8, a: [*const i8; M], sums: [i32; M]) -> [V; M] {
        // SAFETY: the caller gives 512 bytes of weights and M times 32 activations.
        unsafe {
            // The instruction wants one unsigned side: Σ w·a = Σ (w + 128)·a − 128·Σ a.
            let sign_bit = _mm512_set1_epi8(-128);
            let mut dots = [_mm512_setzero_si512(); M];
            for m in 0..M {
                dots[m] = _mm512_set1_epi32(-128 * sums[m]);
            }
            for j in 0..8 {
                let w = _mm512_xor_si512(_mm512_loadu_si512(weights.add(j * 64).cast()), sign_bit);
                for m in 0..M {
                    dots[m] = _mm512_dpbusd_epi32(dots[m], w, four_values(a[m].add(4 * j)));
                }
            }
            lanes(dots)
        }
    }

    #[inline(always)]
    unsafe fn fma_bf16_pairs<const M: usize>(weights: *const u16, a: [*const u16; M], acc: [V; M]) -> [V; M] {
        // SAFETY: the caller gives 32 weights and M pairs; a bf16 is the upper half of an f32.
        unsafe {
            let mut sums = acc;
            if BF16 {
                let w = bf16_lanes(_mm512_loadu_si512(weights.cast()));
                for m in 0..M {
                    sums[m] = _mm512_dpbf16_ps(sums[m], w, bf16_lanes(four_values(a[m].cast())));
                }
            } else {
                let (w0, w1) = Self::load_bf16_pairs(weights);
                for m in 0..M {
                    let pair = four_values(a[m].cast());
                    let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair));
                    let second = _mm512_and_si512(pair, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                    sums[m] = Self::fma(w0, first, Self::fma(w1, _mm512_castsi512_ps(second), sums[m]));
                }
            }
            sums
        }
    }
}

/// The same four bytes, sixteen times.
#[inline(always)]
unsafe fn four_values(from: *const i8) -> __m512i {
    // SAFETY: the caller gives four readable bytes; the processor has AVX-512 F.
    unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
}

/// Integers as f32 lanes.
#[inline(always)]
unsafe fn lanes<const M: usize>(integers: [__m512i; M]) -> [V; M] {
    // SAFETY: the processor has AVX-512 F.
    unsafe {
        let mut lanes = [_mm512_setzero_ps(); M];
        for m in 0..M {
            lanes[m] = _mm512_cvtepi32_ps(integers[m]);
        }
        lanes
    }
}

#[inline(always)]
unsafe fn bf16_lanes(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain data.
    unsafe { std::mem::transmute(bits) }
}

#[inline(always)]
unsafe fn round_ties_even(a: __m512) -> __m512 {
    // SAFETY: the processor has AVX-512 F.
    unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
}
