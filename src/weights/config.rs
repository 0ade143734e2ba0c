//! The shape of a model, from whichever file describes it.

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
