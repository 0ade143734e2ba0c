//! What the linear kernels share: phases, tiles, and the table that chooses among them.
//!
//! A linear kernel prepares its rows (norm, quantisation), multiplies, and finishes each tile of results while it is in
//! the cache (rotary embedding, SiLU, residual).

use std::ops::Range;

use super::activations::{Activations, Norm, PrepareRow};
use super::pack::format_of;
use super::{Choice, KernelFn};
use crate::device::cpu::Worker;
use crate::device::cpu::isa::{Isa, IsaChoice, LANES};
use crate::device::params::*;

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
pub(super) struct Instances {
    pub(super) alone: KernelFn,
    pub(super) together: KernelFn,
}

/// Chooses for a kernel whose tiles multiply with `matrices` weights at once; `weights` all read activations alike.
pub(super) fn choose(
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
    let activations = match weights[0].activations {
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        ACTIVATIONS_BF16 => "bf16",
        _ => "f32",
    };
    let rows = bucket.min(TILE_ROWS_MAX);
    let (run, barriers, phases) = match prepare {
        Prepare::Alone => (instances.alone, 1, "each thread prepares all rows"),
        Prepare::Together => (instances.together, 2, "rows prepared together"),
    };
    Choice {
        name: format!("{op}.{}.{activations}.{isa}", formats.join("+")),
        variant: format!("{phases}; tiles up to {} x {rows}", TILE_BLOCKS_MAX * LANES),
        barriers,
        scratch_bytes: scratch_bytes(&weights[0], matrices),
        run,
    }
}

/// A thread's scratch: rows that it prepared alone, then the results of a tile for each of `matrices` weights.
fn scratch_bytes(weight: &WeightRef, matrices: usize) -> usize {
    Activations::bytes(weight, ALONE_ROWS_MAX) + matrices * TILE_FLOATS * size_of::<f32>()
}

/// Results of a tile: (blocks, rows, 16).
pub(super) const TILE_FLOATS: usize = TILE_BLOCKS_MAX * TILE_ROWS_MAX * LANES;

/// The input of a linear kernel.
pub(super) struct Input<'a> {
    /// The first of the weights: all read activations alike.
    pub(super) weight: &'a WeightRef,
    /// Rows in this step.
    pub(super) rows: usize,
    pub(super) norm: Option<Norm>,
    /// Memory for rows that are prepared together.
    pub(super) prepared: u64,
}

impl Input<'_> {
    /// Prepares the rows, of which `row(i)` is the i-th; returns them, and this thread's memory for a tile's results.
    ///
    /// # Safety
    /// The addresses are the node's, and all threads of the pool call it.
    pub(super) unsafe fn prepare<I: Isa, const ALONE: bool>(
        &self,
        worker: &Worker,
        row: impl Fn(usize) -> *const f32,
    ) -> (Activations, *mut f32) {
        let own = worker.scratch();
        let tile = own.wrapping_add(Activations::bytes(self.weight, ALONE_ROWS_MAX)).cast();
        let base = if ALONE { own } else { self.prepared as *mut u8 };
        let to = Activations::at(base, self.weight);
        let (first, step) = if ALONE { (0, 1) } else { (worker.index(), worker.count()) };
        debug_assert!(!ALONE || self.rows <= ALONE_ROWS_MAX);
        for i in (first..self.rows).step_by(step) {
            // SAFETY: the caller's addresses; each row of `to` is written by one thread.
            unsafe { I::enter(PrepareRow { from: row(i), norm: self.norm, to, row: i }) }
        }
        if !ALONE {
            worker.barrier();
        }
        (to, tile)
    }
}

/// How a product of (blocks of 16 weight rows) × (rows of activations) is cut into tiles.
pub(super) struct Tiling {
    blocks: usize,
    rows: usize,
    block_pieces: usize,
    row_pieces: usize,
}

impl Tiling {
    pub(super) fn new(blocks: usize, rows: usize, workers: usize) -> Tiling {
        // A multiple of the workers, so that they are done at the same time if nothing disturbs them.
        let block_pieces = blocks.div_ceil(TILE_BLOCKS_MAX).next_multiple_of(workers).min(blocks);
        Tiling { blocks, rows, block_pieces, row_pieces: rows.div_ceil(TILE_ROWS_MAX) }
    }

    pub(super) fn tiles(&self) -> usize {
        self.block_pieces * self.row_pieces
    }

    /// The blocks and rows of a tile. Neighbours share their rows.
    pub(super) fn tile(&self, tile: usize) -> (Range<usize>, Range<usize>) {
        let piece = |piece: usize, pieces: usize, count: usize| piece * count / pieces..(piece + 1) * count / pieces;
        (
            piece(tile % self.block_pieces, self.block_pieces, self.blocks),
            piece(tile / self.block_pieces, self.row_pieces, self.rows),
        )
    }
}

/// Blocks of 16 rows in a matrix.
pub(super) fn row_blocks(weight: &WeightRef) -> usize {
    (weight.rows as usize).div_ceil(LANES)
}

/// `blocks` of matrices that stand one below the other: for each matrix that has some, its index and which of its own.
pub(super) fn split_blocks(weights: &[WeightRef], blocks: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
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
pub(super) fn tile_at(out: *mut f32, block: usize, row: usize, rows: usize) -> *mut f32 {
    out.wrapping_add((block * rows + row) * LANES)
}

/// Writes the first `count` of 16 lanes, or all if there are more.
#[inline(always)]
pub(super) unsafe fn store_first<I: Isa>(to: *mut f32, value: I::F32, count: usize) {
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
