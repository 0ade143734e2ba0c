//! The shape of a model, from whichever file describes it.

use std::borrow::Cow;
use std::path::Path;

use super::WeightsError;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama: RMS norm, rotary embedding, grouped-query attention, SiLU-gated MLP, no biases.
    Llama,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
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
    /// The vocabulary projection is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end a sequence.
    pub eos_tokens: Vec<u32>,
}

/// What a kind of file calls the numbers of a model, for errors.
#[derive(Debug)]
#[allow(missing_docs)] // each is the field of the same name in ModelConfig
pub struct Keys {
    pub hidden: &'static str,
    pub ffn: &'static str,
    pub heads: &'static str,
    pub kv_heads: &'static str,
    pub head_dim: &'static str,
    pub vocab: &'static str,
    pub rope_theta: &'static str,
}

/// The most layers a model may have: several times what any has.
pub(super) const LAYERS_MAX: usize = 1024;

/// The largest width, number of heads or vocabulary a model may have: products of two fit 64 bits with room to spare.
pub(super) const DIMENSION_MAX: usize = 1 << 24;

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its GGUF name.
    pub name: String,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl ModelConfig {
    /// The tensors that the model consists of, in GGUF's names: matrices are (outputs, inputs).
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (hidden, ffn) = (self.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let layer = [
            ("attn_norm", 1, hidden),
            ("attn_q", q, hidden),
            ("attn_k", kv, hidden),
            ("attn_v", kv, hidden),
            ("attn_output", hidden, q),
            ("ffn_norm", 1, hidden),
            ("ffn_gate", ffn, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ];
        let mut tensors = vec![TensorSpec { name: "token_embd.weight".to_owned(), rows: self.vocab, cols: hidden }];
        for index in 0..self.layers {
            let name = |part: &str| format!("blk.{index}.{part}.weight");
            tensors.extend(layer.map(|(part, rows, cols)| TensorSpec { name: name(part), rows, cols }));
        }
        tensors.push(TensorSpec { name: "output_norm.weight".to_owned(), rows: 1, cols: hidden });
        if !self.tied_embeddings {
            tensors.push(TensorSpec { name: "output.weight".to_owned(), rows: self.vocab, cols: hidden });
        }
        tensors
    }

    /// Optional: what the angular frequencies of the rotary embedding are divided by, one factor per pair.
    pub fn rope_frequency_factors(&self) -> TensorSpec {
        TensorSpec { name: "rope_freqs.weight".to_owned(), rows: 1, cols: self.head_dim / 2 }
    }

    /// Whether the sizes are those of a model: each was found to be at least 1 and at most [`DIMENSION_MAX`]. `path` is
    /// the file that they come from. What there are kernels for is asked where a device is known.
    pub(super) fn check(&self, path: &Path, keys: &Keys) -> Result<(), WeightsError> {
        let wrong = |key: String, value: String, expected: Cow<'static, str>| {
            Err(WeightsError::KeyValue { path: path.to_owned(), key, value, expected })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let value = format!("{} for {} query heads", self.kv_heads, self.heads);
            return wrong(keys.kv_heads.to_owned(), value, "a divisor of the number of query heads".into());
        }
        if self.heads.saturating_mul(self.head_dim) > DIMENSION_MAX {
            let (key, value) =
                (format!("{} × {}", keys.heads, keys.head_dim), format!("{} × {}", self.heads, self.head_dim));
            return wrong(key, value, format!("at most {DIMENSION_MAX}").into());
        }
        Ok(())
    }
}

/// What a size has to be.
pub(super) fn size_up_to(limit: usize) -> String {
    format!("an integer from 1 to {limit}")
}

/// The epsilon of norms, which are computed in f32, if it can be one.
pub(super) fn epsilon(value: f64) -> Option<f32> {
    let epsilon = value as f32;
    (epsilon.is_finite() && epsilon > 0.0).then_some(epsilon)
}

/// What [`epsilon`] takes.
pub(super) const EPSILON_EXPECTED: &str = "a number above 0 that single precision has";

/// The base of a rotary embedding, if it can be one.
pub(super) fn rope_base(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

/// What [`rope_base`] takes.
pub(super) const ROPE_BASE_EXPECTED: &str = "a number above 0";
