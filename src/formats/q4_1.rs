//! Q4_1: blocks of 32 values of 4 bits with a scale and a minimum; ggml's `block_q4_1` (ggml-common.h).
//!
//! ```text
//!  byte  0        2        4                             20
//!        │ d, f16 │ m, f16 │ 16 pairs of nibbles         │       value = d·q + m
//! ```
//! The low nibble of pair i is value i, the high one value 16 + i.

use half::f16;

use super::cpu::QuantisedWeights;
use super::cuda::{CudaFormat, CudaLayout};
use super::format::Format;
use super::nibbles;
use super::quantised::{BLOCK, SCALES_BYTES, each_block, f16_at, pack, packed_f16, put_f16, scale_and_inverse};
use super::random::Stream;
use crate::isa::Isa;

/// The format.
pub(super) struct Q4_1;

const HEADER_BYTES: usize = 4;
const BLOCK_BYTES: usize = HEADER_BYTES + BLOCK / 2;

impl Format for Q4_1 {
    fn name(&self) -> &'static str {
        "q4_1"
    }

    fn block_values(&self) -> usize {
        BLOCK
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn ggml_type(&self) -> u32 {
        3
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_block::<BLOCK_BYTES>(row, out, |block, values| {
            let (d, m) = (f16_at(block, 0), f16_at(block, 2));
            nibbles::decode(&block[HEADER_BYTES..], values, |q| d * q + m);
        });
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        for block in values.chunks_exact(BLOCK) {
            let (min, max) = block.iter().fold((f32::MAX, f32::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
            let ((d, inverse), m) = (scale_and_inverse((max - min) / 15.0), f16::from_f32(min));
            row.extend(d.to_le_bytes());
            row.extend(m.to_le_bytes());
            nibbles::encode(block, |value| (value - m.to_f32()) * inverse, row);
        }
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        let (scale, minimum) = (amplitude / 7.5, -amplitude);
        for block in row.chunks_exact_mut(BLOCK_BYTES) {
            let block_scale = random.next_scale();
            put_f16(block, 0, scale * block_scale);
            put_f16(block, 2, minimum * block_scale);
            random.fill_bytes(&mut block[HEADER_BYTES..]);
        }
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cols / BLOCK * Q4_1::BYTES
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        pack::<BLOCK_BYTES, 2>(rows, cols, packed);
    }

    fn cuda(&self) -> Option<CudaLayout> {
        Some(CudaLayout::of::<Q4_1>())
    }
}

impl QuantisedWeights for Q4_1 {
    const BYTES: usize = nibbles::PACKED_BYTES + 2 * SCALES_BYTES;

    #[inline(always)]
    unsafe fn dot<I: Isa, const M: usize>(block: *const u8, a: [*const i8; M], _: [i32; M]) -> [I::F32; M] {
        // SAFETY: the caller's.
        unsafe { I::dot_nibbles(block, a) }
    }

    #[inline(always)]
    unsafe fn scales<I: Isa>(block: *const u8) -> (I::F32, Option<I::F32>) {
        // SAFETY: scales follow the integers, minima the scales.
        unsafe {
            let d = I::load_f16(block.add(nibbles::PACKED_BYTES).cast());
            (d, Some(I::load_f16(block.add(nibbles::PACKED_BYTES + SCALES_BYTES).cast())))
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, lane: usize, out: *mut f32) {
        // SAFETY: the caller gives a packed block, one of its rows, and room for 32 values.
        unsafe {
            let scales = block.add(nibbles::PACKED_BYTES);
            let (d, m) = (packed_f16(scales, lane), packed_f16(scales.add(SCALES_BYTES), lane));
            nibbles::unpack(block, lane, d, m, out);
        }
    }
}

impl CudaFormat for Q4_1 {
    const UNIT_COLS: usize = 2 * BLOCK;
    const LANE_HEADER_BYTES: usize = 16;

    fn word(unit: usize, t: usize, w: usize) -> usize {
        nibbles::cuda_word::<BLOCK_BYTES>(unit, t, w)
    }

    /// The scales of the pair of blocks, then their minima.
    fn header(unit: usize, i: usize) -> usize {
        (2 * unit + i % 2) * BLOCK_BYTES + i / 2 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::WeightFormat;
    use crate::formats::tests::lanes_find;

    #[test]
    fn a_block_is_read_by_hand() {
        let mut block = [0x44u8; BLOCK_BYTES];
        block[..2].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(-1.0).to_le_bytes());
        (block[4], block[19]) = (0x3a, 0xf0);
        let (mut out, mut want) = ([f32::NAN; BLOCK], [0.0; BLOCK]);
        (want[0], want[16]) = (1.5, -0.25);
        (want[15], want[31]) = (-1.0, 2.75);
        Q4_1.decode(&block, &mut out);
        assert_eq!(out, want);
    }

    #[test]
    fn lanes_of_cuda_find_the_values() {
        lanes_find(WeightFormat::Q4_1, |lanes, row, col| {
            let (block, within) = (col / 32, col % 32);
            let pair = lanes.word(row, block / 2, within % 16 / 4, block % 2 * 2)[col % 4];
            let q = f32::from(if within < 16 { pair & 15 } else { pair >> 4 });
            lanes.header(row, block / 2, block % 2) * q + lanes.header(row, block / 2, 2 + block % 2)
        });
    }
}
