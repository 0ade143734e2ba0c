//! Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP, no biases.

use super::block::Block;
use super::tensors::{LM_HEAD, Part, TensorList, TensorName};
use super::{Family, ModelConfig, config, rope};
use crate::kernels::Node;
use crate::weights::{Container, Key, Keys, Naming, Value, WeightsError};

pub(super) const LLAMA: Family =
    Family { name: "llama", hf: &["LlamaForCausalLM"], gguf: &["llama"], read, tensors, layer };

const ACTIVATION: Key = Key { hf: "hidden_act", gguf: "" };

/// What Llama's files may say, and other members of the family do.
const ABSENT: [Key; 5] = [
    Key { hf: "attention_bias", gguf: "" },
    Key { hf: "mlp_bias", gguf: "" },
    Key { hf: "quantization_config", gguf: "" },
    Key { hf: "sliding_window", gguf: "" },
    Key { hf: "rope_interleaved", gguf: "" },
];

const EXPERTS: Key = Key { hf: "", gguf: "expert_count" };

/// What says nothing where there are no experts.
const SILENT: [Key; 2] = [Key { hf: "is_llama_config", gguf: "" }, Key { hf: "", gguf: "expert_used_count" }];

fn read(keys: &mut Keys<'_>, container: &dyn Container) -> Result<ModelConfig, WeightsError> {
    if let Some(kind) = keys.take(ACTIVATION).filter(|kind| *kind != Value::Text("silu".to_owned())) {
        return Err(keys.unsupported(ACTIVATION, &kind));
    }
    keys.refuse(&ABSENT)?;
    if let Some(count) = keys.take(EXPERTS).filter(|count| *count != Value::Unsigned(0)) {
        return Err(keys.unsupported(EXPERTS, &count));
    }
    keys.ignore(&SILENT);
    let mut config = config::read(LLAMA.name, keys, container)?;
    rope::read_scaling(keys, &mut config)?;
    Ok(config)
}

fn tensors(config: &ModelConfig, list: &mut TensorList) {
    let &ModelConfig { hidden, ffn, vocab, .. } = config;
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let layer = [
        (Part::AttnNorm, name("input_layernorm.weight", "attn_norm.weight"), 1, hidden),
        (Part::Query, name("self_attn.q_proj.weight", "attn_q.weight"), q, hidden),
        (Part::Key, name("self_attn.k_proj.weight", "attn_k.weight"), kv, hidden),
        (Part::Value, name("self_attn.v_proj.weight", "attn_v.weight"), kv, hidden),
        (Part::AttnOut, name("self_attn.o_proj.weight", "attn_output.weight"), hidden, q),
        (Part::MlpNorm, name("post_attention_layernorm.weight", "ffn_norm.weight"), 1, hidden),
        (Part::Gate, name("mlp.gate_proj.weight", "ffn_gate.weight"), ffn, hidden),
        (Part::Up, name("mlp.up_proj.weight", "ffn_up.weight"), ffn, hidden),
        (Part::Down, name("mlp.down_proj.weight", "ffn_down.weight"), hidden, ffn),
    ];
    list.push(Part::Embedding, name("model.embed_tokens.weight", "token_embd.weight"), vocab, hidden);
    for index in 0..config.layers {
        layer.iter().for_each(|(part, name, rows, cols)| list.push_in_layer(index, *part, *name, *rows, *cols));
    }
    list.push(Part::FinalNorm, name("model.norm.weight", "output_norm.weight"), 1, hidden);
    match config.tied_embeddings {
        false => list.push(Part::LmHead, LM_HEAD, vocab, hidden),
        true => list.ignore(LM_HEAD), // the embedding once more
    }
    // GGUF's converter makes neighbours of the rows that are turned together.
    if list.naming == Naming::HuggingFace {
        list.rotate(&[Part::Query, Part::Key], config.head_dim);
    }
    list.push_optional(Part::RopeFactors, name("", "rope_freqs.weight"), 1, config.head_dim / 2);
}

const fn name(hf: &'static str, gguf: &'static str) -> TensorName {
    TensorName { hf, gguf }
}

fn layer(block: &Block<'_>) -> Vec<Node> {
    vec![block.norm_qkv(), block.attention(), block.attn_out(), block.norm_gate_up(), block.mlp_down()]
}
