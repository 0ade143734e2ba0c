//! What the families of dense decoders have in common: names and shapes of tensors, keys that say what a family has
//! not.

use super::tensors::{LM_HEAD, Part, TensorList, TensorName};
use super::{Biases, ModelConfig};
use crate::weights::{Container, Key, Keys, Naming, Value, WeightsError};

pub(super) const ATTN_NORM: TensorName = name("input_layernorm.weight", "attn_norm.weight");
pub(super) const MLP_NORM: TensorName = name("post_attention_layernorm.weight", "ffn_norm.weight");

const QUERY_BIAS: TensorName = name("self_attn.q_proj.bias", "attn_q.bias");
const UP_BIAS: TensorName = name("mlp.up_proj.bias", "ffn_up.bias");

const ATTENTION_BIAS: Key = Key { hf: "attention_bias", gguf: "" };
const MLP_BIAS: Key = Key { hf: "mlp_bias", gguf: "" };
const ACTIVATION: Key = Key { hf: "hidden_act", gguf: "" };
const EXPERTS: Key = Key { hf: "", gguf: "expert_count" };
const LAYER_TYPES: Key = Key { hf: "layer_types", gguf: "" };

/// Windows as Qwen and SmolLM3 say them: the width counts only where the flag does.
const USES_WINDOW: Key = Key { hf: "use_sliding_window", gguf: "" };
const WINDOW: [Key; 2] = [Key { hf: "sliding_window", gguf: "" }, Key { hf: "max_window_layers", gguf: "" }];

/// What no family here has.
const ABSENT: [Key; 2] = [Key { hf: "quantization_config", gguf: "" }, Key { hf: "rope_interleaved", gguf: "" }];

/// What says nothing where there are no experts.
const SILENT: [Key; 1] = [Key { hf: "", gguf: "expert_used_count" }];

pub(super) const fn name(hf: &'static str, gguf: &'static str) -> TensorName {
    TensorName { hf, gguf }
}

/// Refuses what dense decoders with a SiLU-gated MLP have not.
pub(super) fn refuse_others(keys: &mut Keys<'_>) -> Result<(), WeightsError> {
    if let Some(kind) = keys.take(ACTIVATION).filter(|kind| *kind != Value::Text("silu".to_owned())) {
        return Err(keys.unsupported(ACTIVATION, &kind));
    }
    keys.refuse(&ABSENT)?;
    if let Some(count) = keys.take(EXPERTS).filter(|count| *count != Value::Unsigned(0)) {
        return Err(keys.unsupported(EXPERTS, &count));
    }
    let is_full = |kind: &Value| *kind == Value::Text("full_attention".to_owned());
    match keys.take(LAYER_TYPES) {
        Some(Value::List(kinds)) if kinds.iter().all(is_full) => {}
        Some(kinds) => return Err(keys.unsupported(LAYER_TYPES, &kinds)),
        None => {}
    }
    keys.ignore(&SILENT);
    Ok(())
}

/// Reads a window that is off unless a flag says that it is on; there is none here.
pub(super) fn refuse_flagged_window(keys: &mut Keys<'_>) -> Result<(), WeightsError> {
    keys.refuse(&[USES_WINDOW])?;
    keys.ignore(&WINDOW);
    Ok(())
}

/// Reads which projections have biases. A GGUF file says it by its tensors.
pub(super) fn read_biases(keys: &mut Keys<'_>, container: &dyn Container) -> Result<Biases, WeightsError> {
    let is_there = |name: TensorName| keys.naming() == Naming::Gguf && container.has(&format!("blk.0.{}", name.gguf));
    let (attention, mlp) = (is_there(QUERY_BIAS), is_there(UP_BIAS));
    Ok(Biases { attention: keys.flag(ATTENTION_BIAS, attention)?, mlp: keys.flag(MLP_BIAS, mlp)? })
}

/// Embedding, final norm and vocabulary projection.
pub(super) fn ends(config: &ModelConfig, list: &mut TensorList) {
    let &ModelConfig { hidden, vocab, .. } = config;
    list.push(Part::Embedding, name("model.embed_tokens.weight", "token_embd.weight"), vocab, hidden);
    list.push(Part::FinalNorm, name("model.norm.weight", "output_norm.weight"), 1, hidden);
    match config.tied_embeddings {
        false => list.push(Part::LmHead, LM_HEAD, vocab, hidden),
        true => list.ignore(LM_HEAD), // the embedding once more
    }
    list.push_optional(Part::RopeFactors, name("", "rope_freqs.weight"), 1, config.head_dim / 2);
}

/// The matrices of all layers, each projection a tensor of its own.
pub(super) fn projections(config: &ModelConfig, list: &mut TensorList) {
    let &ModelConfig { hidden, ffn, .. } = config;
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    list.push_in_layers(Part::Query, name("self_attn.q_proj.weight", "attn_q.weight"), q, hidden);
    list.push_in_layers(Part::Key, name("self_attn.k_proj.weight", "attn_k.weight"), kv, hidden);
    list.push_in_layers(Part::Value, name("self_attn.v_proj.weight", "attn_v.weight"), kv, hidden);
    list.push_in_layers(Part::AttnOut, name("self_attn.o_proj.weight", "attn_output.weight"), hidden, q);
    list.push_in_layers(Part::Gate, name("mlp.gate_proj.weight", "ffn_gate.weight"), ffn, hidden);
    list.push_in_layers(Part::Up, name("mlp.up_proj.weight", "ffn_up.weight"), ffn, hidden);
    list.push_in_layers(Part::Down, name("mlp.down_proj.weight", "ffn_down.weight"), hidden, ffn);
}

/// The norms in front of attention and MLP.
pub(super) fn pre_norms(config: &ModelConfig, list: &mut TensorList) {
    list.push_in_layers(Part::AttnNorm, ATTN_NORM, 1, config.hidden);
    list.push_in_layers(Part::MlpNorm, MLP_NORM, 1, config.hidden);
}

/// The biases that the config says there are.
pub(super) fn biases(config: &ModelConfig, list: &mut TensorList) {
    if config.biases.attention {
        qkv_biases(config, list);
        list.push_in_layers(Part::AttnOutBias, name("self_attn.o_proj.bias", "attn_output.bias"), 1, config.hidden);
    }
    if config.biases.mlp {
        list.push_in_layers(Part::GateBias, name("mlp.gate_proj.bias", "ffn_gate.bias"), 1, config.ffn);
        list.push_in_layers(Part::UpBias, UP_BIAS, 1, config.ffn);
        list.push_in_layers(Part::DownBias, name("mlp.down_proj.bias", "ffn_down.bias"), 1, config.hidden);
    }
}

/// The biases of query, key and value.
pub(super) fn qkv_biases(config: &ModelConfig, list: &mut TensorList) {
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    list.push_in_layers(Part::QueryBias, QUERY_BIAS, 1, q);
    list.push_in_layers(Part::KeyBias, name("self_attn.k_proj.bias", "attn_k.bias"), 1, kv);
    list.push_in_layers(Part::ValueBias, name("self_attn.v_proj.bias", "attn_v.bias"), 1, kv);
}

/// The gains of the norm of queries and keys, which have so many values.
pub(super) fn qk_norms(list: &mut TensorList, query: usize, key: usize) {
    list.push_in_layers(Part::QueryNorm, name("self_attn.q_norm.weight", "attn_q_norm.weight"), 1, query);
    list.push_in_layers(Part::KeyNorm, name("self_attn.k_norm.weight", "attn_k_norm.weight"), 1, key);
}

/// What is turned by the rotary embedding, as Hugging Face's models turn it.
pub(super) fn rotate(config: &ModelConfig, list: &mut TensorList) {
    let turned = [Part::Query, Part::Key, Part::QueryBias, Part::KeyBias, Part::QueryNorm, Part::KeyNorm];
    list.rotate(&turned, config.head_dim);
}
