//! How CUDA's kernels hold matrices: csrc/common/weights.cuh and csrc/formats, of which this is the host's side.
//!
//! Four bytes of a file's row stay together: they are what one lane holds in one register of mma's A. Packing moves
//! such groups, and the scales, to where the lanes load them. Missing rows of the last tile are zero, and so is the
//! missing second block of an odd pair.

use super::WeightFormat;
use super::quantised::BLOCK;

/// Rows of a tile: mma's M.
pub const TILE_ROWS: usize = 16;

/// What the lanes of a warp load of a tile at once.
const UNIT_BYTES: usize = 32 * LANE_BYTES;
const LANE_BYTES: usize = 16;
const F16_BYTES: usize = 2;

/// A format in CUDA's kernels: with lane = 4g + t, what lanes hold of a unit, which is what a warp loads at once.
pub(super) trait CudaFormat {
    /// Columns of a unit.
    const UNIT_COLS: usize;
    /// Bytes of f16 scales and minima, of rows g and g + 8, that belong to a lane's 16 bytes of a unit.
    const LANE_HEADER_BYTES: usize;

    /// Where in a file's row the four bytes are that a lane has in word w: of row g, in words 1 and 3 of row g + 8.
    fn word(unit: usize, t: usize, w: usize) -> usize;

    /// Where in a file's row the unit's i-th f16 is, in the order in which a lane holds them.
    fn header(_unit: usize, _i: usize) -> usize {
        unreachable!("a format without headers")
    }
}

/// A format in CUDA's kernels, as packing uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CudaLayout {
    unit_cols: usize,
    lane_header_bytes: usize,
    pack_tile: fn(&TileRows<'_>, &mut [u8], &mut [u8]),
}

impl CudaLayout {
    pub(super) const fn of<F: CudaFormat>() -> CudaLayout {
        CudaLayout { unit_cols: F::UNIT_COLS, lane_header_bytes: F::LANE_HEADER_BYTES, pack_tile: pack_tile::<F> }
    }
}

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
        WeightLayout::of(rows, cols, &layout(format))
    }

    fn of(rows: usize, cols: usize, layout: &CudaLayout) -> WeightLayout {
        assert!(cols.is_multiple_of(BLOCK), "{cols} columns");
        let (row_tiles, units) = (rows.div_ceil(TILE_ROWS), cols.div_ceil(layout.unit_cols));
        let tile_bytes = units * UNIT_BYTES;
        let header_bytes = units * 8 * layout.lane_header_bytes;
        let headers = row_tiles * tile_bytes;
        let bytes = headers + row_tiles * header_bytes;
        WeightLayout { row_tiles, blocks: cols / BLOCK, tile_bytes, header_bytes, headers, bytes }
    }
}

fn layout(format: WeightFormat) -> CudaLayout {
    format.cuda().unwrap_or_else(|| unreachable!("no kernel reads {}", format.as_str()))
}

/// The format in which the kernels read a matrix of this format in a node with others `beside` it. Kernels read f32 and
/// f16 rounded to bf16; and since the rows of a node come in one form, what is quantised beside any float is expanded,
/// and rounded likewise: a weight is off by at most 2⁻⁸ of itself.
pub fn packed_format(format: WeightFormat, beside: &[WeightFormat]) -> WeightFormat {
    let is_bf16 = |format: &WeightFormat| !format.is_quantised() || !format.is_read_by_cuda();
    if is_bf16(&format) || beside.iter().any(is_bf16) { WeightFormat::Bf16 } else { format }
}

/// Packs the rows of a file, in whole blocks of 32 columns, into the bytes of its [`WeightLayout`], in its
/// [`packed_format`].
pub fn pack(format: WeightFormat, rows: &[u8], cols: usize, to_format: WeightFormat) -> Vec<u8> {
    let row_bytes = format.row_bytes(cols);
    let to = layout(to_format);
    let layout = WeightLayout::of(rows.len() / row_bytes.max(1), cols, &to);
    let mut packed = vec![0; layout.bytes];
    if layout.blocks == 0 {
        return packed;
    }
    let (values, headers) = packed.split_at_mut(layout.headers);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (rows.len() / BYTES_PER_THREAD_MIN).clamp(1, cores);
    let tiles = layout.row_tiles.div_ceil(threads);
    let pack_tiles = &|from: &[u8], values: &mut [u8], headers: &mut [u8]| {
        let mut rounded = Vec::new();
        for (tile, from) in from.chunks(TILE_ROWS * row_bytes).enumerate() {
            let from = if to_format == format { from } else { rounded_to_bf16(format, cols, from, &mut rounded) };
            let values = &mut values[tile * layout.tile_bytes..][..layout.tile_bytes];
            let headers = &mut headers[tile * layout.header_bytes..][..layout.header_bytes];
            (to.pack_tile)(&TileRows { row_bytes: to_format.row_bytes(cols), data: from }, values, headers);
        }
    };
    std::thread::scope(|scope| {
        let (mut values, mut headers) = (values, headers);
        for from in rows.chunks(tiles * TILE_ROWS * row_bytes) {
            let tiles = tiles.min(values.len() / layout.tile_bytes);
            let (own_values, own_headers);
            (own_values, values) = values.split_at_mut(tiles * layout.tile_bytes);
            (own_headers, headers) = headers.split_at_mut(tiles * layout.header_bytes);
            let mut pack = move || pack_tiles(from, own_values, own_headers);
            if threads == 1 { pack() } else { drop(scope.spawn(pack)) }
        }
    });
    packed
}

/// Below this size a second thread costs more than it brings.
const BYTES_PER_THREAD_MIN: usize = 1 << 20;

/// Rows of any format as rows of bf16.
fn rounded_to_bf16<'a>(format: WeightFormat, cols: usize, from: &[u8], rounded: &'a mut Vec<u8>) -> &'a [u8] {
    let mut values = vec![0.0; cols];
    rounded.clear();
    for row in from.chunks_exact(format.row_bytes(cols)) {
        format.dequantise_row(row, &mut values);
        WeightFormat::Bf16.encode(&values, rounded);
    }
    rounded
}

/// Up to 16 rows of a file.
struct TileRows<'a> {
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
}

/// Values are (units, 32 lanes, 16 bytes): lane 4g + t has in word w four bytes of row g + 8 (w % 2). Headers are
/// (units, 8 g, f16 of rows g and g + 8).
fn pack_tile<F: CudaFormat>(rows: &TileRows<'_>, values: &mut [u8], headers: &mut [u8]) {
    for (unit, lanes) in values.chunks_exact_mut(UNIT_BYTES).enumerate() {
        for (lane, words) in lanes.chunks_exact_mut(LANE_BYTES).enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            for (w, word) in words.chunks_exact_mut(4).enumerate() {
                rows.copy(g + 8 * (w % 2), F::word(unit, t, w), word);
            }
        }
    }
    if F::LANE_HEADER_BYTES == 0 {
        return;
    }
    for (unit, groups) in headers.chunks_exact_mut(8 * F::LANE_HEADER_BYTES).enumerate() {
        for (g, words) in groups.chunks_exact_mut(F::LANE_HEADER_BYTES).enumerate() {
            for (i, header) in words.chunks_exact_mut(F16_BYTES).enumerate() {
                rows.copy(g + i % 2 * 8, F::header(unit, i / 2), header);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{decoded, random_rows};

    #[test]
    fn floats_and_what_is_beside_them_are_rounded_to_bf16() {
        let all = WeightFormat::ALL;
        for (format, beside) in all.into_iter().flat_map(|format| all.map(|beside| (format, beside))) {
            let to_format = packed_format(format, &[beside]);
            let is_float = [format, beside].iter().any(|format| format.block_values() == 1);
            assert_eq!(to_format, if is_float { WeightFormat::Bf16 } else { format });
            if to_format == format {
                continue;
            }
            for (rows, cols) in [(1, 32), (16, 64), (23, 96), (33, 160)] {
                let data = random_rows(format, rows, cols);
                let values = decoded(format, &data, cols);
                let mut as_bf16 = Vec::new();
                WeightFormat::Bf16.encode(&values, &mut as_bf16);
                let rounded = decoded(WeightFormat::Bf16, &as_bf16, cols);
                let off = |(value, rounded): (&f32, &f32)| (value - rounded).abs() <= value.abs() / 256.0;
                assert!(values.iter().zip(&rounded).all(off), "what is said of rounding");
                let packed = pack(format, &data, cols, to_format);
                assert!(packed == pack(to_format, &as_bf16, cols, to_format), "({rows}, {cols}) {}", format.as_str());
            }
        }
    }

    #[test]
    fn what_the_file_lacks_is_zero() {
        let (rows, cols) = (1, 32);
        let packed = pack(WeightFormat::Q4_1, &[0xa5; 20], cols, WeightFormat::Q4_1);
        let layout = WeightLayout::new(rows, cols, WeightFormat::Q4_1);
        assert_eq!((layout.row_tiles, packed.len()), (1, 512 + 128));
        // Row 0, block 0 alone: lanes 0 to 3, word 0; and of the headers, the first f16 of scales and of minima.
        let is_there = |at: &usize| (at / 64 == 0 && at % 16 < 4) || [512, 513, 520, 521].contains(at);
        let found: Vec<usize> = (0..packed.len()).filter(|at| packed[*at] != 0).collect();
        assert_eq!(found, (0..packed.len()).filter(is_there).collect::<Vec<_>>());
    }
}
