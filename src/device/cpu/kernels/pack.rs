//! Packed layouts of weight matrices: the order in which the kernels read them.
//!
//! A matrix is cut into blocks of 16 rows (the lanes of a vector), each one contiguous run:
//! - quantised: for each 32 columns the 16 × 32 integers as `Isa::dot_nibbles` or `Isa::dot_bytes` want them, then 16
//!   f16 scales d, then, for Q4_1, 16 f16 minima m. (For Q4_0 m is −8d: the kernels compute it.)
//! - f32 and f16: for each column 16 values. bf16: for each pair of columns 16 pairs, so that a vector of pairs feeds a
//!   bf16 dot product, and a shift or a mask of it is one column.
//!
//! Missing rows of the last block, and the missing column of an odd pair, are zero.

use std::ops::Range;

use crate::device::cpu::CpuDevice;
use crate::device::params::*;
use crate::device::{Activations, DeviceError, PackSource, WeightFormat};
use crate::isa::LANES;

/// Bytes of the integers of 16 rows × 32 columns of nibbles.
pub(super) const NIBBLES_BYTES: usize = LANES * 16;
/// The same for 8-bit weights.
pub(super) const OCTETS_BYTES: usize = LANES * 32;
/// Bytes of 16 scales, or minima.
pub(super) const SCALES_BYTES: usize = LANES * 2;

/// Packs one matrix.
pub(in crate::device) fn pack(
    device: &mut CpuDevice,
    source: &PackSource<'_>,
    activations: Activations,
) -> Result<WeightRef, DeviceError> {
    let &PackSource { name, format, rows, cols, data } = source;
    if !cols.is_multiple_of(format.block_values()) {
        return Err(DeviceError::PackShape { name: name.into(), format, cols, multiple: format.block_values() });
    }
    assert_eq!(data.len(), rows * format.row_bytes(cols), "{name}: ({rows}, {cols}) {}", format.as_str());
    let quantised = format.block_values() > 1;
    let (packed_format, activations) = match (activations, format) {
        (Activations::F32, _) if quantised => (WeightFormat::F32, ACTIVATIONS_F32),
        (Activations::F32, _) => (format, ACTIVATIONS_F32),
        (Activations::Reduced, _) if quantised => (format, ACTIVATIONS_INT8),
        (Activations::ReducedFine, _) if quantised => (format, ACTIVATIONS_INT8X2),
        (_, WeightFormat::Bf16) if device.isa.has_bf16_dot() => (format, ACTIVATIONS_BF16),
        _ => (format, ACTIVATIONS_F32),
    };
    let block_bytes = block_bytes(packed_format, cols);
    let buffer = device.alloc(rows.div_ceil(LANES) * block_bytes, "weights")?;
    // SAFETY: the buffer was just allocated, zeroed, and nobody else has its address yet.
    let packed = unsafe { std::slice::from_raw_parts_mut(buffer.addr as *mut u8, buffer.bytes) };
    let source_blocks = data.chunks(LANES * format.row_bytes(cols).max(1));
    let mut expanded = vec![0; if packed_format == format { 0 } else { LANES * cols * size_of::<f32>() }];
    for (source, packed) in source_blocks.zip(packed.chunks_exact_mut(block_bytes.max(1))) {
        match packed_format {
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
                pack_quantised(format, source, cols, packed);
            }
            WeightFormat::F32 if quantised => {
                let bytes = expand(format, source, cols, &mut expanded);
                pack_columns::<4>(&expanded[..bytes], cols, packed);
            }
            WeightFormat::F32 => pack_columns::<4>(source, cols, packed),
            WeightFormat::F16 => pack_columns::<2>(source, cols, packed),
            WeightFormat::Bf16 => pack_column_pairs(source, cols, packed),
        }
    }
    Ok(WeightRef { data: buffer.addr, rows: rows as u32, cols: cols as u32, format: packed_format as u32, activations })
}

/// Bytes of a packed block of 16 rows.
pub(super) fn block_bytes(format: WeightFormat, cols: usize) -> usize {
    let quant_blocks = cols / QUANT_BLOCK as usize;
    match format {
        WeightFormat::F32 => cols.next_multiple_of(2) * LANES * 4,
        WeightFormat::F16 | WeightFormat::Bf16 => cols.next_multiple_of(2) * LANES * 2,
        WeightFormat::Q8_0 => quant_blocks * (OCTETS_BYTES + SCALES_BYTES),
        WeightFormat::Q4_0 => quant_blocks * (NIBBLES_BYTES + SCALES_BYTES),
        WeightFormat::Q4_1 => quant_blocks * (NIBBLES_BYTES + 2 * SCALES_BYTES),
    }
}

/// The format of a packed matrix.
pub(super) fn format_of(weight: &WeightRef) -> WeightFormat {
    WeightFormat::from_u32(weight.format).expect("a packed weight has a known format")
}

/// Up to 16 rows of a quantised file format. The file's order within a row's block of 32 is already the kernels'
/// (nibbles: byte i is values i and 16 + i), so packing is a transposition of 4-byte groups and of scales.
fn pack_quantised(format: WeightFormat, source: &[u8], cols: usize, packed: &mut [u8]) {
    let headers = match format {
        WeightFormat::Q4_1 => 2,
        _ => 1,
    };
    let quant_blocks = cols / QUANT_BLOCK as usize;
    let (source_bytes, packed_bytes) = (format.block_bytes(), packed.len() / quant_blocks.max(1));
    let integers_bytes = packed_bytes - headers * SCALES_BYTES;
    for (lane, row) in source.chunks_exact(format.row_bytes(cols)).enumerate() {
        for (block, packed) in row.chunks_exact(source_bytes).zip(packed.chunks_exact_mut(packed_bytes)) {
            let (scales, integers) = block.split_at(2 * headers);
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

/// Up to 16 rows of `BYTES`-byte values.
fn pack_columns<const BYTES: usize>(source: &[u8], cols: usize, packed: &mut [u8]) {
    for (lane, row) in source.chunks_exact(cols * BYTES).enumerate() {
        for (value, packed) in row.chunks_exact(BYTES).zip(packed.chunks_exact_mut(LANES * BYTES)) {
            packed[lane * BYTES..][..BYTES].copy_from_slice(value);
        }
    }
}

/// Up to 16 rows of bf16.
fn pack_column_pairs(source: &[u8], cols: usize, packed: &mut [u8]) {
    for (lane, row) in source.chunks_exact(cols * 2).enumerate() {
        let mut packed = packed.chunks_exact_mut(LANES * 4);
        let pairs = row.chunks_exact(4);
        let odd = pairs.remainder();
        for (pair, packed) in pairs.zip(&mut packed) {
            packed[lane * 4..][..4].copy_from_slice(pair);
        }
        if let Some(packed) = packed.next() {
            packed[lane * 4..][..odd.len()].copy_from_slice(odd);
        }
    }
}

/// Up to 16 quantised rows as f32 rows; returns how many bytes they are.
fn expand(format: WeightFormat, source: &[u8], cols: usize, expanded: &mut [u8]) -> usize {
    let mut values = vec![0.0; cols];
    let rows = source.chunks_exact(format.row_bytes(cols));
    let bytes = rows.len() * cols * size_of::<f32>();
    for (row, expanded) in rows.zip(expanded.chunks_exact_mut(cols * size_of::<f32>())) {
        format.dequantise_row(row, &mut values);
        for (value, expanded) in values.iter().zip(expanded.chunks_exact_mut(4)) {
            expanded.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// Reads row `row` of a packed matrix back, as f32, into `out`.
///
/// # Safety
/// `weight` was packed by [`pack`], has such a row, and `out` has room for its columns.
#[inline(always)]
pub(super) unsafe fn unpack_row(weight: &WeightRef, row: usize, out: *mut f32) {
    let (format, cols) = (format_of(weight), weight.cols as usize);
    let (block, lane) = (row / LANES, row % LANES);
    // SAFETY: the block is part of the packed matrix, and `lane` of it; `out` has room for the columns.
    unsafe {
        let from = (weight.data as *const u8).add(block * block_bytes(format, cols));
        let word = |at: usize| from.cast::<u16>().add(at).read_unaligned();
        match format {
            WeightFormat::F32 => each(0..cols, out, |k| from.cast::<f32>().add(k * LANES + lane).read_unaligned()),
            WeightFormat::F16 => each(0..cols, out, |k| half::f16::from_bits(word(k * LANES + lane)).to_f32()),
            WeightFormat::Bf16 => {
                each(0..cols, out, |k| half::bf16::from_bits(word((k / 2 * LANES + lane) * 2 + k % 2)).to_f32());
            }
            _ => {
                let bytes = block_bytes(format, QUANT_BLOCK as usize);
                for first in (0..cols).step_by(QUANT_BLOCK as usize) {
                    let block = from.add(first / QUANT_BLOCK as usize * bytes);
                    unpack_quantised(format, block, lane, out.add(first));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn each(range: Range<usize>, out: *mut f32, value: impl Fn(usize) -> f32) {
    // SAFETY: the caller gives room for the range.
    range.for_each(|k| unsafe { out.add(k).write(value(k)) });
}

/// 32 values of one row.
#[inline(always)]
unsafe fn unpack_quantised(format: WeightFormat, block: *const u8, lane: usize, out: *mut f32) {
    // SAFETY: the caller gives a packed block, one of its lanes, and room for 32 values.
    unsafe {
        let scale = |at: usize| half::f16::from_bits(block.add(at + 2 * lane).cast::<u16>().read_unaligned()).to_f32();
        if format == WeightFormat::Q8_0 {
            let d = scale(OCTETS_BYTES);
            return each(0..32, out, |k| d * f32::from(block.add((k / 4 * LANES + lane) * 4 + k % 4).read() as i8));
        }
        let d = scale(NIBBLES_BYTES);
        let m = if format == WeightFormat::Q4_1 { scale(NIBBLES_BYTES + SCALES_BYTES) } else { -8.0 * d };
        let pair = |k: usize| block.add((k / 4 * LANES + lane) * 4 + k % 4).read();
        each(0..16, out, |k| d * f32::from(pair(k) & 15) + m);
        each(0..16, out.add(16), |k| d * f32::from(pair(k) >> 4) + m);
    }
}
