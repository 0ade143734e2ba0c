//! Granite 3, the dense ones: a Llama with four factors.

use super::llama::{layer, tensors};
use super::{Family, ModelConfig, config, decoder, rope};
use crate::weights::{Container, Key, Keys, WeightsError};

pub(super) const GRANITE: Family =
    Family { name: "granite", hf: &["GraniteForCausalLM"], gguf: &["granite"], read, tensors, layer };

const EMBEDDING_SCALE: Key = Key { hf: "embedding_multiplier", gguf: "embedding_scale" };
const ATTENTION_SCALE: Key = Key { hf: "attention_multiplier", gguf: "attention.scale" };
const RESIDUAL_SCALE: Key = Key { hf: "residual_multiplier", gguf: "residual_scale" };
/// Logits are divided by it.
const LOGIT_DIVISOR: Key = Key { hf: "logits_scaling", gguf: "logit_scale" };

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    let mut config = config::read(GRANITE.name, keys, container)?;
    config.biases = decoder::read_biases(keys, container)?;
    let mut factor = |key| keys.optional_number(key, positive, "a number above 0 that single precision has");
    config.embedding_scale = factor(EMBEDDING_SCALE)?.unwrap_or(1.0);
    config.attention_scale = factor(ATTENTION_SCALE)?.unwrap_or(1.0);
    config.residual_scale = factor(RESIDUAL_SCALE)?.unwrap_or(1.0);
    config.logit_scale = 1.0 / factor(LOGIT_DIVISOR)?.unwrap_or(1.0);
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn positive(value: f64) -> Option<f32> {
    let value = value as f32;
    (value.is_normal() && value > 0.0).then_some(value)
}
