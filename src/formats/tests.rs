//! Every format of the table, asked the same; and what the tests of single formats share.

use std::collections::HashSet;

use super::WeightFormat;
use super::cpu::PackedRow;
use super::cuda::{WeightLayout, pack};
use super::random::Stream;
use crate::isa::LANES;

/// Rows of random values, as a file has them.
pub(super) fn random_rows(format: WeightFormat, rows: usize, cols: usize) -> Vec<u8> {
    let mut data = vec![0; rows * format.row_bytes(cols)];
    let random = Stream::of_tensor(7, format.as_str());
    for (i, row) in data.chunks_exact_mut(format.row_bytes(cols)).enumerate() {
        format.fill_row(row, &mut random.of_row(i), 1.0);
    }
    data
}

/// Rows of a file, expanded.
pub(super) fn decoded(format: WeightFormat, rows: &[u8], cols: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows.len() / format.row_bytes(cols) * cols];
    let rows = rows.chunks_exact(format.row_bytes(cols));
    rows.zip(values.chunks_exact_mut(cols)).for_each(|(row, out)| format.dequantise_row(row, out));
    values
}

/// Rows of every format, with an odd number of columns where blocks allow it.
fn matrices() -> impl Iterator<Item = (WeightFormat, usize, usize)> {
    WeightFormat::ALL.into_iter().flat_map(|format| {
        let cols = if format.is_quantised() { [1, 3].map(|n| n * format.block_values()) } else { [1, 33] };
        [1, 16, 17].into_iter().flat_map(move |rows| cols.map(|cols| (format, rows, cols)))
    })
}

#[test]
fn names_and_numbers_are_the_formats_own() {
    let all = WeightFormat::ALL;
    let header = include_str!("../../csrc/params.h");
    assert_eq!(header.matches("static const uint32_t VITRUM_FORMAT_").count(), all.len());
    for format in all {
        let name = format.as_str();
        let line = format!("static const uint32_t VITRUM_FORMAT_{} = {};\n", name.to_uppercase(), format as u32);
        assert!(header.contains(&line), "csrc/params.h has no {line}");
        assert_eq!(WeightFormat::from_u32(format as u32), Some(format), "{name}");
        assert_eq!(WeightFormat::from_ggml_type(format.ggml_type()), Some(format), "{name}");
        let dtype = format.safetensors_dtype();
        assert!(dtype.is_none_or(|dtype| WeightFormat::from_safetensors_dtype(dtype) == Some(format)), "{name}");
        assert!(dtype.is_none() || !format.is_quantised(), "{name}: safetensors knows no blocks");
    }
    assert_eq!(all.iter().map(|format| format.as_str()).collect::<HashSet<_>>().len(), all.len());
    assert_eq!(WeightFormat::from_u32(77), None);
    assert_eq!(WeightFormat::from_ggml_type(77), None);
    assert_eq!(WeightFormat::from_safetensors_dtype("I64"), None);
}

#[test]
fn random_rows_are_finite_and_encoded_near_themselves() {
    for format in WeightFormat::ALL {
        let cols = 4 * format.block_values();
        let values = decoded(format, &random_rows(format, 5, cols), cols);
        assert!(values.iter().all(|value| value.is_finite()), "{}", format.as_str());
        let mut again = Vec::new();
        format.encode(&values, &mut again);
        let again = decoded(format, &again, cols);
        // A step of 4 bits is a seventh of the largest value at most; rows are within about ±1.25.
        let allowed = if format.is_quantised() { 0.25 } else { 1.0 / 256.0 };
        let off = values.iter().zip(&again).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(off <= allowed, "{}: off by {off}", format.as_str());
    }
}

#[test]
fn what_is_packed_for_the_cpu_reads_back_exactly() {
    for (format, rows, cols) in matrices() {
        let what = format!("{} ({rows}, {cols})", format.as_str());
        let (data, block_bytes) = (random_rows(format, rows, cols), format.cpu_bytes(cols));
        let mut packed = vec![0; rows.div_ceil(LANES) * block_bytes];
        let row_blocks = data.chunks(LANES * format.row_bytes(cols));
        row_blocks.zip(packed.chunks_exact_mut(block_bytes)).for_each(|(from, to)| format.pack_for_cpu(from, cols, to));
        // Missing rows are read too, and an odd format's missing column.
        let read_cols = if format.is_quantised() { cols } else { cols.next_multiple_of(2) };
        let want = decoded(format, &data, cols);
        for row in 0..rows.next_multiple_of(LANES) {
            let mut values = vec![f32::NAN; read_cols];
            let rows = packed[row / LANES * block_bytes..][..block_bytes].as_ptr();
            let packed_row = PackedRow { rows, lane: row % LANES, cols: read_cols, out: values.as_mut_ptr() };
            // SAFETY: the rows are packed in this format, of as many columns as `values` has room for.
            unsafe { format.unpack_row(&packed_row) }
            let there = want.get(row * cols..(row + 1) * cols).unwrap_or_default();
            assert!(values[..there.len()] == *there, "{what}: row {row}");
            assert!(values[there.len()..].iter().all(|value| *value == 0.0), "{what}: beyond row {row}");
        }
    }
}

#[test]
fn cuda_has_every_byte_of_the_file_once() {
    let counts = |bytes: &[u8]| {
        let mut counts = [0; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        counts
    };
    for format in WeightFormat::ALL.into_iter().filter(|format| format.is_read_by_cuda()) {
        // Whole tiles, and an even number of blocks: nothing is padded.
        let (rows, cols) = (32, 192);
        let data = random_rows(format, rows, cols);
        let packed = pack(format, &data, cols, format);
        assert_eq!(packed.len(), WeightLayout::new(rows, cols, format).bytes, "{}", format.as_str());
        assert!(counts(&packed) == counts(&data), "{}", format.as_str());
    }
}

/// A matrix packed for CUDA, as lanes read it: the words of csrc/common/weights.cuh and mma's A.
pub(super) struct Lanes {
    packed: Vec<u8>,
    layout: WeightLayout,
}

impl Lanes {
    /// Of the lanes that have this row, lane t's word w of a unit, or the word behind it where the row is the second.
    pub(super) fn word(&self, row: usize, unit: usize, t: usize, w: usize) -> [u8; 4] {
        let lane = row / 16 * self.layout.tile_bytes + unit * 512 + (4 * (row % 8) + t) * 16;
        let at = lane + (w + row % 16 / 8) * 4;
        std::array::from_fn(|i| self.packed[at + i])
    }

    /// The i-th f16 that they have of this row in a unit.
    pub(super) fn header(&self, row: usize, unit: usize, i: usize) -> f32 {
        let group_bytes = self.layout.header_bytes / (self.layout.tile_bytes / 512) / 8;
        let tile = self.layout.headers + row / 16 * self.layout.header_bytes;
        let at = tile + (unit * 8 + row % 8) * group_bytes + i * 4 + row % 16 / 8 * 2;
        half::f16::from_le_bytes([self.packed[at], self.packed[at + 1]]).to_f32()
    }
}

/// Checks that lanes find all values of a format, of which `value` reads one, by row and column.
pub(super) fn lanes_find(format: WeightFormat, value: impl Fn(&Lanes, usize, usize) -> f32) {
    for (rows, cols) in [(1, 32), (16, 64), (23, 96), (33, 160)] {
        let data = random_rows(format, rows, cols);
        let layout = WeightLayout::new(rows, cols, format);
        let lanes = Lanes { packed: pack(format, &data, cols, format), layout };
        assert_eq!(lanes.packed.len(), layout.bytes);
        let values: Vec<f32> = (0..rows * cols).map(|i| value(&lanes, i / cols, i % cols)).collect();
        assert!(values == decoded(format, &data, cols), "({rows}, {cols}) {}", format.as_str());
    }
}
