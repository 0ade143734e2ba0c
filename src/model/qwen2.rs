//! Qwen 2 and 2.5: a Llama whose queries, keys and values have biases.

use super::decoder;
use super::llama::layer;
use super::tensors::TensorList;
use super::{Family, ModelConfig, config, rope};
use crate::weights::{Container, Key, Keys, WeightsError};

pub(super) const QWEN2: Family =
    Family { name: "qwen2", hf: &["Qwen2ForCausalLM"], gguf: &["qwen2"], read, tensors, layer };

/// Of the sibling that sees.
const ABSENT: [Key; 1] = [Key { hf: "use_mrope", gguf: "" }];

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    decoder::refuse_flagged_window(keys)?;
    keys.refuse(&ABSENT)?;
    let mut config = config::read(QWEN2.name, keys, container)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn tensors(config: &ModelConfig, list: &mut TensorList) {
    decoder::ends(config, list);
    decoder::pre_norms(config, list);
    decoder::projections(config, list);
    decoder::qkv_biases(config, list);
    decoder::rotate(config, list);
}
