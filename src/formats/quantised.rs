//! What formats of blocks share: 32 integers with f16 scales.

use half::f16;

use crate::isa::LANES;

/// Values of a block.
pub(super) const BLOCK: usize = 32;
/// Bytes of the scales, or minima, of 16 rows.
pub(super) const SCALES_BYTES: usize = LANES * 2;

/// Calls `decode` with each block of a row and room for its values.
pub(super) fn each_block<const BYTES: usize>(
    row: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; BLOCK]),
) {
    let blocks = row.as_chunks::<BYTES>().0.iter();
    blocks.zip(out.as_chunks_mut::<BLOCK>().0).for_each(|(block, values)| decode(block, values));
}

/// The f16 at byte `at`.
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes a value as f16 at byte `at`.
pub(super) fn put_f16(block: &mut [u8], at: usize, value: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// A scale as it is stored, and what makes steps of values.
pub(super) fn scale_and_inverse(scale: f32) -> (f16, f32) {
    let stored = f16::from_f32(scale);
    let inverse = if stored.to_f32() == 0.0 { 0.0 } else { 1.0 / stored.to_f32() };
    (stored, inverse)
}

/// The largest magnitude.
pub(super) fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |max, value| max.max(value.abs()))
}

/// Packs up to 16 rows of blocks of `BYTES` bytes for the CPU: `HEADERS` f16, then integers. The file's order within a
/// row's block is already the kernels' (nibbles: byte i is values i and 16 + i), so packing is a transposition of
/// 4-byte groups and of scales: 16 rows of a block are as many bytes as before.
pub(super) fn pack<const BYTES: usize, const HEADERS: usize>(rows: &[u8], cols: usize, packed: &mut [u8]) {
    let integers_bytes = LANES * (BYTES - 2 * HEADERS);
    for (lane, row) in rows.chunks_exact(cols / BLOCK * BYTES).enumerate() {
        for (block, packed) in row.chunks_exact(BYTES).zip(packed.chunks_exact_mut(LANES * BYTES)) {
            let (scales, integers) = block.split_at(2 * HEADERS);
            let (packed_integers, packed_scales) = packed.split_at_mut(integers_bytes);
            for (j, group) in integers.chunks_exact(4).enumerate() {
                let at = (j * LANES + lane) * 4;
                packed_integers[at..at + 4].copy_from_slice(group);
            }
            for (header, scale) in scales.chunks_exact(2).enumerate() {
                let at = (header * LANES + lane) * 2;
                packed_scales[at..at + 2].copy_from_slice(scale);
            }
        }
    }
}

/// Of the scales, or minima, of 16 rows at `at`, the row's.
#[inline(always)]
pub(super) unsafe fn packed_f16(at: *const u8, lane: usize) -> f32 {
    // SAFETY: the caller gives 16 f16 and one of them.
    f16::from_bits(unsafe { at.add(2 * lane).cast::<u16>().read_unaligned() }).to_f32()
}

/// Of the integers of 16 rows, byte k of one.
#[inline(always)]
pub(super) unsafe fn packed_byte(integers: *const u8, lane: usize, k: usize) -> u8 {
    // SAFETY: the caller gives the integers of 16 rows, one of these, and a byte that it has.
    unsafe { integers.add((k / 4 * LANES + lane) * 4 + k % 4).read() }
}
