//! Rows of activations as csrc/common/rows.cuh lays them out for linear layers without a norm, and with one.

use vitrum::kernels::params::*;

/// Every way in which a row is left.
pub(crate) const ROWS_ACTIVATIONS: [u32; 3] = [ACTIVATIONS_BF16, ACTIVATIONS_INT8, ACTIVATIONS_INT8X2];
/// What a byte that no part of the row covers holds, from the test.
const UNTOUCHED: u8 = 0xff;

/// From one row to the next.
pub(crate) fn row_bytes(cols: usize, activations: u32) -> usize {
    (cols / 32 * (value_bytes(activations) + 3 * 4)).next_multiple_of(16)
}

fn value_bytes(activations: u32) -> usize {
    if activations == ACTIVATIONS_INT8 { 32 } else { 64 }
}

/// A row; where a norm comes before the layer, times its gamma and with the squares beside it.
pub(crate) fn prepared_row(values: &[f32], gamma: Option<&[f32]>, activations: u32) -> Vec<u8> {
    let (blocks, block_bytes) = (values.len() / 32, value_bytes(activations));
    let mut row = vec![UNTOUCHED; row_bytes(values.len(), activations)];
    for (block, values) in values.chunks_exact(32).enumerate() {
        let mut values: [f32; 32] = std::array::from_fn(|k| values[k]);
        let mut write = |at: usize, value: f32| row[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        if let Some(gamma) = gamma {
            write(blocks * (block_bytes + 8) + 4 * block, lane_sum(&values.map(|value| value * value)));
            values = std::array::from_fn(|k| values[k] * gamma[32 * block + k]);
        }
        let (bytes, scale_and_sum) = block_of(&values, activations);
        if let Some((scale, sum)) = scale_and_sum {
            let at = blocks * block_bytes + 8 * block;
            write(at, scale);
            write(at + 4, sum);
        }
        row[block * block_bytes..][..block_bytes].copy_from_slice(&bytes);
    }
    row
}

/// The values' part of a block, and its scale and sum, which bf16 has not.
fn block_of(values: &[f32; 32], activations: u32) -> (Vec<u8>, Option<(f32, f32)>) {
    if activations == ACTIVATIONS_BF16 {
        // Lane t of four: values 2t, 2t + 1 of each eight.
        let order = (0..4).flat_map(|t| (0..4).flat_map(move |eight| [0, 1].map(|i| 8 * eight + 2 * t + i)));
        return (order.flat_map(|k| half::bf16::from_f32(values[k]).to_bits().to_ne_bytes()).collect(), None);
    }
    let amax = values.iter().fold(0f32, |max, value| max.max(value.abs()));
    let (scale, inverse) = if amax > 1e-30 { (amax / 127.0, 127.0 / amax) } else { (0.0, 0.0) };
    let steps = values.map(|value| value * inverse);
    let first = steps.map(f32::round_ties_even);
    let second: [f32; 32] = std::array::from_fn(|k| ((steps[k] - first[k]) * 254.0).round_ties_even());
    let fine = activations == ACTIVATIONS_INT8X2;
    let mut bytes = Vec::new();
    for t in 0..4 {
        // Lane t: values 4t .. 4t + 3, then 4t + 16 ..
        let order: Vec<usize> = (0..2).flat_map(|half| (0..4).map(move |i| 16 * half + 4 * t + i)).collect();
        bytes.extend(order.iter().map(|k| first[*k] as i8 as u8));
        if fine {
            bytes.extend(order.iter().map(|k| second[*k] as i8 as u8));
        }
    }
    let sum = first.iter().sum::<f32>() + if fine { second.iter().sum::<f32>() / 254.0 } else { 0.0 };
    (bytes, Some((scale, sum)))
}

/// The sum of 32 lanes in the order in which a warp adds them: the halves, then quarters, and so on.
fn lane_sum(values: &[f32; 32]) -> f32 {
    let mut values = *values;
    for distance in [16, 8, 4, 2, 1] {
        values = std::array::from_fn(|lane| values[lane] + values[lane ^ distance]);
    }
    values[0]
}
