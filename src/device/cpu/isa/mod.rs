//! Instruction sets: vectors of 16 f32 lanes and the integer dot products that the kernels are written in.
//!
//! Kernels are generic over [`Isa`] and are compiled once per instruction set. All sets present the same 16 lanes, so
//! packed layouts and the order of every reduction are the same on all of them. `portable` is plain Rust: it runs on
//! any processor and is what the others are tested against.

pub mod portable;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// One instruction set.
///
/// Every method is `#[inline(always)]` and may be called only where the processor has the set: kernels are
/// instantiated inside `#[target_feature]` entry points, chosen once after detection.
pub trait Isa: Copy + 'static {
    /// Its name in tables.
    const NAME: &'static str;
    /// 16 f32 lanes.
    type F32: Copy;

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
    /// a + b
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a − b
    unsafe fn sub(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a / b
    unsafe fn div(a: Self::F32, b: Self::F32) -> Self::F32;
    /// The larger, lane by lane; no NaN may occur.
    unsafe fn max(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · b + c, rounded once.
    unsafe fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Rounded to the nearest integer, ties to even.
    unsafe fn round(a: Self::F32) -> Self::F32;
    /// a · 2ⁿ for integral lanes n in −126..=127.
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
    /// are values 4j..4j+4 of the block, the high nibbles values 16+4j..16+4j+4. `a[m]` points at 32 int8 values.
    unsafe fn dot_nibbles<const M: usize>(weights: *const u8, a: [*const i8; M]) -> [Self::F32; M];

    /// The same for signed 8-bit weights: 512 bytes: for j in 0..8, for each row r in 0..16, 4 bytes, values 4j..4j+4.
    unsafe fn dot_bytes<const M: usize>(weights: *const i8, a: [*const i8; M]) -> [Self::F32; M];
}
