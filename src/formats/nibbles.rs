//! What formats of 4-bit integers share: 16 bytes a block, of which byte i has value i in its low four bits and value
//! 16 + i in its high ones.

use super::quantised::{BLOCK, packed_byte};
use crate::isa::LANES;

/// Bytes of a block's pairs.
const PAIRS: usize = BLOCK / 2;
/// Bytes of the pairs of 16 rows.
pub(super) const PACKED_BYTES: usize = LANES * PAIRS;

/// Values of the pairs' integers.
pub(super) fn decode(pairs: &[u8], values: &mut [f32; BLOCK], value: impl Fn(f32) -> f32) {
    for (i, byte) in pairs.iter().enumerate() {
        values[i] = value(f32::from(byte & 15));
        values[i + PAIRS] = value(f32::from(byte >> 4));
    }
}

/// Appends the pairs of a block whose values are so many steps.
pub(super) fn encode(values: &[f32], steps: impl Fn(f32) -> f32, out: &mut Vec<u8>) {
    let q: Vec<u8> = values.iter().map(|value| steps(*value).round().clamp(0.0, 15.0) as u8).collect();
    out.extend((0..PAIRS).map(|i| q[i] | q[i + PAIRS] << 4));
}

/// Writes d·q + m for each integer of a row of 16 that are packed for the CPU.
#[inline(always)]
pub(super) unsafe fn unpack(pairs: *const u8, lane: usize, d: f32, m: f32, out: *mut f32) {
    for i in 0..PAIRS {
        // SAFETY: the caller gives the pairs of 16 rows, one of these, and room for 32 values.
        unsafe {
            let pair = packed_byte(pairs, lane, i);
            out.add(i).write(d * f32::from(pair & 15) + m);
            out.add(i + PAIRS).write(d * f32::from(pair >> 4) + m);
        }
    }
}

/// Where in a row of blocks of `BYTES` bytes the word is that a lane of CUDA's holds: see
/// [`CudaFormat::word`](super::cuda::CudaFormat::word). Both halves of a block at once; words 2 and 3 are of the pair's
/// second block.
pub(super) fn cuda_word<const BYTES: usize>(unit: usize, t: usize, w: usize) -> usize {
    (2 * unit + w / 2) * BYTES + (BYTES - PAIRS) + 4 * t
}
