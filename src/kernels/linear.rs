//! What the linear ops share: the cost of a weight, and the scalar reference of norm, rounded activations and product.

use crate::formats::WeightFormat;
use crate::kernels::DevicePtr;
use crate::kernels::params::*;
use crate::trace::schema::{Cost, LinearCost};

/// Bytes of one f32.
pub(super) const F32_BYTES: f64 = 4.0;

/// Bytes of a whole weight matrix, as its format stores it.
pub(super) fn weight_bytes(weight: &WeightRef) -> f64 {
    (weight.rows as usize * weight_row_bytes(weight)) as f64
}

/// Bytes of one row of a weight matrix.
pub(super) fn weight_row_bytes(weight: &WeightRef) -> usize {
    let format = WeightFormat::from_u32(weight.format).expect("a packed weight has a known format");
    format.row_bytes(weight.cols as usize)
}

/// Multiply-adds of a row of activations with a weight matrix, counted as two.
pub(super) fn product_flops(weight: &WeightRef) -> f64 {
    2.0 * f64::from(weight.rows) * f64::from(weight.cols)
}

/// A cost of `constant_bytes` for every step, and of `row_bytes` and `row_flops` for each row of the forward graph.
pub(super) fn cost_per_token(constant_bytes: f64, row_bytes: f64, row_flops: f64) -> Cost {
    Cost {
        bytes: LinearCost { constant: constant_bytes, tokens: row_bytes, ..LinearCost::default() },
        flops: LinearCost { tokens: row_flops, ..LinearCost::default() },
    }
}

/// How many norms these gains are of: one, or none.
pub(super) fn norm_count(gamma: DevicePtr<f32>) -> f64 {
    f64::from(u8::from(!gamma.is_null()))
}

/// How many biases are added to each output: one, or none.
pub(super) fn bias_count(bias: DevicePtr<f32>) -> f64 {
    f64::from(u8::from(!bias.is_null()))
}

/// The weights of one node multiply the same rows.
pub(super) fn assert_same_input(op: &str, weights: &[&WeightRef]) {
    let same = weights.iter().all(|weight| weight.cols == weights[0].cols);
    assert!(same, "{op}: weights of one node multiply the same rows: {weights:?}");
}

/// A matrix of the references: (rows, cols), row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Its values, expanded from the file's format.
    pub values: &'a [f32],
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
}

/// x / sqrt(mean(x²) + eps) · gamma
pub fn rms_norm(x: &[f32], gamma: &[f32], eps: f32) -> Vec<f64> {
    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let rms = (squares / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter().zip(gamma).map(|(x, gamma)| f64::from(*x) / rms * f64::from(*gamma)).collect()
}

/// The same where there are gains, and else x.
pub fn normed(x: &[f32], gamma: Option<&[f32]>, eps: f32) -> Vec<f64> {
    match gamma {
        Some(gamma) => rms_norm(x, gamma, eps),
        None => x.iter().map(|x| f64::from(*x)).collect(),
    }
}

/// Adds a bias, if there is one.
pub fn add_bias(mut values: Vec<f64>, bias: Option<&[f32]>) -> Vec<f64> {
    values.iter_mut().zip(bias.into_iter().flatten()).for_each(|(value, bias)| *value += f64::from(*bias));
    values
}

/// A row as the linear layer reads it, for each of `ACTIVATIONS_*`.
pub fn round_activations(row: &[f64], activations: u32) -> Vec<f64> {
    match activations {
        ACTIVATIONS_INT8 => {
            row.chunks(QUANT_BLOCK as usize).flat_map(|block| quantise(block, f64::round_ties_even)).collect()
        }
        ACTIVATIONS_INT8X2 => row.chunks(QUANT_BLOCK as usize).flat_map(|block| quantise(block, round_twice)).collect(),
        ACTIVATIONS_BF16 => row.iter().map(|x| half::bf16::from_f64(*x).to_f64()).collect(),
        _ => row.to_vec(),
    }
}

/// A block in steps of its largest magnitude / 127.
fn quantise(block: &[f64], round: impl Fn(f64) -> f64) -> Vec<f64> {
    let amax = block.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    // Blocks below 1e-30 are zero: kernels compute 127 / amax in f32.
    let scale = if amax > 1e-30 { amax / 127.0 } else { return vec![0.0; block.len()] };
    block.iter().map(|x| round(x / scale) * scale).collect()
}

/// To an integer, and what that left in steps of 1/254: within ±127 of them.
fn round_twice(x: f64) -> f64 {
    let nearest = x.round_ties_even();
    nearest + ((x - nearest) * 254.0).round_ties_even() / 254.0
}

/// The product of a weight matrix with one row.
pub fn product(weight: &Matrix<'_>, row: &[f64]) -> Vec<f64> {
    let dot = |weights: &[f32]| weights.iter().zip(row).map(|(w, x)| f64::from(*w) * x).sum();
    weight.values.chunks_exact(weight.cols).map(dot).collect()
}
