//! Rows of activations as linear layers read them: how many forms of them there are, and their bytes.

use super::params::*;

/// Prepared rows of activations are whole cache lines and one more: rows whose length is a power of two would otherwise
/// share cache sets.
pub(crate) const ACTIVATION_ROW_PADDING_BYTES: usize = 64;

/// In how many forms the matrices of one node read their rows: one is prepared beside the other.
pub fn activation_forms(weights: &[WeightRef]) -> usize {
    let is_first = |(i, weight): &(usize, &WeightRef)| {
        !weights[..*i].iter().any(|before| before.activations == weight.activations)
    };
    weights.iter().enumerate().filter(is_first).count()
}

/// Bytes of `rows` rows of `cols` activations in one form, whichever a device's products read.
pub fn activation_rows_bytes(rows: usize, cols: usize) -> usize {
    // f32 values, or int8 values (twice at most) with an f32 scale and up to three sums per 32: the f32 row is the
    // largest.
    rows * (cols.next_multiple_of(QUANT_BLOCK as usize) * size_of::<f32>() + ACTIVATION_ROW_PADDING_BYTES)
}
