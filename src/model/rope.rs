//! The rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864): how files say it, and its table.

use std::f64::consts::TAU;
use std::ops::Range;

use super::ModelConfig;
use crate::weights::{Key, Keys, Naming, Value, WeightsError};

/// Base of the angles.
pub(super) const THETA: Key = Key { hf: "rope_theta", gguf: "rope.freq_base" };

const KIND: Key = Key { hf: "rope_type", gguf: "rope.scaling.type" };
const OLD_KIND: Key = Key { hf: "type", gguf: "" };
const FACTOR: Key = Key { hf: "factor", gguf: "rope.scaling.factor" };
const LOW: Key = Key { hf: "low_freq_factor", gguf: "" };
const HIGH: Key = Key { hf: "high_freq_factor", gguf: "" };
const TRAINED: Key = Key { hf: "original_max_position_embeddings", gguf: "rope.scaling.original_context_length" };

/// Only in files of Hugging Face: tables of these fields. The later name has the base, too.
const TABLES: [Key; 2] = [Key { hf: "rope_scaling", gguf: "" }, Key { hf: "rope_parameters", gguf: "" }];

/// Only in GGUF files.
const OLD_FACTOR: Key = Key { hf: "", gguf: "rope.scale_linear" };
const FINETUNED: Key = Key { hf: "", gguf: "rope.scaling.finetuned" };

/// The base of the angles, if it can be one.
pub(super) fn base(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

/// What [`base`] takes.
pub(super) const BASE_EXPECTED: &str = "a number above 0";

/// Reads how the embedding is scaled, into the config. In a GGUF file, tensor `rope_freqs.weight` says it instead.
pub(super) fn read_scaling(keys: &mut Keys<'_>, config: &mut ModelConfig) -> Result<(), WeightsError> {
    for table in TABLES {
        let Some(mut scaling) = keys.table(table)? else { continue };
        if let Some(theta) = scaling.optional_number(THETA, base, BASE_EXPECTED)? {
            config.rope_theta = theta;
        }
        let kind = scaling.take(KIND).or_else(|| scaling.take(OLD_KIND)).ok_or_else(|| scaling.missing(KIND))?;
        match &kind {
            Value::Text(kind) if kind == "default" => {}
            Value::Text(kind) if kind == "llama3" => config.rope_factors = Some(llama3_factors(&mut scaling, config)?),
            kind => return Err(scaling.unsupported(KIND, kind)),
        }
        return scaling.finish();
    }
    if keys.naming() == Naming::Gguf { read_gguf_scaling(keys) } else { Ok(()) }
}

/// A type of "none" overrules a factor; a factor of 1 (and 0 in old files) says that nothing is scaled.
fn read_gguf_scaling(keys: &mut Keys<'_>) -> Result<(), WeightsError> {
    let kind = keys.optional_text(KIND)?;
    if let Some(kind) = kind.as_deref().filter(|kind| *kind != "none") {
        return Err(keys.unsupported(KIND, &Value::Text(kind.to_owned())));
    }
    for key in [FACTOR, OLD_FACTOR] {
        let factor = keys.optional_number(key, Some, "a finite number")?;
        let scales = factor.filter(|factor| *factor != 0.0 && *factor != 1.0);
        if let Some(factor) = scales.filter(|_| kind.is_none()) {
            return Err(keys.unsupported(key, &Value::Float(factor)));
        }
    }
    keys.ignore(&[FINETUNED, TRAINED]);
    Ok(())
}

/// Llama 3.1's rule: low frequencies are divided by `factor`, high ones stay, those between are interpolated.
fn llama3_factors(keys: &mut Keys<'_>, config: &ModelConfig) -> Result<Vec<f32>, WeightsError> {
    let mut number = |key| keys.number(key, Some, "a number");
    let (factor, low, high) = (number(FACTOR)?, number(LOW)?, number(HIGH)?);
    let trained = keys.size(TRAINED, u32::MAX as usize)? as f64;
    if !((1.0..=f64::from(f32::MAX)).contains(&factor) && low > 0.0 && high > low) {
        let value = Value::List([factor, low, high].map(Value::Float).to_vec());
        let factors = Key { hf: "factors", gguf: "" };
        return Err(keys.wrong(factors, &value, "a factor of at least 1 that f32 has, and 0 < low < high"));
    }
    let pairs = config.head_dim / 2;
    let divisor = |pair: usize| {
        let wavelength = TAU * config.rope_theta.powf(pair as f64 / pairs as f64);
        if wavelength < trained / high {
            1.0
        } else if wavelength > trained / low {
            factor
        } else {
            let smooth = (trained / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..pairs).map(|pair| divisor(pair) as f32).collect())
}

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
