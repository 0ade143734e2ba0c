//! Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP. Mistral and Falcon 3 are Llamas.

use super::block::Block;
use super::decoder::{self, name};
use super::tensors::{Part, TensorList};
use super::{Family, ModelConfig, config, rope};
use crate::kernels::Node;
use crate::weights::{Container, Key, Keys, Naming, WeightsError};

pub(super) const LLAMA: Family =
    Family { name: "llama", hf: &["LlamaForCausalLM", "MistralForCausalLM"], gguf: &["llama"], read, tensors, layer };

const ATTENTION_BIAS: Key = Key { hf: "attention_bias", gguf: "" };
const MLP_BIAS: Key = Key { hf: "mlp_bias", gguf: "" };
const WINDOW: [Key; 1] = [Key { hf: "sliding_window", gguf: "" }];
const SILENT: [Key; 1] = [Key { hf: "is_llama_config", gguf: "" }];

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    keys.refuse(&WINDOW)?;
    keys.ignore(&SILENT);
    let mut config = config::read(LLAMA.name, keys, container)?;
    config.biases.attention = keys.flag(ATTENTION_BIAS, false)?;
    config.biases.mlp = keys.flag(MLP_BIAS, false)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

pub(super) fn tensors(config: &ModelConfig, list: &mut TensorList) {
    decoder::ends(config, list);
    decoder::pre_norms(config, list);
    decoder::projections(config, list);
    if config.biases.attention {
        decoder::qkv_biases(config, list);
        list.push_in_layers(Part::AttnOutBias, name("self_attn.o_proj.bias", "attn_output.bias"), 1, config.hidden);
    }
    if config.biases.mlp {
        list.push_in_layers(Part::GateBias, name("mlp.gate_proj.bias", "ffn_gate.bias"), 1, config.ffn);
        list.push_in_layers(Part::UpBias, name("mlp.up_proj.bias", "ffn_up.bias"), 1, config.ffn);
        list.push_in_layers(Part::DownBias, name("mlp.down_proj.bias", "ffn_down.bias"), 1, config.hidden);
    }
    // GGUF's converter makes neighbours of the rows that are turned together.
    if list.naming == Naming::HuggingFace {
        decoder::rotate(config, list);
    }
}

pub(super) fn layer(block: &Block<'_>) -> Vec<Node> {
    vec![block.norm_qkv(), block.attention(), block.attn_out(), block.norm_gate_up(), block.mlp_down()]
}
