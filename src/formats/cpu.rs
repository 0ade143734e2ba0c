//! How the CPU's kernels hold and read a format.
//!
//! A packed matrix is cut into blocks of 16 rows (the lanes of a vector), each one contiguous run in the order in which
//! the kernels read it:
//! - quantised: for each 32 columns the 16 × 32 integers as `Isa::dot_nibbles` or `Isa::dot_bytes` want them, then 16
//!   f16 scales d, then, if the format has them, 16 f16 minima m ([`quantised`](super::quantised));
//! - f32 and f16: for each column 16 values. bf16: for each pair of columns 16 pairs, so that a vector of pairs feeds a
//!   bf16 dot product, and a shift or a mask of it is one column ([`floats`](super::floats)).
//!
//! Missing rows of the last block, and the missing column of an odd pair, are zero.
//!
//! Everything here is `#[inline(always)]`: see [`Body`](crate::isa::Body).

use super::quantised::BLOCK;
use crate::isa::Isa;

/// A row of a packed matrix, and where it is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRow {
    /// The 16 rows that it is one of.
    pub(crate) rows: *const u8,
    /// Which.
    pub(crate) lane: usize,
    /// Its values.
    pub(crate) cols: usize,
    /// Room for as many.
    pub(crate) out: *mut f32,
}

/// A format in the CPU's kernels.
pub(crate) trait CpuFormat {
    /// Reads a packed row back, as f32.
    ///
    /// # Safety
    /// The row is one of 16 that were packed in this format, with so many columns, and `out` has room for them.
    unsafe fn unpack_row(row: &PackedRow);

    /// Calls the product with the type of weights that meets its rows: of bf16 where `bf16` says so, of int8 where the
    /// format is quantised, else of f32.
    ///
    /// # Safety
    /// The product's own conditions hold for a matrix that was packed in this format.
    unsafe fn multiply<I: Isa>(product: &impl Multiply, bf16: bool);
}

/// A product, written once for all formats of a kind.
pub(crate) trait Multiply {
    /// With rows of int8.
    ///
    /// # Safety
    /// The weights were packed as `W` reads them, and the rows are int8.
    unsafe fn quantised<I: Isa, W: QuantisedWeights>(&self);

    /// With rows of f32 or bf16.
    ///
    /// # Safety
    /// The weights were packed as `W` reads them, and the rows are what it reads.
    unsafe fn float<I: Isa, W: FloatWeights>(&self);
}

/// 16 rows × 32 columns of quantised weights.
pub(crate) trait QuantisedWeights {
    /// Their bytes.
    const BYTES: usize;

    /// Integer products with M rows of activations; `sums` are the sums of the activations.
    ///
    /// # Safety
    /// `block` is a packed block of this format, and each of `a` points at 32 values.
    unsafe fn dot<I: Isa, const M: usize>(block: *const u8, a: [*const i8; M], sums: [i32; M]) -> [I::F32; M];

    /// Scale d and, unless values are d·q alone, minimum m.
    ///
    /// # Safety
    /// `block` is a packed block of this format.
    unsafe fn scales<I: Isa>(block: *const u8) -> (I::F32, Option<I::F32>);

    /// The 32 values of one row.
    ///
    /// # Safety
    /// `block` is a packed block of this format, `lane` one of its 16 rows, and `out` has room for 32 values.
    unsafe fn unpack(block: *const u8, lane: usize, out: *mut f32);
}

/// 16 rows × 2 columns of floating-point weights.
pub(crate) trait FloatWeights {
    /// Their bytes.
    const PAIR_BYTES: usize;
    /// Bytes of two activations.
    const ACTIVATION_PAIR_BYTES: usize;

    /// Adds the products with M pairs of activations.
    ///
    /// # Safety
    /// `weights` are two packed columns of 16 rows, and each of `a` points at two activations.
    unsafe fn multiply_add<I: Isa, const M: usize>(
        weights: *const u8,
        a: [*const u8; M],
        acc: [I::F32; M],
    ) -> [I::F32; M];
}

impl<W: QuantisedWeights> CpuFormat for W {
    #[inline(always)]
    unsafe fn unpack_row(row: &PackedRow) {
        for block in 0..row.cols / BLOCK {
            // SAFETY: the caller gives so many blocks of 16 rows, and room for as many of one row.
            unsafe { W::unpack(row.rows.add(block * W::BYTES), row.lane, row.out.add(block * BLOCK)) }
        }
    }

    #[inline(always)]
    unsafe fn multiply<I: Isa>(product: &impl Multiply, _bf16: bool) {
        // SAFETY: the caller's; rows that meet quantised weights are int8.
        unsafe { product.quantised::<I, W>() }
    }
}
