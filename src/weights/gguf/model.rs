//! From `llama.*` metadata to a [`ModelConfig`], and the check that the tensors are those of that model.

use std::collections::HashMap;
use std::path::Path;

use super::metadata::Metadata;
use super::tensors::{TensorInfo, type_name};
use crate::device::WeightFormat;
use crate::weights::config::{
    DIMENSION_MAX, EPSILON_EXPECTED, LAYERS_MAX, ROPE_BASE_EXPECTED, epsilon, rope_base, size_up_to,
};
use crate::weights::{Architecture, Keys, ModelConfig, TokenizerSpec, WeightsError};

const SUPPORTED: &str = "llama";
const PREFIX: &str = "llama.";

/// Keys that are read here, or that say nothing about the computation.
const KNOWN_KEYS: [&str; 20] = [
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scaling.finetuned",
    "llama.rope.scaling.original_context_length",
    "llama.rope.scale_linear",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.vocab_size",
    "llama.tensor_data_layout",
];

const KEYS: Keys = Keys {
    hidden: "llama.embedding_length",
    ffn: "llama.feed_forward_length",
    heads: "llama.attention.head_count",
    kv_heads: "llama.attention.head_count_kv",
    head_dim: "llama.attention.key_length",
    // Whether or not there is a `llama.vocab_size`, which only says it again.
    vocab: "the number of tokenizer.ggml.tokens",
    rope_theta: "llama.rope.freq_base",
};

/// Where the width of a head is not said.
const KEYS_WITHOUT_KEY_LENGTH: Keys = Keys { head_dim: "llama.embedding_length / llama.attention.head_count", ..KEYS };

/// What the file calls the model's numbers.
pub(super) fn keys(metadata: &Metadata<'_>) -> &'static Keys {
    let says_key_length = metadata.keys(KEYS.head_dim).any(|key| key == KEYS.head_dim);
    if says_key_length { &KEYS } else { &KEYS_WITHOUT_KEY_LENGTH }
}

/// Refuses families that are not supported, before anything else is read.
pub(super) fn check_architecture(metadata: &Metadata<'_>) -> Result<(), WeightsError> {
    const KEY: &str = "general.architecture";
    match metadata.text(KEY)?.ok_or_else(|| metadata.missing(KEY))? {
        "llama" => Ok(()),
        other => Err(WeightsError::UnsupportedArchitecture {
            path: metadata.path().to_owned(),
            architecture: other.to_owned(),
            supported: SUPPORTED,
        }),
    }
}

/// Reads the model's sizes and checks the tensors against them.
pub(super) fn read(
    metadata: &Metadata<'_>,
    tensors: &HashMap<String, TensorInfo>,
    tokenizer: &TokenizerSpec,
) -> Result<ModelConfig, WeightsError> {
    refuse_unsupported(metadata)?;
    let config = read_config(metadata, tensors, tokenizer)?;
    config.check(metadata.path(), keys(metadata))?;
    check_tensors(metadata.path(), &config, tensors)?;
    Ok(config)
}

/// A parameter is honoured or refused: a key that changes the computation must not be passed over.
fn refuse_unsupported(metadata: &Metadata<'_>) -> Result<(), WeightsError> {
    let unsupported = |key: &str| WeightsError::UnsupportedKey {
        path: metadata.path().to_owned(),
        key: key.to_owned(),
        value: metadata.show(key),
    };
    if let Some(key) = metadata.keys(PREFIX).find(|key| !KNOWN_KEYS.contains(key)) {
        return Err(unsupported(key));
    }
    const SCALING: &str = "llama.rope.scaling.type";
    if metadata.text(SCALING)?.is_some_and(|kind| kind != "none") {
        return Err(unsupported(SCALING));
    }
    // 1 (and 0 in old files) says that nothing is scaled. A type of "none" overrules a factor.
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        let scaled = metadata.float(key)?.is_some_and(|factor| factor != 0.0 && factor != 1.0);
        if scaled && metadata.text(SCALING)?.is_none() {
            return Err(unsupported(key));
        }
    }
    const EXPERTS: &str = "llama.expert_count";
    if metadata.unsigned(EXPERTS)?.is_some_and(|experts| experts != 0) {
        return Err(unsupported(EXPERTS));
    }
    Ok(())
}

fn read_config(
    metadata: &Metadata<'_>,
    tensors: &HashMap<String, TensorInfo>,
    tokenizer: &TokenizerSpec,
) -> Result<ModelConfig, WeightsError> {
    let optional = |key: &str, limit: usize| -> Result<Option<usize>, WeightsError> {
        match metadata.unsigned(key)? {
            None => Ok(None),
            Some(value) if value >= 1 && value <= limit as u64 => Ok(Some(value as usize)),
            Some(_) => Err(metadata.wrong(key, size_up_to(limit))),
        }
    };
    let size = |key: &str, limit| optional(key, limit)?.ok_or_else(|| metadata.missing(key));

    let hidden = size(KEYS.hidden, DIMENSION_MAX)?;
    let heads = size(KEYS.heads, DIMENSION_MAX)?;
    let kv_heads = optional(KEYS.kv_heads, DIMENSION_MAX)?.unwrap_or(heads);
    let head_dim = match optional(KEYS.head_dim, DIMENSION_MAX)? {
        Some(key_length) => key_length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(metadata.missing(KEYS.head_dim)),
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if optional(key, DIMENSION_MAX)?.is_some_and(|length| length != head_dim) {
            return Err(metadata.wrong(key, "the width of a head: the whole head is rotated, and values are as wide"));
        }
    }
    let vocab = tokenizer.tokens.len();
    if optional("llama.vocab_size", DIMENSION_MAX)?.is_some_and(|size| size != vocab) {
        return Err(metadata.wrong("llama.vocab_size", "the number of tokenizer.ggml.tokens"));
    }
    const RMS_EPS: &str = "llama.attention.layer_norm_rms_epsilon";
    let rms_eps = epsilon(metadata.float(RMS_EPS)?.ok_or_else(|| metadata.missing(RMS_EPS))?);
    let rope_theta = rope_base(metadata.float(KEYS.rope_theta)?.unwrap_or(10_000.0));
    Ok(ModelConfig {
        architecture: Architecture::Llama,
        name: metadata.text_shown("general.name")?.unwrap_or_else(|| "unnamed".into()),
        layers: size("llama.block_count", LAYERS_MAX)?,
        hidden,
        ffn: size(KEYS.ffn, DIMENSION_MAX)?,
        heads,
        kv_heads,
        head_dim,
        vocab,
        max_position: size("llama.context_length", u32::MAX as usize)?,
        rms_eps: rms_eps.ok_or_else(|| metadata.wrong(RMS_EPS, EPSILON_EXPECTED))?,
        rope_theta: rope_theta.ok_or_else(|| metadata.wrong(KEYS.rope_theta, ROPE_BASE_EXPECTED))?,
        tied_embeddings: !tensors.contains_key("output.weight"),
        eos_tokens: tokenizer.end_tokens(),
    })
}

/// Every tensor that the model needs is there, with its shape and in a supported format; no other is.
fn check_tensors(path: &Path, config: &ModelConfig, tensors: &HashMap<String, TensorInfo>) -> Result<(), WeightsError> {
    let mut needed = config.tensors();
    if tensors.contains_key("rope_freqs.weight") {
        needed.push(config.rope_frequency_factors());
    }
    for spec in &needed {
        let Some(info) = tensors.get(&spec.name) else {
            return Err(WeightsError::MissingTensor { path: path.to_owned(), name: spec.name.clone() });
        };
        let (found_rows, found_cols) = info.shape();
        if (found_rows, found_cols) != (spec.rows as u64, spec.cols as u64) || info.dims.len() > 2 {
            let (name, rows, cols) = (spec.name.clone(), spec.rows, spec.cols);
            return Err(WeightsError::TensorShape { path: path.to_owned(), name, found_rows, found_cols, rows, cols });
        }
        supported_format(path, info)?;
    }
    if tensors.len() > needed.len() {
        let needed: std::collections::HashSet<_> = needed.iter().map(|spec| &spec.name).collect();
        let mut others: Vec<_> = tensors.keys().filter(|name| !needed.contains(name)).cloned().collect();
        others.sort_unstable();
        if !others.is_empty() {
            return Err(WeightsError::UnknownTensor { path: path.to_owned(), name: others.swap_remove(0) });
        }
    }
    Ok(())
}

/// The format of a tensor, if it can be computed with.
pub(super) fn supported_format(path: &Path, info: &TensorInfo) -> Result<WeightFormat, WeightsError> {
    let (path, name, cols) = (path.to_owned(), info.name.clone(), info.dims[0] as usize);
    match info.format() {
        None => {
            let type_name = type_name(info.type_id);
            Err(WeightsError::TensorFormat { path, name, type_id: info.type_id, type_name })
        }
        Some(format) if cols.is_multiple_of(format.block_values()) => Ok(format),
        Some(format) => Err(WeightsError::TensorBlocks { path, name, format, cols }),
    }
}
