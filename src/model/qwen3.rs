//! Qwen 3, the dense ones: a Llama whose queries and keys are normed, head by head.

use super::block::Block;
use super::decoder;
use super::tensors::TensorList;
use super::{Family, ModelConfig, config, rope};
use crate::kernels::Node;
use crate::weights::{Container, Keys, WeightsError};

pub(super) const QWEN3: Family =
    Family { name: "qwen3", hf: &["Qwen3ForCausalLM"], gguf: &["qwen3"], read, tensors, layer };

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    decoder::refuse_flagged_window(keys)?;
    let mut config = config::read(QWEN3.name, keys, container)?;
    config.biases = decoder::read_biases(keys, container)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn tensors(config: &ModelConfig, list: &mut TensorList) {
    decoder::ends(config, list);
    decoder::pre_norms(config, list);
    decoder::projections(config, list);
    decoder::biases(config, list);
    decoder::qk_norms(list, config.head_dim, config.head_dim);
    decoder::rotate(config, list);
}

fn layer(block: &Block<'_>) -> Vec<Node> {
    vec![block.norm_qkv(), block.qk_norm(), block.attention(), block.attn_out(), block.norm_gate_up(), block.mlp_down()]
}
