//! Packed weight matrices, as kernels find them: their bytes are the format's own (src/formats).

use crate::formats::WeightFormat;
use crate::formats::cpu::PackedRow;
use crate::isa::LANES;
use crate::kernels::params::WeightRef;

/// The format of a packed matrix.
pub(in crate::kernels) fn format_of(weight: &WeightRef) -> WeightFormat {
    WeightFormat::from_u32(weight.format).expect("a packed weight has a known format")
}

/// Reads row `row` of a packed matrix back, as f32, into `out`.
///
/// # Safety
/// `weight` was packed by the CPU device, has such a row, and `out` has room for its columns.
#[inline(always)]
pub(in crate::kernels) unsafe fn unpack_row(weight: &WeightRef, row: usize, out: *mut f32) {
    let (format, cols) = (format_of(weight), weight.cols as usize);
    let rows = weight.data.cast::<u8>().as_ptr().wrapping_add(row / LANES * format.cpu_bytes(cols));
    // SAFETY: these 16 rows are part of the packed matrix; `out` has room for the columns.
    unsafe { format.unpack_row(&PackedRow { rows, lane: row % LANES, cols, out }) }
}
