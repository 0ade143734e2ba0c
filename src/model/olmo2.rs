//! OLMo 2: norms behind attention and MLP, none in front; queries and keys are normed, all heads together.

use super::block::Block;
use super::decoder::{self, name};
use super::tensors::{Part, TensorList};
use super::{Family, ModelConfig, config, rope};
use crate::kernels::Node;
use crate::weights::{Container, Keys, WeightsError};

pub(super) const OLMO2: Family =
    Family { name: "olmo2", hf: &["Olmo2ForCausalLM"], gguf: &["olmo2"], read, tensors, layer };

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    decoder::refuse_others(keys)?;
    let mut config = config::read(OLMO2.name, keys, container)?;
    config.biases = decoder::read_biases(keys, container)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn tensors(config: &ModelConfig, list: &mut TensorList) {
    let behind_attention = name("post_attention_layernorm.weight", "post_attention_norm.weight");
    let behind_mlp = name("post_feedforward_layernorm.weight", "post_ffw_norm.weight");
    decoder::ends(config, list);
    decoder::projections(config, list);
    decoder::biases(config, list);
    decoder::qk_norms(list, config.heads * config.head_dim, config.kv_heads * config.head_dim);
    list.push_in_layers(Part::AttnPostNorm, behind_attention, 1, config.hidden);
    list.push_in_layers(Part::MlpPostNorm, behind_mlp, 1, config.hidden);
    decoder::rotate(config, list);
}

fn layer(block: &Block<'_>) -> Vec<Node> {
    vec![
        block.norm_qkv(),
        block.qk_norm(),
        block.attention(),
        block.attn_out(),
        block.attn_post_norm(),
        block.norm_gate_up(),
        block.mlp_down(),
        block.mlp_post_norm(),
    ]
}
