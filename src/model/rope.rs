//! The table of the rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864).

use crate::weights::ModelConfig;

/// cos and sin for every position and pair: (positions, head_dim / 2, 2).
///
/// Pair i of position p turns by p · theta^(−2i / head_dim) / factor\[i\]; the factors (1 unless the model has some)
/// are those of Llama 3's long-context scaling. Angles are computed in f64: at position 8,000 an f32 angle is off by
/// 2⁻¹¹.
pub(super) fn table(config: &ModelConfig, positions: usize, factors: Option<&[f32]>) -> Vec<f32> {
    let pairs = config.head_dim / 2;
    let frequency = |pair: usize| {
        let exponent = -2.0 * pair as f64 / config.head_dim as f64;
        config.rope_theta.powf(exponent) / factors.map_or(1.0, |factors| f64::from(factors[pair]))
    };
    let frequencies: Vec<f64> = (0..pairs).map(frequency).collect();
    let mut table = Vec::with_capacity(positions * pairs * 2);
    for position in 0..positions {
        for frequency in &frequencies {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            table.extend([cos as f32, sin as f32]);
        }
    }
    table
}
