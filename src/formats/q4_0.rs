//! Q4_0: blocks of 32 values of 4 bits with one scale; ggml's `block_q4_0` (ggml-common.h).
//!
//! ```text
//!  byte  0        2                             18
//!        │ d, f16 │ 16 pairs of nibbles         │       value = d·(q − 8)
//! ```
//! The low nibble of pair i is value i, the high one value 16 + i. Kernels compute d·q + m with m = −8d.

use super::cpu::QuantisedWeights;
use super::cuda::{CudaFormat, CudaLayout};
use super::format::Format;
use super::nibbles;
use super::quantised::{BLOCK, SCALES_BYTES, amax, each_block, f16_at, pack, packed_f16, put_f16, scale_and_inverse};
use super::random::Stream;
use crate::isa::Isa;

/// The format.
pub(super) struct Q4_0;

const SCALE_BYTES: usize = 2;
const BLOCK_BYTES: usize = SCALE_BYTES + BLOCK / 2;

impl Format for Q4_0 {
    fn name(&self) -> &'static str {
        "q4_0"
    }

    fn block_values(&self) -> usize {
        BLOCK
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn ggml_type(&self) -> u32 {
        2
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_block::<BLOCK_BYTES>(row, out, |block, values| {
            let d = f16_at(block, 0);
            nibbles::decode(&block[SCALE_BYTES..], values, |q| d * (q - 8.0));
        });
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        for block in values.chunks_exact(BLOCK) {
            let (d, inverse) = scale_and_inverse(-amax(block) / 8.0);
            row.extend(d.to_le_bytes());
            nibbles::encode(block, |value| value * inverse + 8.0, row);
        }
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        for block in row.chunks_exact_mut(BLOCK_BYTES) {
            // q − 8 runs from −8 to 7, mean −1/2: the sign of the scale alternates at random to keep the mean at 0.
            let scale = random.next_scale() * amplitude / 8.0;
            put_f16(block, 0, if random.next() & 1 == 0 { scale } else { -scale });
            random.fill_bytes(&mut block[SCALE_BYTES..]);
        }
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cols / BLOCK * Q4_0::BYTES
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        pack::<BLOCK_BYTES, 1>(rows, cols, packed);
    }

    fn cuda(&self) -> Option<CudaLayout> {
        Some(CudaLayout::of::<Q4_0>())
    }
}

impl QuantisedWeights for Q4_0 {
    const BYTES: usize = nibbles::PACKED_BYTES + SCALES_BYTES;

    #[inline(always)]
    unsafe fn dot<I: Isa, const M: usize>(block: *const u8, a: [*const i8; M], _: [i32; M]) -> [I::F32; M] {
        // SAFETY: the caller's.
        unsafe { I::dot_nibbles(block, a) }
    }

    #[inline(always)]
    unsafe fn scales<I: Isa>(block: *const u8) -> (I::F32, Option<I::F32>) {
        // SAFETY: scales follow the integers.
        unsafe {
            let d = I::load_f16(block.add(nibbles::PACKED_BYTES).cast());
            (d, Some(I::mul(d, I::splat(-8.0))))
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, lane: usize, out: *mut f32) {
        // SAFETY: the caller gives a packed block, one of its rows, and room for 32 values.
        unsafe {
            let d = packed_f16(block.add(nibbles::PACKED_BYTES), lane);
            nibbles::unpack(block, lane, d, -8.0 * d, out);
        }
    }
}

impl CudaFormat for Q4_0 {
    const UNIT_COLS: usize = 2 * BLOCK;
    const LANE_HEADER_BYTES: usize = 8;

    fn word(unit: usize, t: usize, w: usize) -> usize {
        nibbles::cuda_word::<BLOCK_BYTES>(unit, t, w)
    }

    /// The scales of the pair of blocks.
    fn header(unit: usize, i: usize) -> usize {
        (2 * unit + i) * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::WeightFormat;
    use crate::formats::tests::lanes_find;

    #[test]
    fn a_block_is_read_by_hand() {
        let mut block = [0x88u8; BLOCK_BYTES];
        block[..2].copy_from_slice(&half::f16::from_f32(2.0).to_le_bytes());
        (block[2], block[17]) = (0xf0, 0x19);
        let (mut out, mut want) = ([f32::NAN; BLOCK], [0.0; BLOCK]);
        (want[0], want[16]) = (-16.0, 14.0);
        (want[15], want[31]) = (2.0, -14.0);
        Q4_0.decode(&block, &mut out);
        assert_eq!(out, want);
    }

    #[test]
    fn lanes_of_cuda_find_the_values() {
        lanes_find(WeightFormat::Q4_0, |lanes, row, col| {
            let (block, within) = (col / 32, col % 32);
            let pair = lanes.word(row, block / 2, within % 16 / 4, block % 2 * 2)[col % 4];
            let q = f32::from(if within < 16 { pair & 15 } else { pair >> 4 });
            lanes.header(row, block / 2, block % 2) * (q - 8.0)
        });
    }
}
