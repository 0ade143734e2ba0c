//! The product of packed weights and prepared activations: what every linear layer's time goes into.
//!
//! A tile of 16 weight rows × M activation rows stays in registers while the columns go by. Each output has one
//! accumulator and takes its columns in ascending order, so a row's result does not depend on M or on other rows.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers at once")]

use std::ops::Range;

use super::activations::{Activations, RESIDUAL_STEPS};
use super::weights::format_of;
use crate::formats::cpu::{FloatWeights, Multiply, QuantisedWeights};
use crate::isa::{Body, Isa, LANES};
use crate::kernels::params::*;

const QUANT: usize = QUANT_BLOCK as usize;

/// How far ahead of its use a weight is asked for: the hardware does not look beyond a page.
const PREFETCH_BYTES: usize = 2048;
const CACHE_LINE_BYTES: usize = 64;

/// The product of some row blocks of a weight matrix and some rows of activations.
pub(in crate::kernels) struct Product {
    pub(in crate::kernels) weight: WeightRef,
    /// Blocks of 16 weight rows.
    pub(in crate::kernels) blocks: Range<usize>,
    pub(in crate::kernels) activations: Activations,
    pub(in crate::kernels) rows: Range<usize>,
    /// (blocks, rows, 16) f32
    pub(in crate::kernels) out: *mut f32,
}

impl Body for Product {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // SAFETY: the caller gives a packed weight, its blocks, rows prepared for it, and room for the results.
        unsafe {
            format_of(&self.weight).multiply::<I>(&self, self.activations.kind == ACTIVATIONS_BF16);
        }
    }
}

/// Calls `$call::<…, M>` with M = `$count`, for a count that the instruction set has registers for.
macro_rules! with_rows {
    ($count:expr, $most:expr, $M:ident => $call:expr) => {
        match $count {
            1 => with_rows!(@ 1, $M, $call),
            2 => with_rows!(@ 2, $M, $call),
            3 => with_rows!(@ 3, $M, $call),
            4 => with_rows!(@ 4, $M, $call),
            5 if $most >= 5 => with_rows!(@ 5, $M, $call),
            6 if $most >= 6 => with_rows!(@ 6, $M, $call),
            7 if $most >= 7 => with_rows!(@ 7, $M, $call),
            8 if $most >= 8 => with_rows!(@ 8, $M, $call),
            count => unreachable!("{count} rows of at most {}", $most),
        }
    };
    (@ $value:literal, $M:ident, $call:expr) => {{
        const $M: usize = $value;
        $call
    }};
}

impl Multiply for Product {
    #[inline(always)]
    unsafe fn quantised<I: Isa, W: QuantisedWeights>(&self) {
        // SAFETY: see `run`.
        unsafe {
            match self.activations.kind {
                ACTIVATIONS_INT8X2 => self.quantised_tiles::<I, W, 2>(),
                _ => self.quantised_tiles::<I, W, 1>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn float<I: Isa, W: FloatWeights>(&self) {
        let mut block = self.blocks.start;
        while block < self.blocks.end {
            // A single row is one chain of multiply-adds per block: several blocks at once hide their latency.
            let together = self.rows.len() == 1 && block + SINGLE_ROW_BLOCKS <= self.blocks.end;
            for rows in Self::pieces(&self.rows, I::F32_ROWS) {
                // SAFETY: see `run`.
                unsafe {
                    if together {
                        self.float_tile::<I, W, SINGLE_ROW_BLOCKS, 1>(block, rows.start);
                    } else {
                        with_rows!(rows.len(), I::F32_ROWS, M => self.float_tile::<I, W, 1, M>(block, rows.start));
                    }
                }
            }
            block += if together { SINGLE_ROW_BLOCKS } else { 1 };
        }
    }
}

impl Product {
    /// Pieces of `rows` of nearly equal size, at most `most` each.
    #[inline(always)]
    fn pieces(rows: &Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
        let (first, count) = (rows.start, rows.len());
        let pieces = count.div_ceil(most);
        (0..pieces).map(move |piece| first + piece * count / pieces..first + (piece + 1) * count / pieces)
    }

    /// Where the results of a block and a row go.
    #[inline(always)]
    fn out(&self, block: usize, row: usize) -> *mut f32 {
        let at = (block - self.blocks.start) * self.rows.len() + (row - self.rows.start);
        self.out.wrapping_add(at * LANES)
    }

    #[inline(always)]
    unsafe fn quantised_tiles<I: Isa, W: QuantisedWeights, const PLANES: usize>(&self) {
        let columns = self.activations.cols / QUANT;
        for block in self.blocks.clone() {
            let weights = self.weight.data.cast::<u8>().as_ptr().wrapping_add(block * columns * W::BYTES);
            for rows in Self::pieces(&self.rows, I::INT8_ROWS) {
                let out = self.out(block, rows.start);
                // SAFETY: see `run`.
                with_rows!(rows.len(), I::INT8_ROWS, M => unsafe {
                    quantised_tile::<I, W, PLANES, M>(weights, &self.activations, rows.start, out)
                });
            }
        }
    }

    /// R × 16 weight rows × M activation rows.
    #[inline(always)]
    unsafe fn float_tile<I: Isa, W: FloatWeights, const R: usize, const M: usize>(&self, block: usize, row: usize) {
        let pairs = self.activations.cols.div_ceil(2);
        let stride = pairs * W::PAIR_BYTES;
        let weights = self.weight.data.cast::<u8>().as_ptr().wrapping_add(block * stride);
        let mut a = [self.activations.row(row).cast_const(); M];
        for m in 1..M {
            a[m] = self.activations.row(row + m);
        }
        // SAFETY: see `run`: `pairs` pairs of columns of R blocks and of M rows.
        unsafe {
            let mut acc = [[I::splat(0.0); M]; R];
            for pair in 0..pairs {
                for r in 0..R {
                    let weights = weights.add(r * stride + pair * W::PAIR_BYTES);
                    if M <= 2 {
                        prefetch::<I>(weights.wrapping_add(PREFETCH_BYTES), W::PAIR_BYTES);
                    }
                    acc[r] = W::multiply_add::<I, M>(weights, a, acc[r]);
                }
                for m in 0..M {
                    a[m] = a[m].wrapping_add(W::ACTIVATION_PAIR_BYTES);
                }
            }
            for r in 0..R {
                for m in 0..M {
                    I::store(self.out(block + r, row + m), acc[r][m]);
                }
            }
        }
    }
}

/// Row blocks that a single row of activations goes through at once.
const SINGLE_ROW_BLOCKS: usize = 4;

#[inline(always)]
unsafe fn prefetch<I: Isa>(from: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(CACHE_LINE_BYTES) {
        // SAFETY: a prefetch may ask for any address.
        unsafe { I::prefetch(from.wrapping_add(at)) }
    }
}

/// 16 weight rows × M activation rows in 1 or 2 planes of int8, from `row` on; `out` is (M, 16).
#[inline(always)]
unsafe fn quantised_tile<I: Isa, W: QuantisedWeights, const PLANES: usize, const M: usize>(
    weights: *const u8,
    activations: &Activations,
    row: usize,
    out: *mut f32,
) {
    let columns = activations.cols / QUANT;
    let mut a = [std::ptr::null::<i8>(); M];
    let mut scales = [std::ptr::null::<f32>(); M];
    for m in 0..M {
        a[m] = activations.row(row + m).cast_const().cast();
        scales[m] = activations.scales(row + m, PLANES);
    }
    // SAFETY: the caller gives `columns` blocks of weights, M prepared rows, and room for M × 16 results.
    unsafe {
        let mut acc = [I::splat(0.0); M];
        for column in 0..columns {
            let block = weights.add(column * W::BYTES);
            if M <= 2 {
                prefetch::<I>(block.wrapping_add(PREFETCH_BYTES), W::BYTES);
            }
            let mut dots = [I::splat(0.0); M];
            // What rounding left first, so that the larger part is added to it.
            for plane in (0..PLANES).rev() {
                let (mut values, mut sums) = (a, [0; M]);
                for m in 0..M {
                    values[m] = a[m].add(plane * activations.cols);
                    sums[m] = scales[m].add((2 + plane) * columns + column).cast::<i32>().read();
                }
                let products = W::dot::<I, M>(block, values, sums);
                for m in 0..M {
                    dots[m] = match (PLANES, plane) {
                        (1, _) => products[m],
                        (_, 1) => I::mul(products[m], I::splat(1.0 / RESIDUAL_STEPS)),
                        _ => I::add(dots[m], products[m]),
                    };
                }
            }
            let (d, minimum) = W::scales::<I>(block);
            for m in 0..M {
                let scale = I::splat(scales[m].add(column).read());
                acc[m] = I::fma(dots[m], I::mul(d, scale), acc[m]);
                if let Some(minimum) = minimum {
                    acc[m] = I::fma(minimum, I::splat(scales[m].add(columns + column).read()), acc[m]);
                }
                a[m] = a[m].add(QUANT);
            }
        }
        for m in 0..M {
            I::store(out.add(m * LANES), acc[m]);
        }
    }
}
