//! The shape of a model, and how its file says it: the keys that dense decoders have in common.

use super::rope;
use super::tensors::LM_HEAD;
use crate::weights::{Container, DIMENSION_MAX, Key, Keys, Naming, TokenizerSpec, Value, WeightsError};

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family's name.
    pub family: &'static str,
    /// The name that the file gives itself.
    pub name: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest sequence that the model was trained for.
    pub max_position: usize,
    /// Epsilon of the RMS norms.
    pub rms_eps: f32,
    /// Base of the rotary embedding's angles.
    pub rope_theta: f64,
    /// What the rotary embedding's frequencies are divided by, one factor per pair, if a key says so.
    pub rope_factors: Option<Vec<f32>>,
    /// How long a turned pair is of one of length 1.
    pub rope_length: f32,
    /// Which projections have biases, where a key says so.
    pub biases: Biases,
    /// Layers whose queries and keys are not turned; none of most models.
    pub unrotated_layers: Vec<usize>,
    /// What the scores of attention are multiplied by.
    pub attention_scale: f32,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// What a layer's two results are multiplied by before they are added to the residual stream.
    pub residual_scale: f32,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// The vocabulary projection is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end a sequence.
    pub eos_tokens: Vec<u32>,
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// All four of attention.
    pub attention: bool,
    /// All three of the MLP.
    pub mlp: bool,
}

/// What a file calls the sizes of its model, for errors.
#[derive(Debug)]
pub(super) struct SizeNames {
    pub(super) hidden: String,
    pub(super) ffn: String,
    pub(super) heads: String,
    pub(super) head_dim: String,
    pub(super) vocab: String,
    pub(super) rope_theta: String,
}

/// The most layers a model may have: several times what any has.
const LAYERS_MAX: usize = 1024;

const LAYERS: Key = Key { hf: "num_hidden_layers", gguf: "block_count" };
const HIDDEN: Key = Key { hf: "hidden_size", gguf: "embedding_length" };
const FFN: Key = Key { hf: "intermediate_size", gguf: "feed_forward_length" };
const HEADS: Key = Key { hf: "num_attention_heads", gguf: "attention.head_count" };
const KV_HEADS: Key = Key { hf: "num_key_value_heads", gguf: "attention.head_count_kv" };
const HEAD_DIM: Key = Key { hf: "head_dim", gguf: "attention.key_length" };
const VALUE_DIM: Key = Key { hf: "", gguf: "attention.value_length" };
const ROPE_DIM: Key = Key { hf: "", gguf: "rope.dimension_count" };
const VOCAB: Key = Key { hf: "vocab_size", gguf: "vocab_size" };
const MAX_POSITION: Key = Key { hf: "max_position_embeddings", gguf: "context_length" };
const RMS_EPS: Key = Key { hf: "rms_norm_eps", gguf: "attention.layer_norm_rms_epsilon" };
const TIED: Key = Key { hf: "tie_word_embeddings", gguf: "" };
const EOS: Key = Key { hf: "eos_token_id", gguf: "" };

/// Keys that say nothing about the computation: of training, of the tokenizer, of whoever wrote the file.
const SILENT: [Key; 16] = [
    Key { hf: "model_type", gguf: "" },
    Key { hf: "torch_dtype", gguf: "" },
    Key { hf: "", gguf: "tensor_data_layout" },
    Key { hf: "dtype", gguf: "" },
    Key { hf: "transformers_version", gguf: "" },
    Key { hf: "use_cache", gguf: "" },
    Key { hf: "initializer_range", gguf: "" },
    Key { hf: "attention_dropout", gguf: "" },
    Key { hf: "pretraining_tp", gguf: "" },
    Key { hf: "bos_token_id", gguf: "" },
    Key { hf: "pad_token_id", gguf: "" },
    Key { hf: "unk_token_id", gguf: "" },
    Key { hf: "sep_token_id", gguf: "" },
    Key { hf: "return_dict", gguf: "" },
    Key { hf: "transformers.js_config", gguf: "" },
    Key { hf: "max_sequence_length", gguf: "" },
];

impl SizeNames {
    /// Of a file of which nothing was read yet.
    pub(super) fn of(keys: &Keys<'_>) -> SizeNames {
        let hidden = keys.name(HIDDEN);
        SizeNames {
            ffn: keys.name(FFN),
            heads: keys.name(HEADS),
            head_dim: match keys.has(HEAD_DIM) {
                true => keys.name(HEAD_DIM),
                false => format!("{hidden} / {}", keys.name(HEADS)),
            },
            // Whether or not a GGUF file has a `vocab_size`, which only says it again.
            vocab: match keys.naming() {
                Naming::HuggingFace => keys.name(VOCAB),
                Naming::Gguf => "the number of tokenizer.ggml.tokens".to_owned(),
            },
            rope_theta: keys.name(rope::THETA),
            hidden,
        }
    }
}

/// Reads what dense decoders have in common; the family refuses, or reads, what is left.
pub(super) fn read(
    family: &'static str,
    keys: &mut Keys<'_>,
    container: &dyn Container,
) -> Result<ModelConfig, WeightsError> {
    let names = SizeNames::of(keys);
    let hidden = keys.size(HIDDEN, DIMENSION_MAX)?;
    let heads = keys.size(HEADS, DIMENSION_MAX)?;
    let kv_heads = keys.optional_size(KV_HEADS, DIMENSION_MAX)?.unwrap_or(heads);
    let head_dim = match keys.optional_size(HEAD_DIM, DIMENSION_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(keys.missing(HEAD_DIM)),
    };
    check_heads(keys, &names, heads, kv_heads, head_dim)?;
    let vocab = read_vocab(keys, container)?;
    let rope_theta = keys.optional_number(rope::THETA, rope::base, rope::BASE_EXPECTED)?.unwrap_or(10_000.0);
    let config = ModelConfig {
        family,
        name: container.name(),
        layers: keys.size(LAYERS, LAYERS_MAX)?,
        hidden,
        ffn: keys.size(FFN, DIMENSION_MAX)?,
        heads,
        kv_heads,
        head_dim,
        vocab,
        max_position: keys.size(MAX_POSITION, u32::MAX as usize)?,
        rms_eps: keys.number(RMS_EPS, epsilon, "a number above 0 that single precision has")?,
        rope_theta,
        rope_factors: None,
        rope_length: 1.0,
        biases: Biases::default(),
        unrotated_layers: Vec::new(),
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        tied_embeddings: read_tied(keys, container)?,
        eos_tokens: read_eos(keys, container, vocab)?,
    };
    keys.ignore(&SILENT);
    Ok(config)
}

/// Whether there can be so many heads. What there are kernels for is asked where a device is known.
fn check_heads(
    keys: &mut Keys<'_>,
    names: &SizeNames,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
) -> Result<(), WeightsError> {
    if !heads.is_multiple_of(kv_heads) {
        let value = Value::Other(format!("{kv_heads} for {heads} query heads"));
        return Err(keys.wrong(KV_HEADS, &value, "a divisor of the number of query heads"));
    }
    if heads.saturating_mul(head_dim) > DIMENSION_MAX {
        let (key, value) = (format!("{} × {}", names.heads, names.head_dim), format!("{heads} × {head_dim}"));
        let (path, expected) = (keys.path().to_owned(), format!("at most {DIMENSION_MAX}").into());
        return Err(WeightsError::KeyValue { path, key, value, expected });
    }
    for key in [VALUE_DIM, ROPE_DIM] {
        if let Some(length) = keys.optional_size(key, DIMENSION_MAX)?.filter(|length| *length != head_dim) {
            let expected = "the width of a head: the whole head is rotated, and values are as wide";
            return Err(keys.wrong(key, &Value::Unsigned(length as u64), expected));
        }
    }
    Ok(())
}

/// The size of the vocabulary: where a file has its tokens, their number.
fn read_vocab(keys: &mut Keys<'_>, container: &dyn Container) -> Result<usize, WeightsError> {
    let vocab = match (keys.naming(), container.tokenizer()) {
        (Naming::Gguf, Some(TokenizerSpec::Vocabulary(vocabulary))) => vocabulary.tokens.len(),
        // The embedding may have rows for tokens that there are none of.
        _ => return keys.size(VOCAB, DIMENSION_MAX),
    };
    match keys.optional_size(VOCAB, DIMENSION_MAX)?.filter(|size| *size != vocab) {
        None => Ok(vocab),
        Some(size) => Err(keys.wrong(VOCAB, &Value::Unsigned(size as u64), "the number of tokenizer.ggml.tokens")),
    }
}

/// Whether the vocabulary projection is the embedding. A file may not say so, and have no projection.
fn read_tied(keys: &mut Keys<'_>, container: &dyn Container) -> Result<bool, WeightsError> {
    let has_none = container.tensor_names().is_some() && !container.has(LM_HEAD.word(container.tensor_naming()));
    keys.flag(TIED, has_none)
}

/// The tokens that end an answer: what the keys say, then what the files beside them do. Something has to say it.
fn read_eos(keys: &mut Keys<'_>, container: &dyn Container, vocab: usize) -> Result<Vec<u32>, WeightsError> {
    let others = container.end_tokens();
    let mut ids = match others.is_empty() || keys.has(EOS) {
        true if keys.naming() == Naming::HuggingFace => keys.token_ids(EOS, vocab)?,
        _ => Vec::new(),
    };
    for id in others {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The epsilon of norms, which are computed in f32, if it can be one.
fn epsilon(value: f64) -> Option<f32> {
    let epsilon = value as f32;
    (epsilon.is_finite() && epsilon > 0.0).then_some(epsilon)
}
