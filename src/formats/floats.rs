//! What floating-point formats share: blocks of one value.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers at once")]

use super::random::Stream;
use crate::isa::{Isa, LANES};

/// Calls `decode` with each value's bytes.
pub(super) fn each_value<const BYTES: usize>(row: &[u8], out: &mut [f32], decode: impl Fn([u8; BYTES]) -> f32) {
    let values = row.as_chunks::<BYTES>().0.iter();
    values.zip(out).for_each(|(bytes, value)| *value = decode(*bytes));
}

/// Fills a row, four values at a time, with what `encode` makes of random numbers in ±`amplitude`.
pub(super) fn fill_fours<const BYTES: usize>(
    row: &mut [u8],
    random: &mut Stream,
    amplitude: f32,
    encode: impl Fn([f32; 4]) -> [[u8; BYTES]; 4],
) {
    for group in row.chunks_mut(4 * BYTES) {
        let values = encode(random.next_four().map(|unit| unit * amplitude));
        group.chunks_exact_mut(BYTES).zip(values).for_each(|(bytes, value)| bytes.copy_from_slice(&value));
    }
}

/// Bytes of 16 rows packed for the CPU: pairs of columns.
pub(super) fn cpu_bytes(cols: usize, value_bytes: usize) -> usize {
    cols.next_multiple_of(2) * LANES * value_bytes
}

/// Packs up to 16 rows of `BYTES`-byte values for the CPU, column by column.
pub(super) fn pack_columns<const BYTES: usize>(rows: &[u8], cols: usize, packed: &mut [u8]) {
    for (lane, row) in rows.chunks_exact(cols * BYTES).enumerate() {
        for (value, packed) in row.chunks_exact(BYTES).zip(packed.chunks_exact_mut(LANES * BYTES)) {
            packed[lane * BYTES..][..BYTES].copy_from_slice(value);
        }
    }
}

/// Two columns of weights, one after the other, times f32 activations.
///
/// # Safety
/// Each of `a` points at two f32.
#[inline(always)]
pub(super) unsafe fn two_columns<I: Isa, const M: usize>(
    (first, second): (I::F32, I::F32),
    a: [*const u8; M],
    acc: [I::F32; M],
) -> [I::F32; M] {
    let mut sums = acc;
    for m in 0..M {
        // SAFETY: the caller gives pairs of f32.
        unsafe {
            let a = a[m].cast::<f32>();
            sums[m] = I::fma(first, I::splat(a.read()), sums[m]);
            sums[m] = I::fma(second, I::splat(a.add(1).read()), sums[m]);
        }
    }
    sums
}

/// Writes a row's values, of which `value(k)` is the k-th.
///
/// # Safety
/// `out` has room for `cols` values.
#[inline(always)]
pub(super) unsafe fn write_row(cols: usize, out: *mut f32, value: impl Fn(usize) -> f32) {
    // SAFETY: the caller gives room for the row.
    (0..cols).for_each(|k| unsafe { out.add(k).write(value(k)) });
}
