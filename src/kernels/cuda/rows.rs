//! Rows of activations as the products read them: csrc/common/rows.cuh, of which this is the host's side.
//!
//! Kernels write and read these rows. The host sizes them; and it writes and reads them where a kernel is tried alone.

use crate::kernels::params::*;

const QUANT: usize = QUANT_BLOCK as usize;
const F32_BYTES: usize = 4;

/// Blocks whose largest magnitude is not above this are zero: 127 / amax must not overflow.
const SMALLEST_AMAX: f32 = 1e-30;
/// What rounding to the nearest integer leaves is within ±½: times this it fills an int8.
const RESIDUAL_STEPS: f32 = 254.0;

/// Where the parts of a row are: `rows_layout` in csrc/common/rows.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsLayout {
    /// `ACTIVATIONS_*`, but f32.
    pub activations: u32,
    /// Blocks of 32 values.
    pub blocks: usize,
    /// Bytes of a block's values.
    pub block_bytes: usize,
    /// Where scales and sums begin.
    pub scales: usize,
    /// Where squares begin.
    pub squares: usize,
    /// From one row to the next.
    pub row_bytes: usize,
}

impl RowsLayout {
    /// Of rows of a multiple of 32 values.
    pub fn new(cols: usize, activations: u32) -> RowsLayout {
        assert!(cols.is_multiple_of(QUANT), "{cols} values");
        assert_ne!(activations, ACTIVATIONS_F32, "the kernels read rounded activations");
        let blocks = cols / QUANT;
        let block_bytes = if activations == ACTIVATIONS_INT8 { 32 } else { 64 };
        let (scales, part) = (blocks * block_bytes, blocks * F32_BYTES);
        let row_bytes = (scales + 3 * part).next_multiple_of(16);
        RowsLayout { activations, blocks, block_bytes, scales, squares: scales + 2 * part, row_bytes }
    }

    /// Where in a block's values the bytes of value `k` are: of the first rounding, and of the second.
    fn places(&self, k: usize) -> [usize; 2] {
        let within = k / 16 * 4 + k % 4;
        match self.activations {
            ACTIVATIONS_BF16 => [k % 8 / 2 * 16 + k / 8 * 4 + k % 2 * 2; 2],
            ACTIVATIONS_INT8 => [k % 16 / 4 * 8 + within; 2],
            _ => [k % 16 / 4 * 16 + within, k % 16 / 4 * 16 + 8 + within],
        }
    }

    /// Writes a row of the residual stream, or with `gamma` = `None` of anything else, as the kernels do, bit by bit.
    pub fn encode(&self, values: &[f32], gamma: Option<&[f32]>, row: &mut [u8]) {
        assert_eq!((values.len(), row.len()), (self.blocks * QUANT, self.row_bytes));
        for (block, values) in values.chunks_exact(QUANT).enumerate() {
            let mut values: [f32; QUANT] = values.try_into().expect("a whole block");
            if let Some(gamma) = gamma {
                put(row, self.squares + block * F32_BYTES, warp_sum(values.map(|value| value * value)));
                let gamma = &gamma[block * QUANT..][..QUANT];
                values.iter_mut().zip(gamma).for_each(|(value, gamma)| *value *= gamma);
            }
            self.encode_block(block, &values, row);
        }
    }

    fn encode_block(&self, block: usize, values: &[f32; QUANT], row: &mut [u8]) {
        let at = block * self.block_bytes;
        if self.activations == ACTIVATIONS_BF16 {
            for (k, value) in values.iter().enumerate() {
                let bytes = half::bf16::from_f32(*value).to_le_bytes();
                row[at + self.places(k)[0]..][..2].copy_from_slice(&bytes);
            }
            return;
        }
        let amax = values.iter().fold(0f32, |max, value| max.max(value.abs()));
        let (scale, inverse) = if amax > SMALLEST_AMAX { (amax / 127.0, 127.0 / amax) } else { (0.0, 0.0) };
        let steps = values.map(|value| value * inverse);
        let first = steps.map(f32::round_ties_even);
        let second: [f32; QUANT] = std::array::from_fn(|k| ((steps[k] - first[k]) * RESIDUAL_STEPS).round_ties_even());
        let mut sum = warp_sum(first);
        for k in 0..QUANT {
            let [first_at, second_at] = self.places(k);
            row[at + first_at] = first[k] as i8 as u8;
            if self.activations == ACTIVATIONS_INT8X2 {
                row[at + second_at] = second[k] as i8 as u8;
            }
        }
        if self.activations == ACTIVATIONS_INT8X2 {
            sum += warp_sum(second) / RESIDUAL_STEPS;
        }
        put(row, self.scales + 2 * block * F32_BYTES, scale);
        put(row, self.scales + (2 * block + 1) * F32_BYTES, sum);
    }

    /// The values that the products read a row as.
    pub fn decode(&self, row: &[u8]) -> Vec<f64> {
        let value = |block: usize, k: usize| {
            let values = &row[block * self.block_bytes..][..self.block_bytes];
            let [first, second] = self.places(k);
            if self.activations == ACTIVATIONS_BF16 {
                return half::bf16::from_le_bytes([values[first], values[first + 1]]).to_f64();
            }
            let scale = f64::from(get(row, self.scales + 2 * block * F32_BYTES));
            let residual = if self.activations == ACTIVATIONS_INT8X2 { f64::from(values[second] as i8) } else { 0.0 };
            scale * (f64::from(values[first] as i8) + residual / f64::from(RESIDUAL_STEPS))
        };
        (0..self.blocks).flat_map(|block| (0..QUANT).map(move |k| value(block, k))).collect()
    }

    /// The sums of each block's values, in steps of its scale. bf16 has none.
    pub fn sums(&self, row: &[u8]) -> Vec<f32> {
        (0..self.blocks).map(|block| get(row, self.scales + (2 * block + 1) * F32_BYTES)).collect()
    }

    /// The sums of each block's squares, before gamma.
    pub fn squares(&self, row: &[u8]) -> Vec<f32> {
        (0..self.blocks).map(|block| get(row, self.squares + block * F32_BYTES)).collect()
    }
}

fn put(row: &mut [u8], at: usize, value: f32) {
    row[at..][..F32_BYTES].copy_from_slice(&value.to_le_bytes());
}

fn get(row: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(row[at..][..F32_BYTES].try_into().expect("four bytes"))
}

/// The sum of a block in the order in which the lanes of a warp add.
fn warp_sum(mut lanes: [f32; QUANT]) -> f32 {
    for distance in [16, 8, 4, 2, 1] {
        lanes = std::array::from_fn(|lane| lanes[lane] + lanes[lane ^ distance]);
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [u32; 3] = [ACTIVATIONS_BF16, ACTIVATIONS_INT8, ACTIVATIONS_INT8X2];

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * (1.0 + (i / 32) as f32)).collect()
    }

    #[test]
    fn decoded_values_are_near_and_sums_are_theirs() {
        for activations in FORMS {
            let layout = RowsLayout::new(96, activations);
            let (values, gamma) = (values(96), vec![0.5; 96]);
            let mut row = vec![0xff; layout.row_bytes];
            layout.encode(&values, Some(&gamma), &mut row);
            let decoded = layout.decode(&row);
            let steps = match activations {
                ACTIVATIONS_BF16 => 256.0,
                ACTIVATIONS_INT8 => 2.0 * 127.0,
                _ => 2.0 * 127.0 * 253.0,
            };
            for (block, (got, want)) in decoded.chunks_exact(32).zip(values.chunks_exact(32)).enumerate() {
                let want: Vec<f64> = want.iter().map(|value| 0.5 * f64::from(*value)).collect();
                let amax = want.iter().fold(0f64, |max, value| max.max(value.abs()));
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= amax / steps, "{activations}: {got} and not {want}");
                }
                let squares: f64 = want.iter().map(|value| 4.0 * value * value).sum();
                assert!((f64::from(layout.squares(&row)[block]) / squares - 1.0).abs() < 1e-6);
                if activations != ACTIVATIONS_BF16 {
                    let sum = got.iter().sum::<f64>() / (amax / 127.0);
                    assert!((f64::from(layout.sums(&row)[block]) - sum).abs() < 1e-3, "{activations}: {sum}");
                }
            }
        }
    }

    #[test]
    fn every_value_has_bytes_of_its_own() {
        for activations in FORMS {
            let layout = RowsLayout::new(32, activations);
            let mut bytes: Vec<usize> = (0..32).flat_map(|k| layout.places(k)).collect();
            if activations == ACTIVATIONS_BF16 {
                bytes.extend((0..32).map(|k| layout.places(k)[0] + 1));
            }
            bytes.sort_unstable();
            bytes.dedup();
            assert_eq!(bytes, (0..layout.block_bytes).collect::<Vec<_>>(), "{activations}");
        }
    }

    #[test]
    fn small_blocks_are_zero() {
        let layout = RowsLayout::new(32, ACTIVATIONS_INT8X2);
        let mut row = vec![0xff; layout.row_bytes];
        layout.encode(&[1e-31; 32], None, &mut row);
        assert_eq!(layout.decode(&row), [0.0; 32]);
        assert_eq!(layout.sums(&row), [0.0]);
    }
}
