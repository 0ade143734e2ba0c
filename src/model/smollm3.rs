//! SmolLM3: a Llama in which every fourth layer turns nothing.

use super::llama::{layer, tensors};
use super::{Family, ModelConfig, config, decoder, rope};
use crate::weights::{Container, Key, Keys, Value, WeightsError};

pub(super) const SMOLLM3: Family =
    Family { name: "smollm3", hf: &["SmolLM3ForCausalLM"], gguf: &["smollm3"], read, tensors, layer };

/// One number per layer: 1 where it turns queries and keys, 0 where it does not.
const TURNS: Key = Key { hf: "no_rope_layers", gguf: "" };
/// Otherwise the last of so many layers does not.
const INTERVAL: Key = Key { hf: "no_rope_layer_interval", gguf: "" };
const INTERVAL_DEFAULT: usize = 4;

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    decoder::refuse_flagged_window(keys)?;
    let mut config = config::read(SMOLLM3.name, keys, container)?;
    config.biases = decoder::read_biases(keys, container)?;
    let interval = keys.optional_size(INTERVAL, config.layers.max(INTERVAL_DEFAULT))?.unwrap_or(INTERVAL_DEFAULT);
    config.unrotated_layers = match keys.take(TURNS) {
        None => (0..config.layers).filter(|layer| (layer + 1).is_multiple_of(interval)).collect(),
        Some(turns) => unrotated(&turns, config.layers)
            .ok_or_else(|| keys.wrong(TURNS, &turns, format!("a list of {} numbers 0 or 1", config.layers)))?,
    };
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn unrotated(turns: &Value, layers: usize) -> Option<Vec<usize>> {
    let Value::List(turns) = turns else { return None };
    let is_flag = |value: &Value| [Value::Unsigned(0), Value::Unsigned(1)].contains(value);
    let unrotated = turns.iter().enumerate().filter(|(_, turns)| **turns == Value::Unsigned(0));
    (turns.len() == layers && turns.iter().all(is_flag)).then(|| unrotated.map(|(layer, _)| layer).collect())
}
