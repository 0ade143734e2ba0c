//! The shape of a model, from whichever file describes it.

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
    /// Width of a head; even, a multiple of 16.
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

    /// Whether the sizes fit together. `path` is the file that they come from, for errors.
    pub(super) fn check(&self, path: &Path) -> Result<(), WeightsError> {
        let wrong = |key: &str, value: String, expected| {
            Err(WeightsError::KeyValue { path: path.to_owned(), key: key.to_owned(), value, expected })
        };
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let value = format!("{} for {} query heads", self.kv_heads, self.heads);
            return wrong("the number of key and value heads", value, "a divisor of the number of query heads");
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(16) {
            return wrong("the width of a head", self.head_dim.to_string(), "a multiple of 16");
        }
        if self.heads.saturating_mul(self.head_dim) > DIMENSION_MAX {
            let value = format!("{} × {}", self.heads, self.head_dim);
            return wrong("heads × their width", value, "a width that a model can have");
        }
        if !self.rms_eps.is_finite() || self.rms_eps <= 0.0 {
            return wrong("the norms' epsilon", self.rms_eps.to_string(), "a number above 0");
        }
        if !self.rope_theta.is_finite() || self.rope_theta <= 0.0 {
            return wrong("the rotary embedding's base", self.rope_theta.to_string(), "a number above 0");
        }
        Ok(())
    }
}
