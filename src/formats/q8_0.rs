//! Q8_0: blocks of 32 values of 8 bits with one scale; ggml's `block_q8_0` (ggml-common.h).
//!
//! ```text
//!  byte  0        2                                                     34
//!        │ d, f16 │ q, 32 × i8                                          │       value = d·q
//! ```

use super::cpu::QuantisedWeights;
use super::cuda::{CudaFormat, CudaLayout};
use super::format::Format;
use super::quantised::{
    BLOCK, SCALES_BYTES, amax, each_block, f16_at, pack, packed_byte, packed_f16, put_f16, scale_and_inverse,
};
use super::random::Stream;
use crate::isa::{Isa, LANES};

/// The format.
pub(super) struct Q8_0;

const SCALE_BYTES: usize = 2;
const BLOCK_BYTES: usize = SCALE_BYTES + BLOCK;

impl Format for Q8_0 {
    fn name(&self) -> &'static str {
        "q8_0"
    }

    fn block_values(&self) -> usize {
        BLOCK
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn ggml_type(&self) -> u32 {
        8
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_block::<BLOCK_BYTES>(row, out, |block, values| {
            let d = f16_at(block, 0);
            for (value, byte) in values.iter_mut().zip(&block[SCALE_BYTES..]) {
                *value = d * f32::from(*byte as i8);
            }
        });
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        for block in values.chunks_exact(BLOCK) {
            let (d, inverse) = scale_and_inverse(amax(block) / 127.0);
            row.extend(d.to_le_bytes());
            row.extend(block.iter().map(|value| (value * inverse).round().clamp(-128.0, 127.0) as i8 as u8));
        }
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        for block in row.chunks_exact_mut(BLOCK_BYTES) {
            put_f16(block, 0, random.next_scale() * amplitude / 128.0);
            random.fill_bytes(&mut block[SCALE_BYTES..]);
        }
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cols / BLOCK * Q8_0::BYTES
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        pack::<BLOCK_BYTES, 1>(rows, cols, packed);
    }

    fn cuda(&self) -> Option<CudaLayout> {
        Some(CudaLayout::of::<Q8_0>())
    }
}

/// Bytes of the integers of 16 rows.
const PACKED_BYTES: usize = LANES * BLOCK;

impl QuantisedWeights for Q8_0 {
    const BYTES: usize = PACKED_BYTES + SCALES_BYTES;

    #[inline(always)]
    unsafe fn dot<I: Isa, const M: usize>(block: *const u8, a: [*const i8; M], sums: [i32; M]) -> [I::F32; M] {
        // SAFETY: the caller's.
        unsafe { I::dot_bytes(block.cast(), a, sums) }
    }

    #[inline(always)]
    unsafe fn scales<I: Isa>(block: *const u8) -> (I::F32, Option<I::F32>) {
        // SAFETY: scales follow the integers.
        unsafe { (I::load_f16(block.add(PACKED_BYTES).cast()), None) }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, lane: usize, out: *mut f32) {
        // SAFETY: the caller gives a packed block, one of its rows, and room for 32 values.
        unsafe {
            let d = packed_f16(block.add(PACKED_BYTES), lane);
            for k in 0..BLOCK {
                out.add(k).write(d * f32::from(packed_byte(block, lane, k) as i8));
            }
        }
    }
}

impl CudaFormat for Q8_0 {
    const UNIT_COLS: usize = BLOCK;
    const LANE_HEADER_BYTES: usize = 4;

    /// Columns 4t .. 4t + 3 of the block; words 2 and 3: 16 further.
    fn word(unit: usize, t: usize, w: usize) -> usize {
        unit * BLOCK_BYTES + SCALE_BYTES + 4 * t + 16 * (w / 2)
    }

    /// The scale.
    fn header(unit: usize, _i: usize) -> usize {
        unit * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::WeightFormat;
    use crate::formats::tests::lanes_find;

    #[test]
    fn a_block_is_read_by_hand() {
        let mut block = [0u8; BLOCK_BYTES];
        block[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        (block[2], block[3], block[33]) = (128, 127, 255);
        let (mut out, mut want) = ([f32::NAN; BLOCK], [0.0; BLOCK]);
        (want[0], want[1], want[31]) = (-64.0, 63.5, -0.5);
        Q8_0.decode(&block, &mut out);
        assert_eq!(out, want);
    }

    #[test]
    fn lanes_of_cuda_find_the_values() {
        lanes_find(WeightFormat::Q8_0, |lanes, row, col| {
            let (block, within) = (col / 32, col % 32);
            let q = lanes.word(row, block, within % 16 / 4, within / 16 * 2)[col % 4] as i8;
            lanes.header(row, block, 0) * f32::from(q)
        });
    }
}
