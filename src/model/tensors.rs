//! The tensors that a model consists of, each with its name in either container.

use crate::weights::{Naming, TensorSpec};

/// What a tensor is to its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// (vocab, hidden)
    Embedding,
    /// (hidden), in front of attention
    AttnNorm,
    /// (heads · head_dim, hidden)
    Query,
    /// (kv_heads · head_dim, hidden)
    Key,
    /// (kv_heads · head_dim, hidden)
    Value,
    /// (hidden, heads · head_dim)
    AttnOut,
    /// (hidden), in front of the MLP
    MlpNorm,
    /// (ffn, hidden)
    Gate,
    /// (ffn, hidden)
    Up,
    /// (hidden, ffn)
    Down,
    /// (hidden), behind the last layer
    FinalNorm,
    /// (vocab, hidden)
    LmHead,
    /// (head_dim / 2): what the rotary embedding's frequencies are divided by
    RopeFactors,
}

/// A tensor of a model.
#[derive(Debug)]
pub(super) struct ModelTensor {
    pub(super) part: Part,
    /// Its layer, if it is of one.
    pub(super) layer: Option<usize>,
    /// Name and shape.
    pub(super) spec: TensorSpec,
    /// The model is whole without it.
    pub(super) is_optional: bool,
}

/// The list of a family's tensors, under construction.
#[derive(Debug)]
pub(super) struct TensorList {
    naming: Naming,
    pub(super) tensors: Vec<ModelTensor>,
}

/// Name of a tensor in either container. An empty one: such containers have none.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorName {
    pub(super) hf: &'static str,
    pub(super) gguf: &'static str,
}

impl TensorList {
    pub(super) fn new(naming: Naming) -> TensorList {
        TensorList { naming, tensors: Vec::new() }
    }

    fn word(&self, name: TensorName) -> &'static str {
        match self.naming {
            Naming::HuggingFace => name.hf,
            Naming::Gguf => name.gguf,
        }
    }

    /// A tensor outside of layers: `model.norm.weight`, `output_norm.weight`.
    pub(super) fn push(&mut self, part: Part, name: TensorName, rows: usize, cols: usize) {
        let spec = TensorSpec { name: self.word(name).to_owned(), rows, cols };
        self.tensors.push(ModelTensor { part, layer: None, spec, is_optional: false });
    }

    /// A tensor that a file may lack.
    pub(super) fn push_optional(&mut self, part: Part, name: TensorName, rows: usize, cols: usize) {
        if !self.word(name).is_empty() {
            self.push(part, name, rows, cols);
            self.tensors.iter_mut().next_back().into_iter().for_each(|tensor| tensor.is_optional = true);
        }
    }

    /// A tensor of a layer: `model.layers.3.` or `blk.3.` stand before what is given.
    pub(super) fn push_in_layer(&mut self, layer: usize, part: Part, name: TensorName, rows: usize, cols: usize) {
        let prefix = match self.naming {
            Naming::HuggingFace => "model.layers",
            Naming::Gguf => "blk",
        };
        let spec = TensorSpec { name: format!("{prefix}.{layer}.{}", self.word(name)), rows, cols };
        self.tensors.push(ModelTensor { part, layer: Some(layer), spec, is_optional: false });
    }
}
