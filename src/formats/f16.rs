//! F16: IEEE half precision, little endian, as GGUF and safetensors have it.
//!
//! Packed for the CPU: for each column the values of 16 rows. CUDA's kernels read it rounded to bf16.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::cpu::{CpuFormat, FloatWeights, Multiply, PackedRow};
use super::floats::{cpu_bytes, each_value, fill_fours, pack_columns, two_columns, write_row};
use super::format::Format;
use super::random::Stream;
use crate::isa::{Isa, LANES};

/// The format.
pub(super) struct F16;

const BYTES: usize = 2;

impl Format for F16 {
    fn name(&self) -> &'static str {
        "f16"
    }

    fn block_values(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        BYTES
    }

    fn ggml_type(&self) -> u32 {
        1
    }

    fn safetensors_dtype(&self) -> Option<&'static str> {
        Some("F16")
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_value(row, out, |bytes| f16::from_le_bytes(bytes).to_f32());
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        row.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()));
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        fill_fours(row, random, amplitude, |values| {
            let mut halves = [f16::ZERO; 4];
            halves.convert_from_f32_slice(&values); // four at once, where the processor can
            halves.map(f16::to_le_bytes)
        });
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cpu_bytes(cols, BYTES)
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        pack_columns::<BYTES>(rows, cols, packed);
    }
}

impl CpuFormat for F16 {
    #[inline(always)]
    unsafe fn unpack_row(row: &PackedRow) {
        // SAFETY: the caller gives columns of 16 values, and room for one of each.
        unsafe {
            let column = |k: usize| row.rows.cast::<u16>().add(k * LANES);
            write_row(row.cols, row.out, |k| f16::from_bits(column(k).add(row.lane).read_unaligned()).to_f32());
        }
    }

    #[inline(always)]
    unsafe fn multiply<I: Isa>(product: &impl Multiply, _bf16: bool) {
        // SAFETY: the caller's; rows that meet f16 weights are f32.
        unsafe { product.float::<I, F16>() }
    }
}

impl FloatWeights for F16 {
    const PAIR_BYTES: usize = 2 * LANES * BYTES;
    const ACTIVATION_PAIR_BYTES: usize = 8;

    #[inline(always)]
    unsafe fn multiply_add<I: Isa, const M: usize>(w: *const u8, a: [*const u8; M], acc: [I::F32; M]) -> [I::F32; M] {
        // SAFETY: the caller gives two columns.
        unsafe { two_columns::<I, M>((I::load_f16(w.cast()), I::load_f16(w.cast::<u16>().add(LANES))), a, acc) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_hand() {
        let mut out = [0.0; 3];
        F16.decode(&[0, 0x3c, 0, 0xc0, 1, 0], &mut out);
        assert_eq!(out, [1.0, -2.0, 0.5f32.powi(24)]);
    }
}
