//! F32: IEEE single precision, little endian, as GGUF and safetensors have it.
//!
//! Packed for the CPU: for each column the values of 16 rows. CUDA's kernels read it rounded to bf16.

use super::cpu::{CpuFormat, FloatWeights, Multiply, PackedRow};
use super::floats::{cpu_bytes, each_value, pack_columns, two_columns, write_row};
use super::format::Format;
use super::random::Stream;
use crate::isa::{Isa, LANES};

/// The format.
pub(super) struct F32;

const BYTES: usize = 4;

impl Format for F32 {
    fn name(&self) -> &'static str {
        "f32"
    }

    fn block_values(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        BYTES
    }

    fn ggml_type(&self) -> u32 {
        0
    }

    fn safetensors_dtype(&self) -> Option<&'static str> {
        Some("F32")
    }

    fn decode(&self, row: &[u8], out: &mut [f32]) {
        each_value(row, out, f32::from_le_bytes);
    }

    fn encode(&self, values: &[f32], row: &mut Vec<u8>) {
        row.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        random.fill_f32(row, 0.0, amplitude);
    }

    fn cpu_bytes(&self, cols: usize) -> usize {
        cpu_bytes(cols, BYTES)
    }

    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        pack_columns::<BYTES>(rows, cols, packed);
    }
}

impl CpuFormat for F32 {
    #[inline(always)]
    unsafe fn unpack_row(row: &PackedRow) {
        // SAFETY: the caller gives columns of 16 values, and room for one of each.
        unsafe {
            let column = |k: usize| row.rows.cast::<f32>().add(k * LANES);
            write_row(row.cols, row.out, |k| column(k).add(row.lane).read_unaligned());
        }
    }

    #[inline(always)]
    unsafe fn multiply<I: Isa>(product: &impl Multiply, _bf16: bool) {
        // SAFETY: the caller's; rows that meet f32 weights are f32.
        unsafe { product.float::<I, F32>() }
    }
}

impl FloatWeights for F32 {
    const PAIR_BYTES: usize = 2 * LANES * BYTES;
    const ACTIVATION_PAIR_BYTES: usize = 8;

    #[inline(always)]
    unsafe fn multiply_add<I: Isa, const M: usize>(w: *const u8, a: [*const u8; M], acc: [I::F32; M]) -> [I::F32; M] {
        // SAFETY: the caller gives two columns.
        unsafe { two_columns::<I, M>((I::load(w.cast()), I::load(w.cast::<f32>().add(LANES))), a, acc) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_hand() {
        let mut out = [0.0; 2];
        F32.decode(&[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1], &mut out);
        assert_eq!(out, [1.0, -10.0]);
    }
}
