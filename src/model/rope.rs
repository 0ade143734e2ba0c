//! The table of the rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864).

use std::ops::Range;

use crate::weights::ModelConfig;

/// How far each pair turns from one position to the next.
///
/// Pair i of position p turns by p · theta^(−2i / head_dim) / factor\[i\]; the factors (1 unless the model has some)
/// are those of Llama 3's long-context scaling.
pub(super) fn frequencies(config: &ModelConfig, factors: Option<&[f32]>) -> Vec<f64> {
    let frequency = |pair: usize| {
        let exponent = -2.0 * pair as f64 / config.head_dim as f64;
        config.rope_theta.powf(exponent) / factors.map_or(1.0, |factors| f64::from(factors[pair]))
    };
    (0..config.head_dim / 2).map(frequency).collect()
}

/// cos and sin for some positions and every pair: (positions, head_dim / 2, 2).
///
/// Angles are computed in f64: at position 8,000 an f32 angle is off by 2⁻¹¹.
pub(super) fn table(frequencies: &[f64], positions: Range<usize>) -> Vec<f32> {
    let mut table = Vec::with_capacity(positions.len() * frequencies.len() * 2);
    for position in positions {
        for frequency in frequencies {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            table.extend([cos as f32, sin as f32]);
        }
    }
    table
}
