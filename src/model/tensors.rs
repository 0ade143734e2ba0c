//! The tensors that a model consists of, each with its name in either container.

use std::borrow::Cow;

use crate::weights::{Naming, Tensor, TensorSpec};

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
    /// (heads · head_dim)
    QueryBias,
    /// (kv_heads · head_dim)
    KeyBias,
    /// (kv_heads · head_dim)
    ValueBias,
    /// (head_dim), or of all heads together: gains of the norm of queries
    QueryNorm,
    /// (head_dim), or of all heads together: gains of the norm of keys
    KeyNorm,
    /// (hidden, heads · head_dim)
    AttnOut,
    /// (hidden)
    AttnOutBias,
    /// (hidden), behind attention
    AttnPostNorm,
    /// (hidden), in front of the MLP
    MlpNorm,
    /// (ffn, hidden)
    Gate,
    /// (ffn, hidden)
    Up,
    /// (ffn)
    GateBias,
    /// (ffn)
    UpBias,
    /// (hidden, ffn)
    Down,
    /// (hidden)
    DownBias,
    /// (hidden), behind the MLP
    MlpPostNorm,
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
    /// In which order its rows are packed.
    pub(super) order: RowOrder,
}

/// In which order the rows of a matrix, or the values of a vector, are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As they are stored.
    Stored,
    /// The kernels of the rotary embedding turn neighbours: rows 2i and 2i + 1 of a head. Hugging Face's models turn
    /// rows i and i + width / 2, which become neighbours here.
    Rotated {
        /// Width of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The row that is stored where this one is packed from.
    fn source(self, row: usize) -> usize {
        match self {
            RowOrder::Stored => row,
            RowOrder::Rotated { head_dim } => {
                let (head, at) = (row / head_dim, row % head_dim);
                head * head_dim + at % 2 * (head_dim / 2) + at / 2
            }
        }
    }

    /// The tensor with its rows in this order; `None` if there is no memory for them.
    pub(super) fn apply(self, tensor: Tensor<'_>) -> Option<Tensor<'_>> {
        if self == RowOrder::Stored {
            return Some(tensor);
        }
        let (rows, cols) = if tensor.rows == 1 { (tensor.cols, 1) } else { (tensor.rows, tensor.cols) };
        let row_bytes = tensor.format.row_bytes(cols);
        let mut data = Vec::new();
        data.try_reserve_exact(tensor.data.len()).ok()?;
        for row in 0..rows {
            data.extend_from_slice(&tensor.data[self.source(row) * row_bytes..][..row_bytes]);
        }
        Some(Tensor { data: Cow::Owned(data), ..tensor })
    }
}

/// The list of a family's tensors, under construction.
#[derive(Debug)]
pub(super) struct TensorList {
    pub(super) naming: Naming,
    layers: usize,
    pub(super) tensors: Vec<ModelTensor>,
    /// Names of tensors that a file may have, and that are not read.
    pub(super) ignored: Vec<String>,
}

/// Name of a tensor in either container. An empty one: such containers have none.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorName {
    pub(super) hf: &'static str,
    pub(super) gguf: &'static str,
}

/// The vocabulary projection: a file without one has tied embeddings.
pub(super) const LM_HEAD: TensorName = TensorName { hf: "lm_head.weight", gguf: "output.weight" };

impl TensorName {
    /// The name in containers of this naming.
    pub(super) fn word(self, naming: Naming) -> &'static str {
        match naming {
            Naming::HuggingFace => self.hf,
            Naming::Gguf => self.gguf,
        }
    }
}

impl TensorList {
    /// Of a model of so many layers.
    pub(super) fn new(naming: Naming, layers: usize) -> TensorList {
        TensorList { naming, layers, tensors: Vec::new(), ignored: Vec::new() }
    }

    fn word(&self, name: TensorName) -> &'static str {
        name.word(self.naming)
    }

    /// A tensor outside of layers: `model.norm.weight`, `output_norm.weight`.
    pub(super) fn push(&mut self, part: Part, name: TensorName, rows: usize, cols: usize) {
        let spec = TensorSpec { name: self.word(name).to_owned(), rows, cols };
        self.tensors.push(ModelTensor { part, layer: None, spec, is_optional: false, order: RowOrder::Stored });
    }

    /// A tensor that a file may lack.
    pub(super) fn push_optional(&mut self, part: Part, name: TensorName, rows: usize, cols: usize) {
        if !self.word(name).is_empty() {
            self.push(part, name, rows, cols);
            self.tensors.iter_mut().next_back().into_iter().for_each(|tensor| tensor.is_optional = true);
        }
    }

    /// A tensor of every layer: `model.layers.3.` or `blk.3.` stand before what is given.
    pub(super) fn push_in_layers(&mut self, part: Part, name: TensorName, rows: usize, cols: usize) {
        let prefix = match self.naming {
            Naming::HuggingFace => "model.layers",
            Naming::Gguf => "blk",
        };
        for layer in 0..self.layers {
            let spec = TensorSpec { name: format!("{prefix}.{layer}.{}", self.word(name)), rows, cols };
            let order = RowOrder::Stored;
            self.tensors.push(ModelTensor { part, layer: Some(layer), spec, is_optional: false, order });
        }
    }

    /// A tensor that a file may have, and that says nothing that another one does not.
    pub(super) fn ignore(&mut self, name: TensorName) {
        self.ignored.push(self.word(name).to_owned());
    }

    /// The rows of these parts, a head after the other, are turned by the rotary embedding as Hugging Face's models
    /// turn them.
    pub(super) fn rotate(&mut self, parts: &[Part], head_dim: usize) {
        let of_parts = self.tensors.iter_mut().filter(|tensor| parts.contains(&tensor.part));
        of_parts.for_each(|tensor| tensor.order = RowOrder::Rotated { head_dim });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::WeightFormat;

    #[test]
    fn halves_of_heads_become_neighbours() {
        let rows: Vec<u8> = (0..12).flat_map(|row: u8| [row, 100 + row]).collect();
        let tensor =
            Tensor { name: "q", format: WeightFormat::Bf16, rows: 12, cols: 1, data: Cow::Borrowed(&rows[..]) };
        let stored = RowOrder::Stored.apply(tensor.clone()).unwrap();
        assert_eq!(stored.data, rows);
        let rotated = RowOrder::Rotated { head_dim: 6 }.apply(tensor).unwrap();
        let found: Vec<u8> = rotated.data.chunks(2).map(|row| row[0]).collect();
        assert_eq!(found, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
