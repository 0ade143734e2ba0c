//! Packed layouts of weight matrices: csrc/common/weights.cuh, of which this is the host's side.
//!
//! Four bytes of a file's row stay together: they are what one lane holds in one register of mma's A. Packing moves
//! such groups, and the scales, to where the lanes load them. Missing rows of the last tile are zero, and so is the
//! missing second block of an odd pair.

use crate::device::params::*;
use crate::device::{DeviceError, PackSource, WeightFormat};

/// Rows of a tile: mma's M.
pub const TILE_ROWS: usize = 16;

const QUANT: usize = QUANT_BLOCK as usize;
/// What the lanes of a warp load of a tile at once.
const UNIT_BYTES: usize = 32 * LANE_BYTES;
const LANE_BYTES: usize = 16;
const SCALE_BYTES: usize = 2;

/// Where the parts of a packed matrix are: `weight_layout` in csrc/common/weights.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightLayout {
    /// Tiles of 16 rows.
    pub row_tiles: usize,
    /// Blocks of 32 columns.
    pub blocks: usize,
    /// From one tile to the next, without headers.
    pub tile_bytes: usize,
    /// From one tile's headers to the next.
    pub header_bytes: usize,
    /// Where the headers begin.
    pub headers: usize,
    /// All of it.
    pub bytes: usize,
}

impl WeightLayout {
    /// Of a matrix whose columns are a multiple of 32, in a format that the kernels read.
    pub fn new(rows: usize, cols: usize, format: WeightFormat) -> WeightLayout {
        assert!(cols.is_multiple_of(QUANT), "{cols} columns");
        let (row_tiles, blocks) = (rows.div_ceil(TILE_ROWS), cols / QUANT);
        let units = units(blocks, format);
        let tile_bytes = units * UNIT_BYTES;
        let header_bytes = units * 8 * lane_header_bytes(format);
        let headers = row_tiles * tile_bytes;
        WeightLayout { row_tiles, blocks, tile_bytes, header_bytes, headers, bytes: headers + row_tiles * header_bytes }
    }
}

/// What the lanes load at once: 16 columns of bf16, 32 of 8 bits, 64 of 4 bits.
fn units(blocks: usize, format: WeightFormat) -> usize {
    match format {
        WeightFormat::Bf16 => 2 * blocks,
        WeightFormat::Q8_0 => blocks,
        WeightFormat::Q4_0 | WeightFormat::Q4_1 => blocks.div_ceil(2),
        WeightFormat::F32 | WeightFormat::F16 => unreachable!("no kernel reads {}", format.as_str()),
    }
}

/// Scales and minima that belong to a lane's 16 bytes.
fn lane_header_bytes(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Q8_0 => 2 * SCALE_BYTES,
        WeightFormat::Q4_0 => 4 * SCALE_BYTES,
        WeightFormat::Q4_1 => 8 * SCALE_BYTES,
        _ => 0,
    }
}

/// The format in which the kernels read a matrix of this format in a node with others `beside` it. Kernels read f32 and
/// f16 rounded to bf16; and since the rows of a node come in one form, what is quantised beside any of the three is
/// expanded, and rounded likewise: a weight is off by at most 2⁻⁸ of itself.
pub fn packed_format(format: WeightFormat, beside: &[WeightFormat]) -> WeightFormat {
    let is_float = |format: &WeightFormat| format.block_values() == 1;
    if is_float(&format) || beside.iter().any(is_float) { WeightFormat::Bf16 } else { format }
}

/// Packs one matrix into the bytes of its [`WeightLayout`], in its [`packed_format`].
pub fn pack(source: &PackSource<'_>, to_format: WeightFormat) -> Result<Vec<u8>, DeviceError> {
    let &PackSource { name, format, rows, cols, data } = source;
    if !cols.is_multiple_of(QUANT) {
        return Err(DeviceError::PackShape { name: name.into(), format, cols, multiple: QUANT });
    }
    assert_eq!(data.len(), rows * format.row_bytes(cols), "{name}: ({rows}, {cols}) {}", format.as_str());
    let layout = WeightLayout::new(rows, cols, to_format);
    let mut packed = vec![0; layout.bytes];
    if layout.blocks == 0 {
        return Ok(packed);
    }
    let (values, headers) = packed.split_at_mut(layout.headers);
    let mut rounded = Vec::new();
    for (tile, from) in data.chunks(TILE_ROWS * format.row_bytes(cols)).enumerate() {
        let from = if to_format == format { from } else { rounded_to_bf16(format, cols, from, &mut rounded) };
        let tile_rows = TileRows { format: to_format, row_bytes: to_format.row_bytes(cols), data: from };
        tile_rows.pack_values(&mut values[tile * layout.tile_bytes..][..layout.tile_bytes]);
        tile_rows.pack_headers(&mut headers[tile * layout.header_bytes..][..layout.header_bytes]);
    }
    Ok(packed)
}

/// Rows of any format as rows of bf16.
fn rounded_to_bf16<'a>(format: WeightFormat, cols: usize, from: &[u8], rounded: &'a mut Vec<u8>) -> &'a [u8] {
    let mut values = vec![0.0; cols];
    rounded.clear();
    for row in from.chunks_exact(format.row_bytes(cols)) {
        format.dequantise_row(row, &mut values);
        rounded.extend(values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()));
    }
    rounded
}

/// Up to 16 rows of a file.
struct TileRows<'a> {
    format: WeightFormat,
    row_bytes: usize,
    data: &'a [u8],
}

impl TileRows<'_> {
    /// Copies from byte `at` of a row, unless there is no such row or no such byte: what is packed stays zero.
    fn copy(&self, row: usize, at: usize, to: &mut [u8]) {
        if at < self.row_bytes
            && let Some(row) = self.data.get(row * self.row_bytes..(row + 1) * self.row_bytes)
        {
            to.copy_from_slice(&row[at..][..to.len()]);
        }
    }

    /// (units, 32 lanes, 16 bytes): lane 4g + t has in word w four bytes of row g + 8 (w % 2).
    fn pack_values(&self, to: &mut [u8]) {
        let block_bytes = self.format.block_bytes();
        for (unit, lanes) in to.chunks_exact_mut(UNIT_BYTES).enumerate() {
            for (lane, words) in lanes.chunks_exact_mut(LANE_BYTES).enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                for (w, word) in words.chunks_exact_mut(4).enumerate() {
                    let at = match self.format {
                        // Columns 2t, 2t + 1 of the unit's 16; words 2 and 3: 8 further.
                        WeightFormat::Bf16 => (16 * unit + 2 * t + 8 * (w / 2)) * 2,
                        // Columns 4t .. 4t + 3 of the block; words 2 and 3: 16 further.
                        WeightFormat::Q8_0 => unit * block_bytes + SCALE_BYTES + 4 * t + 16 * (w / 2),
                        // The same of both halves of a block at once; words 2 and 3: of the pair's second block.
                        _ => (2 * unit + w / 2) * block_bytes + (block_bytes - 16) + 4 * t,
                    };
                    self.copy(g + 8 * (w % 2), at, word);
                }
            }
        }
    }

    /// (units, 8 g, f16 of rows g and g + 8: scales of the unit's blocks, then their minima).
    fn pack_headers(&self, to: &mut [u8]) {
        let lane_bytes = lane_header_bytes(self.format);
        if lane_bytes == 0 {
            return;
        }
        let unit_blocks = if self.format == WeightFormat::Q8_0 { 1 } else { 2 };
        for (unit, groups) in to.chunks_exact_mut(8 * lane_bytes).enumerate() {
            for (g, words) in groups.chunks_exact_mut(lane_bytes).enumerate() {
                for (i, scale) in words.chunks_exact_mut(SCALE_BYTES).enumerate() {
                    let (row, block, minimum) = (g + i % 2 * 8, i / 2 % unit_blocks, i / 2 / unit_blocks);
                    let at = (unit * unit_blocks + block) * self.format.block_bytes() + minimum * SCALE_BYTES;
                    self.copy(row, at, scale);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ, with scales that are numbers.
    fn file(format: WeightFormat, rows: usize, cols: usize) -> Vec<u8> {
        let mut data: Vec<u8> = (0..rows * format.row_bytes(cols)).map(|i| (i * 167 + i / 251) as u8).collect();
        for (i, block) in data.chunks_exact_mut(format.block_bytes()).enumerate() {
            let scale = half::f16::from_f32(0.25 + i as f32 / 64.0).to_le_bytes();
            match format {
                WeightFormat::F32 => block.copy_from_slice(&(i as f32 / 3.0 - 7.0).to_le_bytes()),
                WeightFormat::F16 => block.copy_from_slice(&half::f16::from_f32(i as f32 / 3.0 - 7.0).to_le_bytes()),
                WeightFormat::Bf16 => block.copy_from_slice(&half::bf16::from_f32(i as f32 - 7.0).to_le_bytes()),
                WeightFormat::Q4_1 => {
                    block[..2].copy_from_slice(&scale);
                    block[2..4].copy_from_slice(&half::f16::from_f32(-(i as f32)).to_le_bytes());
                }
                _ => block[..2].copy_from_slice(&scale),
            }
        }
        data
    }

    /// What the lanes make of a packed matrix, from the words of weights.cuh and mma's A alone.
    fn unpacked(packed: &[u8], rows: usize, cols: usize, format: WeightFormat) -> Vec<f32> {
        let layout = WeightLayout::new(rows, cols, format);
        let mut values = vec![f32::NAN; rows * cols];
        let f16 = |at: usize| half::f16::from_le_bytes([packed[at], packed[at + 1]]).to_f32();
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let (tile, g, second_row) = (row / 16, row % 8, row % 16 / 8);
            let lanes = |unit: usize, t: usize| tile * layout.tile_bytes + unit * 512 + (4 * g + t) * 16;
            let header = |unit: usize, bytes: usize| {
                layout.headers + tile * layout.header_bytes + (unit * 8 + g) * bytes + second_row * 2
            };
            let (block, within) = (col / 32, col % 32);
            values[row * cols + col] = match format {
                WeightFormat::Bf16 => {
                    let (t, word) = (col % 8 / 2, second_row + col % 16 / 8 * 2);
                    let at = lanes(col / 16, t) + word * 4 + col % 2 * 2;
                    half::bf16::from_le_bytes([packed[at], packed[at + 1]]).to_f32()
                }
                WeightFormat::Q8_0 => {
                    let word = second_row + within / 16 * 2;
                    let q = packed[lanes(block, within % 16 / 4) + word * 4 + col % 4] as i8;
                    f16(header(block, 4)) * f32::from(q)
                }
                _ => {
                    let byte = packed[lanes(block / 2, within % 16 / 4) + (block % 2 * 2 + second_row) * 4 + col % 4];
                    let q = f32::from(if within < 16 { byte & 15 } else { byte >> 4 });
                    let minima = format == WeightFormat::Q4_1;
                    let at = header(block / 2, if minima { 16 } else { 8 }) + block % 2 * 4;
                    if minima { f16(at) * q + f16(at + 8) } else { f16(at) * (q - 8.0) }
                }
            };
        }
        values
    }

    #[test]
    fn lanes_find_the_values_of_the_file() {
        use WeightFormat::*;
        let all = [F32, F16, Bf16, Q8_0, Q4_0, Q4_1];
        for (format, beside) in all.into_iter().flat_map(|format| all.map(|beside| (format, beside))) {
            let to_format = packed_format(format, &[beside]);
            let is_float = [format, beside].iter().any(|format| [F32, F16, Bf16].contains(format));
            assert_eq!(to_format, if is_float { Bf16 } else { format });
            for (rows, cols) in [(1, 32), (16, 64), (23, 96), (33, 160)] {
                let data = file(format, rows, cols);
                let source = PackSource { name: "test", format, rows, cols, data: &data };
                let packed = pack(&source, to_format).expect("a shape");
                let mut values = vec![0.0; rows * cols];
                let file_rows = data.chunks_exact(format.row_bytes(cols));
                file_rows.zip(values.chunks_exact_mut(cols)).for_each(|(row, out)| format.dequantise_row(row, out));
                if to_format == Bf16 {
                    let rounded = |value: f32| half::bf16::from_f32(value).to_f32();
                    let off = |value: f32| (value - rounded(value)).abs() <= value.abs() / 256.0;
                    assert!(values.iter().all(|value| off(*value)), "what is said of rounding");
                    values.iter_mut().for_each(|value| *value = rounded(*value));
                }
                let got = unpacked(&packed, rows, cols, to_format);
                assert!(got == values, "({rows}, {cols}) {} beside {}", format.as_str(), beside.as_str());
            }
        }
    }

    #[test]
    fn what_the_file_lacks_is_zero() {
        let (rows, cols) = (1, 32);
        let data = file(WeightFormat::Q4_1, rows, cols);
        let source = PackSource { name: "test", format: WeightFormat::Q4_1, rows, cols, data: &data };
        let packed = pack(&source, source.format).expect("a shape");
        let layout = WeightLayout::new(rows, cols, WeightFormat::Q4_1);
        assert_eq!((layout.row_tiles, packed.len()), (1, 512 + 128));
        // Row 0, block 0 alone: lanes 0 to 3, word 0; and of the headers, the first f16 of scales and of minima.
        let is_there = |at: &usize| (at / 64 == 0 && at % 16 < 4) || [512, 513, 520, 521].contains(at);
        let stray = (0..packed.len()).find(|at| packed[*at] != 0 && !is_there(at));
        assert_eq!(stray, None);
    }

    #[test]
    fn a_row_of_no_whole_blocks_is_refused() {
        let source = PackSource { name: "odd", format: WeightFormat::Bf16, rows: 1, cols: 33, data: &[0; 66] };
        let refused = pack(&source, source.format);
        assert!(matches!(refused, Err(DeviceError::PackShape { cols: 33, multiple: 32, .. })), "{refused:?}");
    }
}
