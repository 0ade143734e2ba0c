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

const FAST: Key = Key { hf: "beta_fast", gguf: "rope.scaling.yarn_beta_fast" };
const SLOW: Key = Key { hf: "beta_slow", gguf: "rope.scaling.yarn_beta_slow" };
const ATTENTION_FACTOR: Key = Key { hf: "attention_factor", gguf: "rope.scaling.attn_factor" };
const OWN_LENGTH: Key = Key { hf: "", gguf: "rope.scaling.yarn_attn_factor" };
const MSCALE: Key = Key { hf: "mscale", gguf: "" };
const MSCALE_ALL: Key = Key { hf: "mscale_all_dim", gguf: "" };
const TRUNCATE: Key = Key { hf: "truncate", gguf: "" };

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
        // Files have the kind under its old name, its new one, or under both.
        let (kind, old_kind) = (scaling.take(KIND), scaling.take(OLD_KIND));
        if let Some(old) = old_kind.as_ref().filter(|old| kind.as_ref().is_some_and(|kind| kind != *old)) {
            return Err(scaling.wrong(OLD_KIND, old, "the same as rope_type"));
        }
        let kind = kind.or(old_kind).ok_or_else(|| scaling.missing(KIND))?;
        match &kind {
            Value::Text(kind) if kind == "default" => {}
            Value::Text(kind) if kind == "linear" => config.rope_factors = Some(linear_factors(&mut scaling, config)?),
            Value::Text(kind) if kind == "llama3" => config.rope_factors = Some(llama3_factors(&mut scaling, config)?),
            Value::Text(kind) if kind == "yarn" => read_yarn(&mut scaling, keys.take(TRAINED), config)?,
            kind => return Err(scaling.unsupported(KIND, kind)),
        }
        return scaling.finish();
    }
    if keys.naming() == Naming::Gguf { read_gguf_scaling(keys, config) } else { Ok(()) }
}

/// A type of "none" overrules a factor; a factor of 1 (and 0 in old files) says that nothing is scaled.
fn read_gguf_scaling(keys: &mut Keys<'_>, config: &mut ModelConfig) -> Result<(), WeightsError> {
    let kind = keys.optional_text(KIND)?;
    match kind.as_deref() {
        Some("linear") => {
            config.rope_factors = Some(linear_factors(keys, config)?);
            keys.ignore(&[FINETUNED, TRAINED]);
            return Ok(());
        }
        Some("yarn") => {
            keys.ignore(&[FINETUNED]);
            return read_yarn(keys, None, config);
        }
        _ => {}
    }
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

/// Every frequency is divided by the same.
fn linear_factors(keys: &mut Keys<'_>, config: &ModelConfig) -> Result<Vec<f32>, WeightsError> {
    Ok(vec![keys.number(FACTOR, factor, FACTOR_EXPECTED)? as f32; config.head_dim / 2])
}

fn factor(value: f64) -> Option<f64> {
    (1.0..=f64::from(f32::MAX)).contains(&value).then_some(value)
}

const FACTOR_EXPECTED: &str = "a factor of at least 1 that single precision has";

/// YaRN (Peng et al., arXiv 2309.00071): pairs that turn often within the trained length stay, those that turn seldom
/// are divided by the factor, those between are interpolated; and what is turned becomes longer. `trained` is what the
/// file says of the trained length outside of the table, which goes before what the table says.
fn read_yarn(keys: &mut Keys<'_>, trained: Option<Value>, config: &mut ModelConfig) -> Result<(), WeightsError> {
    let positive = |value: f64| (value.is_finite() && value > 0.0).then_some(value);
    let mut optional = |key| keys.optional_number(key, positive, "a number above 0");
    let (fast, slow) = (optional(FAST)?.unwrap_or(32.0), optional(SLOW)?.unwrap_or(1.0));
    let (length, own_length) = (optional(ATTENTION_FACTOR)?, optional(OWN_LENGTH)?);
    let (mscale, mscale_all) = (optional(MSCALE)?, optional(MSCALE_ALL)?);
    let own_trained = keys.optional_size(TRAINED, u32::MAX as usize)?;
    let trained = match trained {
        Some(Value::Unsigned(length @ 1..)) => length as f64,
        _ => own_trained.unwrap_or(config.max_position) as f64,
    };
    let truncates = keys.flag(TRUNCATE, true)?;
    let factor = keys
        .optional_number(FACTOR, factor, FACTOR_EXPECTED)?
        .unwrap_or((config.max_position as f64 / trained).max(1.0));
    let (dim, pairs) = (config.head_dim as f64, config.head_dim / 2);
    // The pair that turns so many times within the trained length.
    let pair_of = |turns: f64| dim * (trained / (TAU * turns)).ln() / (2.0 * config.rope_theta.ln());
    let (mut low, mut high) = (pair_of(fast), pair_of(slow));
    if truncates {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001; // as transformers has it
    }
    let divisor = |pair: usize| {
        let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / (ramp / factor + 1.0 - ramp)
    };
    config.rope_factors = Some((0..pairs).map(|pair| divisor(pair) as f32).collect());
    let grown = |weight: f64| 0.1 * weight * factor.ln() + 1.0;
    let ratio = mscale.zip(mscale_all).map(|(one, all)| grown(one) / grown(all));
    config.rope_length = length.or(own_length).or(ratio).unwrap_or(grown(1.0)) as f32;
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

/// cos and sin for some positions and every pair, times `length`: (positions, head_dim / 2, 2).
///
/// Angles are computed in f64: at position 8,000 an f32 angle is off by 2⁻¹¹.
pub(super) fn table(frequencies: &[f64], positions: Range<usize>, length: f32) -> Vec<f32> {
    let mut table = Vec::with_capacity(positions.len() * frequencies.len() * 2);
    for position in positions {
        for frequency in frequencies {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            table.extend([cos as f32 * length, sin as f32 * length]);
        }
    }
    table
}
