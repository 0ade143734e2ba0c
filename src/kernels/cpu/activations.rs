//! The input rows of a linear layer, prepared: normalised, and brought into the form that its weights read.
//!
//! A prepared row is one of
//! - `ACTIVATIONS_F32`: f32 values, padded with a zero to an even number;
//! - `ACTIVATIONS_BF16`: the same in bf16;
//! - `ACTIVATIONS_INT8`: (cols) int8 q, (cols / 32) f32 scales s, (cols / 32) f32 s·Σq, (cols / 32) i32 Σq;
//! - `ACTIVATIONS_INT8X2`: (2, cols) int8 q and r, (cols / 32) f32 scales s, (cols / 32) f32 s·Σ(q + r/254),
//!   (2, cols / 32) i32 Σq and Σr. A value is s·(q + r/254): q is the nearest int8, r what that rounding left.

use crate::isa::{Body, Isa, LANES};
use crate::kernels::DevicePtr;
use crate::kernels::params::*;
use crate::kernels::rows::{ACTIVATION_ROW_PADDING_BYTES, activation_rows_bytes};

const QUANT: usize = QUANT_BLOCK as usize;

/// Blocks whose largest magnitude is below this are zero: 127 / amax must not overflow.
const SMALLEST_AMAX: f32 = 1e-30;

/// Where prepared rows lie.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Activations {
    base: *mut u8,
    row_bytes: usize,
    /// Values per row.
    pub(in crate::kernels) cols: usize,
    /// `ACTIVATIONS_*`
    pub(in crate::kernels) kind: u32,
}

impl Activations {
    /// Rows for `weight` at `base`, which is aligned to 64 bytes.
    pub(in crate::kernels) fn at(base: *mut u8, weight: &WeightRef) -> Activations {
        let cols = weight.cols as usize;
        Activations { base, row_bytes: row_bytes(cols, weight.activations), cols, kind: weight.activations }
    }

    /// Bytes of `rows` rows for `weight`.
    pub(in crate::kernels) fn bytes(weight: &WeightRef, rows: usize) -> usize {
        let bytes = rows * row_bytes(weight.cols as usize, weight.activations);
        debug_assert!(bytes <= activation_rows_bytes(rows, weight.cols as usize));
        bytes
    }

    /// A prepared row.
    #[inline(always)]
    pub(in crate::kernels) fn row(&self, row: usize) -> *mut u8 {
        self.base.wrapping_add(row * self.row_bytes)
    }

    /// The scales of a row of int8 values in `planes`; the row's sums with scale follow after `cols / 32`, its integer
    /// sums after twice that.
    #[inline(always)]
    pub(in crate::kernels) fn scales(&self, row: usize, planes: usize) -> *mut f32 {
        self.row(row).wrapping_add(planes * self.cols).cast()
    }
}

/// Rows are padded to whole cache lines, and so that rows whose length is a power of two do not share cache sets.
fn row_bytes(cols: usize, kind: u32) -> usize {
    let bytes = match kind {
        ACTIVATIONS_INT8 => cols + cols / QUANT * 12,
        ACTIVATIONS_INT8X2 => 2 * cols + cols / QUANT * 16,
        ACTIVATIONS_BF16 => cols.next_multiple_of(2) * 2,
        _ => cols.next_multiple_of(2) * 4,
    };
    bytes.next_multiple_of(ACTIVATION_ROW_PADDING_BYTES) + ACTIVATION_ROW_PADDING_BYTES
}

/// The norm before a linear layer: x / sqrt(mean(x²) + eps) · gamma.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Norm {
    pub(in crate::kernels) gamma: *const f32,
    pub(in crate::kernels) eps: f32,
}

impl Norm {
    /// Of these gains; none of none.
    pub(in crate::kernels) fn of(gamma: DevicePtr<f32>, eps: f32) -> Option<Norm> {
        (!gamma.is_null()).then(|| Norm { gamma: gamma.as_ptr(), eps })
    }
}

/// Prepares one row.
pub(in crate::kernels) struct PrepareRow {
    /// (cols) f32
    pub(in crate::kernels) from: *const f32,
    pub(in crate::kernels) norm: Option<Norm>,
    pub(in crate::kernels) to: Activations,
    /// Which row of `to`.
    pub(in crate::kernels) row: usize,
}

impl Body for PrepareRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // SAFETY: the caller gives a row of `cols` values, as many of gamma, and room for the prepared row.
        unsafe {
            let input = Input::<I>::new(&self);
            match self.to.kind {
                ACTIVATIONS_INT8 => quantise_row::<I, 1>(&input, &self.to, self.row),
                ACTIVATIONS_INT8X2 => quantise_row::<I, 2>(&input, &self.to, self.row),
                ACTIVATIONS_BF16 => bf16_row(&input, self.to.row(self.row).cast()),
                _ => f32_row(&input, self.to.row(self.row).cast()),
            }
        }
    }
}

/// A row as it is read: values come normalised.
struct Input<I: Isa> {
    from: *const f32,
    cols: usize,
    norm: Option<(I::F32, *const f32)>,
}

impl<I: Isa> Input<I> {
    #[inline(always)]
    unsafe fn new(row: &PrepareRow) -> Input<I> {
        let mut input = Input { from: row.from, cols: row.to.cols, norm: None };
        if let Some(norm) = row.norm {
            // SAFETY: the caller gives a row of `cols` values.
            unsafe {
                let mut squares = I::splat(0.0);
                for k in (0..input.cols).step_by(LANES) {
                    let x = input.values(k);
                    squares = I::fma(x, x, squares);
                }
                let mean = I::sum_lanes(squares) / input.cols as f32;
                input.norm = Some((I::splat(1.0 / (mean + norm.eps).sqrt()), norm.gamma));
            }
        }
        input
    }

    /// Values k..k + 16; zero beyond the row's end.
    #[inline(always)]
    unsafe fn values(&self, k: usize) -> I::F32 {
        // SAFETY: the caller gives k < cols.
        unsafe {
            let x = load_first::<I>(self.from.add(k), self.cols - k);
            match self.norm {
                Some((inverse_rms, gamma)) => {
                    I::mul(I::mul(x, inverse_rms), load_first::<I>(gamma.add(k), self.cols - k))
                }
                None => x,
            }
        }
    }
}

/// The first 16 of `count` values; zero beyond them.
#[inline(always)]
pub(in crate::kernels) unsafe fn load_first<I: Isa>(from: *const f32, count: usize) -> I::F32 {
    // SAFETY: the caller gives `count` values.
    unsafe {
        if count >= LANES {
            return I::load(from);
        }
        let mut values = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
        I::load(values.as_ptr())
    }
}

/// What is left of rounding to the nearest integer is within ±½: times this it fills an int8.
pub(in crate::kernels) const RESIDUAL_STEPS: f32 = 254.0;

/// Quantises a row to int8, and with two planes what that rounding left.
#[inline(always)]
unsafe fn quantise_row<I: Isa, const PLANES: usize>(input: &Input<I>, to: &Activations, row: usize) {
    let blocks = input.cols / QUANT;
    // SAFETY: the caller gives room for the row; cols is a multiple of 32.
    unsafe {
        let integers = to.row(row).cast::<i8>();
        let scales = to.scales(row, PLANES);
        let sums = scales.add(2 * blocks).cast::<i32>();
        for block in 0..blocks {
            let k = block * QUANT;
            let (a, b) = (input.values(k), input.values(k + LANES));
            let amax = I::max_lane(I::max(magnitude::<I>(a), magnitude::<I>(b)));
            let (scale, inverse) = if amax > SMALLEST_AMAX { (amax / 127.0, 127.0 / amax) } else { (0.0, 0.0) };
            let inverse = I::splat(inverse);
            let (a, b) = (I::mul(a, inverse), I::mul(b, inverse));
            let (qa, qb) = (I::round(a), I::round(b));
            I::store_i8(integers.add(k), qa);
            I::store_i8(integers.add(k + LANES), qb);
            let mut sum = I::sum_lanes(I::add(qa, qb));
            sums.add(block).write(sum as i32);
            if PLANES == 2 {
                let steps = I::splat(RESIDUAL_STEPS);
                let ra = I::round(I::mul(I::sub(a, qa), steps));
                let rb = I::round(I::mul(I::sub(b, qb), steps));
                I::store_i8(integers.add(input.cols + k), ra);
                I::store_i8(integers.add(input.cols + k + LANES), rb);
                let left = I::sum_lanes(I::add(ra, rb));
                sums.add(blocks + block).write(left as i32);
                sum += left / RESIDUAL_STEPS;
            }
            scales.add(block).write(scale);
            scales.add(blocks + block).write(scale * sum);
        }
    }
}

#[inline(always)]
unsafe fn magnitude<I: Isa>(a: I::F32) -> I::F32 {
    // SAFETY: the caller runs where the processor has the set.
    unsafe { I::max(a, I::sub(I::splat(0.0), a)) }
}

#[inline(always)]
unsafe fn f32_row<I: Isa>(input: &Input<I>, to: *mut f32) {
    for k in (0..input.cols).step_by(LANES) {
        // SAFETY: rows are padded to whole cache lines, so that 16 values have room.
        unsafe { I::store(to.add(k), input.values(k)) }
    }
}

#[inline(always)]
unsafe fn bf16_row<I: Isa>(input: &Input<I>, to: *mut u16) {
    for k in (0..input.cols).step_by(LANES) {
        // SAFETY: rows are padded to whole cache lines, so that 16 values have room.
        unsafe { I::store_bf16(to.add(k), input.values(k)) }
    }
}
