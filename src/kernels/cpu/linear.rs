//! What the linear kernels share: phases, tiles, and the table that chooses among them.
//!
//! A linear kernel prepares its rows (norm, quantisation), multiplies, and finishes each tile of results while it is in
//! the cache (rotary embedding, SiLU, residual). Its weights may be of any formats: rows are prepared in every form
//! that one of them reads, and each meets its own, so that its results have the bits that they have beside weights like
//! it.

use std::ops::Range;
use std::os::raw::c_void;

use super::Worker;
use super::activations::{Activations, Norm, PrepareRow};
use super::weights::format_of;
use super::{Choice, KernelFn};
use crate::isa::{Isa, IsaChoice, LANES};
use crate::kernels::DevicePtr;
use crate::kernels::params::*;

/// How the rows of activations are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepare {
    /// Every thread prepares all rows for itself: no barrier inside the node.
    Alone,
    /// The threads share the rows, then meet.
    Together,
}

/// By the graph's bucket, the first line that is not below it. Preparing a row of 1000 values costs about 0.2 µs, a
/// barrier 1 µs or more, and nothing else differs: results do not depend on the line.
const PREPARE: [(usize, Prepare); 2] = [(ALONE_ROWS_MAX, Prepare::Alone), (usize::MAX, Prepare::Together)];
const ALONE_ROWS_MAX: usize = 4;

/// A tile is at most this many blocks of 16 weight rows...
const TILE_BLOCKS_MAX: usize = 8;
/// ...and this many rows of activations: they stay in the L2 cache while the weights pass.
const TILE_ROWS_MAX: usize = 64;

/// The two instances of a linear kernel.
pub(in crate::kernels) struct Instances {
    pub(in crate::kernels) alone: KernelFn,
    pub(in crate::kernels) together: KernelFn,
}

/// Chooses for a kernel whose tiles multiply with `matrices` of its weights at once.
pub(in crate::kernels) fn choose(
    op: &str,
    weights: &[WeightRef],
    matrices: usize,
    (bucket, isa): (u32, IsaChoice),
    instances: Instances,
) -> Choice {
    let bucket = bucket as usize;
    let line = PREPARE.iter().find(|(bucket_max, _)| bucket <= *bucket_max);
    let prepare = line.expect("the last line takes every bucket").1;
    let mut formats: Vec<_> = weights.iter().map(|weight| format_of(weight).as_str()).collect();
    formats.dedup();
    let mut forms: Vec<_> = weights.iter().map(|weight| form_of(weight)).collect();
    forms.dedup();
    let rows = bucket.min(TILE_ROWS_MAX);
    let (run, barriers, phases) = match prepare {
        Prepare::Alone => (instances.alone, 1, "each thread prepares all rows"),
        Prepare::Together => (instances.together, 2, "rows prepared together"),
    };
    Choice {
        name: format!("{op}.{}.{}.{isa}", formats.join("+"), forms.join("+")),
        variant: format!("{phases}; tiles up to {} x {rows}", TILE_BLOCKS_MAX * LANES),
        barriers,
        scratch_bytes: scratch_bytes(weights, matrices),
        run,
    }
}

/// The form in which a weight reads activations, as names of kernels have it.
fn form_of(weight: &WeightRef) -> &'static str {
    match weight.activations {
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        ACTIVATIONS_BF16 => "bf16",
        _ => "f32",
    }
}

/// A thread's scratch: rows that it prepared alone, then the results of a tile for each of `matrices` weights.
fn scratch_bytes(weights: &[WeightRef], matrices: usize) -> usize {
    prepared_bytes(weights, ALONE_ROWS_MAX) + matrices * TILE_FLOATS * size_of::<f32>()
}

/// The first of the weights that reads the form that this one does.
fn first_alike(weights: &[WeightRef], index: usize) -> usize {
    let alike = |weight: &WeightRef| weight.activations == weights[index].activations;
    weights.iter().position(alike).unwrap_or(index)
}

/// Bytes of `rows` rows in every form that one of the weights reads.
fn prepared_bytes(weights: &[WeightRef], rows: usize) -> usize {
    (0..weights.len())
        .filter(|&index| first_alike(weights, index) == index)
        .map(|index| Activations::bytes(&weights[index], rows))
        .sum()
}

/// Results of a tile: (blocks, rows, 16).
pub(in crate::kernels) const TILE_FLOATS: usize = TILE_BLOCKS_MAX * TILE_ROWS_MAX * LANES;

/// The input of a linear kernel.
pub(in crate::kernels) struct Input<const N: usize> {
    /// All of them have as many columns.
    pub(in crate::kernels) weights: [WeightRef; N],
    /// Rows in this step.
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) norm: Option<Norm>,
    /// Memory for rows that are prepared together.
    pub(in crate::kernels) prepared: DevicePtr<c_void>,
}

impl<const N: usize> Input<N> {
    /// Prepares the rows, of which `row(i)` is the i-th; returns them as each of the weights reads them, and this
    /// thread's memory for a tile's results.
    ///
    /// # Safety
    /// The addresses are the node's, and all threads of the pool call it.
    pub(in crate::kernels) unsafe fn prepare<I: Isa, const ALONE: bool>(
        &self,
        worker: &Worker,
        row: impl Fn(usize) -> *const f32,
    ) -> ([Activations; N], *mut f32) {
        let own = worker.scratch();
        let tile = own.wrapping_add(prepared_bytes(&self.weights, ALONE_ROWS_MAX)).cast();
        let (base, room) = if ALONE { (own, ALONE_ROWS_MAX) } else { (self.prepared.cast().as_mut_ptr(), self.rows) };
        // One form behind the other.
        let to: [Activations; N] = std::array::from_fn(|index| {
            let before = prepared_bytes(&self.weights[..first_alike(&self.weights, index)], room);
            Activations::at(base.wrapping_add(before), &self.weights[index])
        });
        let (first, step) = if ALONE { (0, 1) } else { (worker.index(), worker.count()) };
        debug_assert!(!ALONE || self.rows <= ALONE_ROWS_MAX);
        for form in (0..N).filter(|&index| first_alike(&self.weights, index) == index) {
            for i in (first..self.rows).step_by(step) {
                // SAFETY: the caller's addresses; each row of a form is written by one thread.
                unsafe { I::enter(PrepareRow { from: row(i), norm: self.norm, to: to[form], row: i }) }
            }
        }
        if !ALONE {
            worker.barrier();
        }
        (to, tile)
    }
}

/// How a product of (blocks of 16 weight rows) × (rows of activations) is cut into tiles.
pub(in crate::kernels) struct Tiling {
    blocks: usize,
    rows: usize,
    block_pieces: usize,
    row_pieces: usize,
}

impl Tiling {
    pub(in crate::kernels) fn new(blocks: usize, rows: usize, workers: usize) -> Tiling {
        // A multiple of the workers, so that they are done at the same time if nothing disturbs them.
        let block_pieces = blocks.div_ceil(TILE_BLOCKS_MAX).next_multiple_of(workers).min(blocks);
        Tiling { blocks, rows, block_pieces, row_pieces: rows.div_ceil(TILE_ROWS_MAX) }
    }

    pub(in crate::kernels) fn tiles(&self) -> usize {
        self.block_pieces * self.row_pieces
    }

    /// The blocks and rows of a tile. Neighbours share their rows.
    pub(in crate::kernels) fn tile(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let piece = |piece: usize, pieces: usize, count: usize| piece * count / pieces..(piece + 1) * count / pieces;
        (
            piece(tile % self.block_pieces, self.block_pieces, self.blocks),
            piece(tile / self.block_pieces, self.row_pieces, self.rows),
        )
    }
}

/// Blocks of 16 rows in a matrix.
pub(in crate::kernels) fn row_blocks(weight: &WeightRef) -> usize {
    (weight.rows as usize).div_ceil(LANES)
}

/// `blocks` of matrices that stand one below the other: for each matrix that has some, its index and which of its own.
pub(in crate::kernels) fn split_blocks(
    weights: &[WeightRef],
    blocks: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut first = 0;
    weights.iter().enumerate().filter_map(move |(index, weight)| {
        let all = first..first + row_blocks(weight);
        first = all.end;
        let (start, end) = (blocks.start.max(all.start), blocks.end.min(all.end));
        (start < end).then(|| (index, start - all.start..end - all.start))
    })
}

/// Where a result of a tile is: `out` is (blocks, rows, 16).
#[inline(always)]
pub(in crate::kernels) fn tile_at(out: *mut f32, block: usize, row: usize, rows: usize) -> *mut f32 {
    out.wrapping_add((block * rows + row) * LANES)
}

/// Writes the first `count` of 16 lanes, or all if there are more.
#[inline(always)]
pub(in crate::kernels) unsafe fn store_first<I: Isa>(to: *mut f32, value: I::F32, count: usize) {
    // SAFETY: the caller gives room for `count` values.
    unsafe {
        if count >= LANES {
            return I::store(to, value);
        }
        let mut values = [0.0; LANES];
        I::store(values.as_mut_ptr(), value);
        std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_lie_one_behind_the_other() {
        let weight = |activations| WeightRef { cols: 64, activations, ..WeightRef::default() };
        let [int8, int8x2, bf16, f32] =
            [ACTIVATIONS_INT8, ACTIVATIONS_INT8X2, ACTIVATIONS_BF16, ACTIVATIONS_F32].map(weight);
        let bytes = |weight: &WeightRef| Activations::bytes(weight, 3);
        assert_eq!(prepared_bytes(&[int8x2, int8x2, int8x2], 3), bytes(&int8x2), "alike: once");
        assert_eq!(prepared_bytes(&[f32, int8, f32], 3), bytes(&f32) + bytes(&int8));
        assert_eq!(prepared_bytes(&[bf16, int8x2, f32], 3), bytes(&bf16) + bytes(&int8x2) + bytes(&f32));
        assert_eq!([0, 1, 2].map(|index| first_alike(&[f32, int8, f32], index)), [0, 1, 0]);
        assert_eq!([0, 1, 2].map(|index| first_alike(&[f32, bf16, bf16], index)), [0, 1, 1]);
    }

    #[test]
    fn tiles_cover_everything_once() {
        for (blocks, rows, workers) in [(1, 1, 2), (60, 1, 2), (36, 65, 3), (7, 512, 16), (3072, 4, 2), (5, 0, 2)] {
            let tiling = Tiling::new(blocks, rows, workers);
            let mut seen = vec![0; blocks * rows];
            for tile in 0..tiling.tiles() {
                let (tile_blocks, tile_rows) = tiling.tile(tile);
                assert!((1..=TILE_BLOCKS_MAX).contains(&tile_blocks.len()), "{blocks} x {rows}: {tile_blocks:?}");
                assert!((1..=TILE_ROWS_MAX).contains(&tile_rows.len()), "{blocks} x {rows}: {tile_rows:?}");
                for block in tile_blocks {
                    tile_rows.clone().for_each(|row| seen[block * rows + row] += 1);
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{blocks} x {rows}, {workers} workers");
        }
    }

    #[test]
    fn blocks_are_split_by_matrix() {
        let matrix = |rows| WeightRef { rows, ..WeightRef::default() };
        let weights = [matrix(33), matrix(16), matrix(17)]; // 3, 1 and 2 blocks
        let split = |range| split_blocks(&weights, range).collect::<Vec<_>>();
        assert_eq!(split(0..6), [(0, 0..3), (1, 0..1), (2, 0..2)]);
        assert_eq!(split(2..5), [(0, 2..3), (1, 0..1), (2, 0..1)]);
        assert_eq!(split(3..4), [(1, 0..1)]);
    }
}
