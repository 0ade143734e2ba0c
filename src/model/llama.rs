//! Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP. Mistral and Falcon 3 are Llamas.

use super::block::Block;
use super::tensors::TensorList;
use super::{Family, ModelConfig, config, decoder, rope};
use crate::kernels::Node;
use crate::weights::{Container, Key, Keys, Naming, WeightsError};

pub(super) const LLAMA: Family =
    Family { name: "llama", hf: &["LlamaForCausalLM", "MistralForCausalLM"], gguf: &["llama"], read, tensors, layer };

const WINDOW: [Key; 1] = [Key { hf: "sliding_window", gguf: "" }];
const SILENT: [Key; 1] = [Key { hf: "is_llama_config", gguf: "" }];

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    keys.refuse(&WINDOW)?;
    keys.ignore(&SILENT);
    let mut config = config::read(LLAMA.name, keys, container)?;
    config.biases = decoder::read_biases(keys, container)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

pub(super) fn tensors(config: &ModelConfig, list: &mut TensorList) {
    decoder::ends(config, list);
    decoder::pre_norms(config, list);
    decoder::projections(config, list);
    decoder::biases(config, list);
    // GGUF's converter makes neighbours of the rows that are turned together.
    if list.naming == Naming::HuggingFace {
        decoder::rotate(config, list);
    }
}

pub(super) fn layer(block: &Block<'_>) -> Vec<Node> {
    vec![block.norm_qkv(), block.attention(), block.attn_out(), block.norm_gate_up(), block.mlp_down()]
}
