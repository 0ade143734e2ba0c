//! Instruction sets: vectors of 16 f32 lanes and the integer dot products that the kernels are written in.
//!
//! Kernels are generic over [`Isa`] and are compiled once per instruction set. All sets present the same 16 lanes, so
//! packed layouts and the order of every reduction are the same on all of them, and but for bf16 dot products so is
//! every bit of the results. `portable` is plain Rust: it runs on any processor and is what the others are tested
//! against.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;
#[cfg(test)]
mod tests;

use std::fmt;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// One instruction set.
///
/// Every method is `#[inline(always)]`, and is fast only below [`Isa::enter`], where the compiler may use the set too.
///
/// # Safety
/// Every method may be called only where the processor has the set, with pointers to as many values as it speaks of.
#[allow(clippy::missing_safety_doc, reason = "stated once, above, for all methods")]
pub trait Isa: Copy + 'static {
    /// Its name in tables.
    const NAME: &'static str;
    /// The most activation rows that an int8 product of 16 weight rows keeps in registers.
    const INT8_ROWS: usize;
    /// The same for f32 (and bf16) products.
    const F32_ROWS: usize;
    /// 16 f32 lanes.
    type F32: Copy;

    /// Runs `body`, compiled for this set, as a function of its own.
    unsafe fn enter<B: Body>(body: B) -> B::Output;

    /// All lanes equal.
    unsafe fn splat(value: f32) -> Self::F32;
    /// Reads 16 values, any alignment.
    unsafe fn load(from: *const f32) -> Self::F32;
    /// Writes 16 values, any alignment.
    unsafe fn store(to: *mut f32, value: Self::F32);
    /// Reads 16 half-precision values.
    unsafe fn load_f16(from: *const u16) -> Self::F32;
    /// Writes 16 half-precision values, rounded to nearest even.
    unsafe fn store_f16(to: *mut u16, value: Self::F32);
    /// Reads 16 bfloat16 values.
    unsafe fn load_bf16(from: *const u16) -> Self::F32;
    /// Reads 16 pairs of bfloat16 values: the first of each pair, the second of each pair.
    unsafe fn load_bf16_pairs(from: *const u16) -> (Self::F32, Self::F32);
    /// Writes 16 bfloat16 values, rounded to nearest even; no NaN may occur.
    unsafe fn store_bf16(to: *mut u16, value: Self::F32);
    /// Asks for the cache line at this address, which need not be readable.
    unsafe fn prefetch(from: *const u8);
    /// a + b
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a − b
    unsafe fn sub(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a / b
    unsafe fn div(a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller, lane by lane; no NaN may occur.
    unsafe fn min(a: Self::F32, b: Self::F32) -> Self::F32;
    /// The larger, lane by lane; `b` where either is NaN.
    unsafe fn max(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b + c, rounded once.
    unsafe fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Rounded to the nearest integer, ties to even.
    unsafe fn round(a: Self::F32) -> Self::F32;
    /// a · 2ⁿ for integral lanes n in −126..=127; n = −127 counts as 2ⁿ = 0.
    unsafe fn scale_by_power_of_two(a: Self::F32, n: Self::F32) -> Self::F32;
    /// The first `count` lanes of a, the others `fill`.
    unsafe fn keep_first(a: Self::F32, count: usize, fill: f32) -> Self::F32;
    /// The sum of all lanes: halves are added until one lane is left (lane i with i + 8, then + 4, + 2, + 1).
    unsafe fn sum_lanes(a: Self::F32) -> f32;
    /// The largest lane.
    unsafe fn max_lane(a: Self::F32) -> f32;
    /// Rounds 16 values to int8 (ties to even; they are within −127..=127) and writes them.
    unsafe fn store_i8(to: *mut i8, value: Self::F32);

    /// For 16 weight rows and M activation rows, the exact integer dot products of one block of 32, as f32 lanes (one
    /// lane per weight row). `weights` are 256 bytes: for j in 0..4, for each row r in 0..16, 4 bytes; the low nibbles
    /// are values 4j..4j+4 of the block, the high nibbles values 16+4j..16+4j+4. `a[m]` points at 32 int8 values
    /// within −127..=127.
    unsafe fn dot_nibbles<const M: usize>(weights: *const u8, a: [*const i8; M]) -> [Self::F32; M];

    /// The same for signed 8-bit weights: 512 bytes: for j in 0..8, for each row r in 0..16, 4 bytes, values 4j..4j+4.
    /// `sums[m]` is the sum of the 32 values at `a[m]`.
    unsafe fn dot_bytes<const M: usize>(weights: *const i8, a: [*const i8; M], sums: [i32; M]) -> [Self::F32; M];

    /// acc[m] + w₁·a₁ + w₀·a₀ for two columns of 16 weight rows and M activation rows, all bfloat16. `weights` are 16
    /// pairs (w₀, w₁), `a[m]` points at one pair. Roundings, and whether subnormal numbers count, depend on the set.
    unsafe fn fma_bf16_pairs<const M: usize>(
        weights: *const u16,
        a: [*const u16; M],
        acc: [Self::F32; M],
    ) -> [Self::F32; M];
}

/// A piece of a kernel, to be compiled once per instruction set. See [`Isa::enter`].
///
/// It is a struct with a method, not a closure, because only a named function can be `#[inline(always)]`: a piece that
/// is not inlined into [`Isa::enter`] is compiled without the instruction set, and every vector operation in it becomes
/// a call.
pub trait Body {
    /// What it returns.
    type Output;
    /// The work. Implementations, and everything they call, are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instruction set; what else has to hold is the implementation's matter.
    unsafe fn run<I: Isa>(self) -> Self::Output;
}

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsaChoice {
    /// Plain Rust.
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 (F, BW, VL, DQ) with VNNI.
    Avx512,
    /// The same with the bf16 dot product.
    Avx512Bf16,
}

impl IsaChoice {
    /// Every set, the better the later.
    pub const ALL: [IsaChoice; 4] = [IsaChoice::Portable, IsaChoice::Avx2, IsaChoice::Avx512, IsaChoice::Avx512Bf16];

    /// The best that this machine has.
    pub fn detect() -> IsaChoice {
        Self::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(IsaChoice::Portable)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            IsaChoice::Portable => true,
            IsaChoice::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            IsaChoice::Avx512 => {
                IsaChoice::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            IsaChoice::Avx512Bf16 => IsaChoice::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == IsaChoice::Portable;
    }

    /// Whether it multiplies bf16 pairs in one instruction, so that bf16 weights read bf16 activations.
    pub fn has_bf16_dot(self) -> bool {
        self == IsaChoice::Avx512Bf16
    }

    /// Its name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            IsaChoice::Portable => "portable",
            IsaChoice::Avx2 => "avx2",
            IsaChoice::Avx512 => "avx512",
            IsaChoice::Avx512Bf16 => "avx512bf16",
        }
    }
}

impl fmt::Display for IsaChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
