//! Model files: containers of numbers by key and tensors by name, which know no family of models.
//!
//! A [`Container`] is a GGUF file or a Hugging Face folder, read in place, or random weights for a `config.json`. What
//! its keys and tensors mean is the family's to say (`src/model`). Formats of tensors stay as the file has them; the
//! device packs them.

mod config_json;
mod dummy;
mod error;
mod folder;
mod generation_config;
mod gguf;
pub mod hub;
mod keys;
mod mapped;
mod sentencepiece_model;
mod tokenizer_spec;

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::Path;

pub use self::dummy::Dummy;
pub use self::error::{Malformed, WeightsError};
pub use self::folder::Folder;
pub use self::generation_config::GenerationConfig;
pub use self::gguf::Gguf;
pub use self::keys::{DIMENSION_MAX, Key, Keys, Naming, Value};
pub use self::tokenizer_spec::{StringTable, TokenKind, TokenizerJson, TokenizerSpec, VocabularySpec};
use crate::device::PackSource;
use crate::formats::WeightFormat;

/// Where a model comes from: what a file says of it, and its tensors.
pub trait Container: Debug + Send + Sync {
    /// The file that describes the model.
    fn path(&self) -> &Path;

    /// The name that it gives itself.
    fn name(&self) -> String;

    /// The container's word for the model's family.
    fn architecture(&self) -> &str;

    /// Whose names its keys have.
    fn key_naming(&self) -> Naming;

    /// What it says of the model.
    fn keys(&self) -> Keys<'_>;

    /// Whose names its tensors have; those of its keys may be others.
    fn tensor_naming(&self) -> Naming;

    /// The names of all its tensors; `None` if it makes whatever is asked for.
    fn tensor_names(&self) -> Option<Vec<&str>>;

    /// Whether it has a tensor of this name, or makes it.
    fn has(&self, name: &str) -> bool {
        self.tensor_names().is_none_or(|names| names.contains(&name))
    }

    /// The format of a tensor, once it is known to be there, in this shape and in a format that can be computed with.
    fn format(&self, tensor: &TensorSpec) -> Result<WeightFormat, WeightsError>;

    /// A tensor whose [`Container::format`] was asked for.
    fn tensor<'a>(&'a self, tensor: &'a TensorSpec) -> Result<Tensor<'a>, WeightsError>;

    /// The tensor was packed: its bytes need not stay in memory. It can be asked for again.
    fn release(&self, _tensor: &TensorSpec) {}

    /// What the tokenizer is made from, if there is one.
    fn tokenizer(&self) -> Option<&TokenizerSpec>;

    /// The tokens that end an answer, as far as other things than keys say it.
    fn end_tokens(&self) -> Vec<u32> {
        Vec::new()
    }

    /// How its makers draw tokens from it, if they say so.
    fn generation_config(&self) -> Option<&GenerationConfig> {
        None
    }

    /// What is wrong with the tokenizer: said once the family is known to be one that is supported.
    fn take_tokenizer_fault(&mut self) -> Option<WeightsError> {
        None
    }
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the container.
    pub name: String,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Its name in the container.
    pub name: &'a str,
    /// How its values are stored.
    pub format: WeightFormat,
    /// Rows; 1 for vectors.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `rows * format.row_bytes(cols)` bytes.
    pub data: Cow<'a, [u8]>,
}

impl Tensor<'_> {
    /// The tensor as the device packs it.
    pub fn pack_source(&self) -> PackSource<'_> {
        PackSource { name: self.name, format: self.format, rows: self.rows, cols: self.cols, data: &self.data }
    }

    /// Expands all values to f32, row by row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.cols];
        let rows = self.data.chunks_exact(self.format.row_bytes(self.cols));
        for (row, out) in rows.zip(values.chunks_exact_mut(self.cols)) {
            self.format.dequantise_row(row, out);
        }
        values
    }
}
