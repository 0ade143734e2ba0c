//! BF16: the upper half of an f32, little endian, as GGUF and safetensors have it.
//!
//! Packed for the CPU: for each pair of columns the pairs of 16 rows; the second of an odd pair is zero. A vector of
//! pairs feeds a bf16 dot product, and a shift or a mask of it is one column. For CUDA: a[0] .. a[3] of mma_bf16.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers at once")]

use half::bf16;

use super::cpu::{CpuFormat, FloatWeights, Multiply, PackedRow};
use super::cuda::{CudaFormat, CudaLayout};
use super::floats::{cpu_bytes, each_value, fill_fours, two_columns, write_row};
use super::format::Format;
use super::random::Stream;
use crate::isa::{Isa, LANES};

/// The format.
pub(super) struct Bf16;

const BYTES: usize = 2;

impl Format for Bf16 {
    fn name(&self) -> &'static str {
        "bf16"
    }

    fn block_values(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        BYTES
    }

    fn ggml_type(&self) -> u32 {
        30
    }

    fn safetensors_dtype(&self) -> Option<&'static str> {
        Some("BF16")
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_value(row, out, |bytes| bf16::from_le_bytes(bytes).to_f32());
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        row.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()));
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        // Cut to bf16, not rounded: the values are random anyway, and this takes a third of the time.
        let cut = |value: f32| ((value.to_bits() >> 16) as u16).to_le_bytes();
        fill_fours(row, random, amplitude, |values| values.map(cut));
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cpu_bytes(cols, BYTES)
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        for (lane, row) in rows.chunks_exact(cols * BYTES).enumerate() {
            let mut packed = packed.chunks_exact_mut(LANES * 2 * BYTES);
            let pairs = row.chunks_exact(2 * BYTES);
            let odd = pairs.remainder();
            for (pair, packed) in pairs.zip(&mut packed) {
                packed[lane * 4..][..4].copy_from_slice(pair);
            }
            if let Some(packed) = packed.next() {
                packed[lane * 4..][..odd.len()].copy_from_slice(odd);
            }
        }
    }

    fn cuda(&self) -> Option<CudaLayout> {
        Some(CudaLayout::of::<Bf16>())
    }
}

impl CpuFormat for Bf16 {
    #[inline(always)]
    unsafe fn unpack_row(row: &PackedRow) {
        // SAFETY: the caller gives pairs of columns of 16 values, and room for one of each column.
        unsafe {
            let pairs = |k: usize| row.rows.cast::<u16>().add(k / 2 * LANES * 2);
            let value = |k: usize| pairs(k).add(row.lane * 2 + k % 2).read_unaligned();
            write_row(row.cols, row.out, |k| bf16::from_bits(value(k)).to_f32());
        }
    }

    #[inline(always)]
    unsafe fn multiply<I: Isa>(product: &impl Multiply, bf16: bool) {
        // SAFETY: the caller's, who says what the rows are.
        unsafe { if bf16 { product.float::<I, Dots>() } else { product.float::<I, Columns>() } }
    }
}

/// Expanded, times f32 activations.
struct Columns;

impl FloatWeights for Columns {
    const PAIR_BYTES: usize = 2 * LANES * BYTES;
    const ACTIVATION_PAIR_BYTES: usize = 8;

    #[inline(always)]
    unsafe fn multiply_add<I: Isa, const M: usize>(w: *const u8, a: [*const u8; M], acc: [I::F32; M]) -> [I::F32; M] {
        // SAFETY: the caller gives two columns.
        unsafe { two_columns::<I, M>(I::load_bf16_pairs(w.cast()), a, acc) }
    }
}

/// Pair by pair, times bf16 activations.
struct Dots;

impl FloatWeights for Dots {
    const PAIR_BYTES: usize = 2 * LANES * BYTES;
    const ACTIVATION_PAIR_BYTES: usize = 4;

    #[inline(always)]
    unsafe fn multiply_add<I: Isa, const M: usize>(w: *const u8, a: [*const u8; M], acc: [I::F32; M]) -> [I::F32; M] {
        let mut pairs = [std::ptr::null::<u16>(); M];
        for m in 0..M {
            pairs[m] = a[m].cast();
        }
        // SAFETY: the caller gives two columns and M pairs of bf16.
        unsafe { I::fma_bf16_pairs(w.cast(), pairs, acc) }
    }
}

impl CudaFormat for Bf16 {
    const UNIT_COLS: usize = 16;
    const LANE_HEADER_BYTES: usize = 0;

    /// Columns 2t, 2t + 1 of the unit's 16; words 2 and 3: 8 further.
    fn word(unit: usize, t: usize, w: usize) -> usize {
        (16 * unit + 2 * t + 8 * (w / 2)) * BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::WeightFormat;
    use crate::formats::tests::lanes_find;

    #[test]
    fn a_row_is_read_by_hand() {
        let mut out = [0.0; 2];
        Bf16.decode(&[0x80, 0x3f, 0x49, 0xc0], &mut out);
        assert_eq!(out, [1.0, -3.140625]);
    }

    #[test]
    fn lanes_of_cuda_find_the_values() {
        lanes_find(WeightFormat::Bf16, |lanes, row, col| {
            let word = lanes.word(row, col / 16, col % 8 / 2, col % 16 / 8 * 2);
            bf16::from_le_bytes([word[col % 2 * 2], word[col % 2 * 2 + 1]]).to_f32()
        });
    }
}
