//! Why a model file could not be read.

use std::borrow::Cow;
use std::path::PathBuf;

use thiserror::Error;

use crate::formats::WeightFormat;

/// Why a model file could not be read. Every variant names the file.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// Bytes that are no GGUF file, or no `tokenizer.model`.
    #[error("{}: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        cause: Malformed,
    },
    /// JSON that is none.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// A metadata key or configuration field that has to be there.
    #[error("{}: {key} is missing", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A metadata key or configuration field of the wrong type or outside its range.
    #[error("{}: {key} is {value}, and has to be {expected}", path.display())]
    KeyValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What the file says.
        value: String,
        /// What it may say.
        expected: Cow<'static, str>,
    },
    /// A metadata key or configuration field that changes the computation in a way this engine does not know.
    #[error("{}: {key} = {value} is not supported", path.display())]
    UnsupportedKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What the file says.
        value: String,
    },
    /// A family of models that is not supported.
    #[error("{}: architecture {architecture} is not supported (supported: {supported})", path.display())]
    UnsupportedArchitecture {
        /// The file.
        path: PathBuf,
        /// The file's word.
        architecture: String,
        /// What is.
        supported: String,
    },
    /// A tensor that the model needs, or that was asked for, is not in the file.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the architecture has no use for: computing without it would be computing something else.
    #[error("{}: tensor {name} has no place in this architecture", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape than the model's sizes ask for.
    #[error(
        "{}: tensor {name} is {found_rows} × {found_cols}, and the model's sizes ask for {rows} × {cols}",
        path.display()
    )]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its rows.
        found_rows: u64,
        /// Its columns.
        found_cols: u64,
        /// The rows that it should have.
        rows: usize,
        /// The columns that it should have.
        cols: usize,
    },
    /// A tensor in a format that is not supported.
    #[error("{}: tensor {name} has type {type_name}, which is not supported", path.display())]
    TensorFormat {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The file's word.
        type_name: String,
    },
    /// Bytes that are no whole safetensors file.
    #[error("{}: not a whole safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A folder with weights of other kinds.
    #[error(
        "{} has {found}, and weights are read from model.safetensors, or the files of model.safetensors.index.json",
        path.display()
    )]
    NoSafetensors {
        /// The folder.
        path: PathBuf,
        /// What it has.
        found: String,
    },
    /// A tensor in two files of one model.
    #[error("{}: tensor {name} is in {}, too", path.display(), other.display())]
    TensorTwice {
        /// A file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The other file.
        other: PathBuf,
    },
    /// Rows that do not consist of whole blocks.
    #[error(
        "{}: tensor {name} in {} needs rows of a multiple of 32 values, and they have {cols}",
        path.display(), format.as_str()
    )]
    TensorBlocks {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The block format.
        format: WeightFormat,
        /// Its row length.
        cols: usize,
    },
    /// A tensor that the machine has no memory for.
    #[error("{}: tensor {name} has {bytes} bytes, and the machine did not give them", path.display())]
    TensorMemory {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its size.
        bytes: usize,
    },
}

/// What is wrong with the bytes of a GGUF file or a `tokenizer.model`. Offsets count from the beginning of the file.
#[derive(Debug, Error, PartialEq)]
pub enum Malformed {
    /// Another kind of file.
    #[error("not a GGUF file: it begins with {magic:02x?} instead of \"GGUF\"")]
    Magic {
        /// The first bytes, at most four.
        magic: Vec<u8>,
    },
    /// A version that this reader does not know; byte-swapped in a big-endian file.
    #[error("GGUF version {version} is not supported (2 and 3 are, little-endian)")]
    Version {
        /// The version.
        version: u32,
    },
    /// The file ends within a field.
    #[error("{field} at byte {offset} needs {bytes} bytes, and the file ends at byte {file_bytes}: it is incomplete")]
    Truncated {
        /// Where the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// Its size.
        bytes: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// A number outside its range.
    #[error("{field} at byte {offset} is {value}, and the limit is {limit}")]
    Limit {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A number that has to be larger than 0.
    #[error("{field} at byte {offset} is 0")]
    Zero {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
    },
    /// A number of more bytes than 64 bits take.
    #[error("{field} at byte {offset} is longer than 10 bytes")]
    Varint {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
    },
    /// A protobuf field of a type that it does not have.
    #[error("{field} at byte {offset} has protobuf's wire type {wire_type}")]
    WireType {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
        /// Its type.
        wire_type: u64,
    },
    /// A float that is no number.
    #[error("{field} at byte {offset} is not a number")]
    NotANumber {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("{field} at byte {offset} is not valid UTF-8")]
    NotUtf8 {
        /// Where.
        offset: u64,
        /// The field.
        field: &'static str,
    },
    /// Two entries of one name.
    #[error("{field} {name} at byte {offset} occurs twice")]
    Duplicate {
        /// Where the second begins.
        offset: u64,
        /// What kind of entry.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// `general.alignment` that no file can have.
    #[error("general.alignment is {value}, and has to be a power of two, at least 8")]
    Alignment {
        /// What the file says.
        value: u64,
    },
    /// Data that does not begin where the alignment asks.
    #[error("data of tensor {name} begins at {offset} of the data section, which is no multiple of {alignment}")]
    Unaligned {
        /// The tensor.
        name: String,
        /// Where its data begin in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Data that reach beyond the file.
    #[error("tensor {name}: {bytes} bytes at byte {offset}, and the file ends at byte {file_bytes}: it is incomplete")]
    OutsideFile {
        /// The tensor.
        name: String,
        /// Where its data begin; saturated at 2⁶⁴ − 1.
        offset: u64,
        /// Their size; saturated at 2⁶⁴ − 1.
        bytes: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("data of tensor {name} at byte {offset} overlap those of tensor {other}")]
    Overlap {
        /// The tensor that begins later.
        name: String,
        /// The one that begins earlier.
        other: String,
        /// Where the later one begins.
        offset: u64,
    },
}
