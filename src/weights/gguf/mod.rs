//! GGUF files, read in place.
//!
//! A file is a header (metadata, tensor table) and a data section. Opening reads the header, checks every count,
//! length and offset against the file's size, and checks that the tensors are those of the model that the metadata
//! describe. Tensor data are not touched: they are slices of the mapping.
//!
//! Deliberately absent: split files, big-endian files, tensors with more than two dimensions.

mod cursor;
mod metadata;
mod model;
mod tensors;
mod vocabulary;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use self::cursor::Cursor;
use self::metadata::Metadata;
use self::tensors::TensorInfo;
use super::{Keys, Malformed, ModelConfig, Tensor, TokenizerSpec, WeightsError};
use crate::device::WeightFormat;

const DEFAULT_ALIGNMENT: u64 = 32;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    tensors: HashMap<String, TensorInfo>,
    config: ModelConfig,
    keys: &'static Keys,
    tokenizer: TokenizerSpec,
}

impl Gguf {
    /// Opens a file and checks that it holds a model that this engine can run.
    pub fn open(path: &Path) -> Result<Gguf, WeightsError> {
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private to this process's view; every access goes through slices of
        // it that lie within its length. A file that another process shortens while it is mapped ends this process
        // with SIGBUS, as for every reader of mapped files: model files are replaced by renaming, not rewritten.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        // Only a hint: reading works without.
        let _ = map.advise(Advice::WillNeed);
        let Header { tensors, config, keys, tokenizer } = read(path, &map)?;
        Ok(Gguf { path: path.to_owned(), map, tensors, config, keys, tokenizer })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it calls the model's numbers.
    pub fn keys(&self) -> &'static Keys {
        self.keys
    }

    /// The format of a tensor.
    pub fn format(&self, name: &str) -> Result<WeightFormat, WeightsError> {
        model::supported_format(&self.path, self.info(name)?)
    }

    /// What the tokenizer is made from.
    pub fn tokenizer(&self) -> &TokenizerSpec {
        &self.tokenizer
    }

    /// Whether the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor, by its GGUF name; its data are a slice of the mapping.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let info = self.info(name)?;
        let format = model::supported_format(&self.path, info)?;
        // `place` found that the data lie within the file.
        let data = &self.map[info.offset as usize..(info.offset + info.bytes) as usize];
        let (rows, cols) = info.shape();
        Ok(Tensor { name: &info.name, format, rows: rows as usize, cols: cols as usize, data: Cow::Borrowed(data) })
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        let missing = || WeightsError::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        self.tensors.get(name).ok_or_else(missing)
    }
}

/// What a file says before its data.
struct Header {
    tensors: HashMap<String, TensorInfo>,
    config: ModelConfig,
    keys: &'static Keys,
    tokenizer: TokenizerSpec,
}

fn read(path: &Path, data: &[u8]) -> Result<Header, WeightsError> {
    let malformed = |cause| WeightsError::Malformed { path: path.to_owned(), cause };
    if !data.starts_with(b"GGUF") {
        return Err(malformed(Malformed::Magic { magic: data[..data.len().min(4)].to_vec() }));
    }
    let mut cursor = Cursor::new(data, 4);
    let version = cursor.u32("version").map_err(malformed)?;
    if version != 2 && version != 3 {
        return Err(malformed(Malformed::Version { version }));
    }
    let tensor_count = tensors::count(&mut cursor).map_err(malformed)?;
    let key_count = Metadata::count(&mut cursor).map_err(malformed)?;
    let metadata = Metadata::parse(path, data, &mut cursor, key_count).map_err(malformed)?;
    let tensors = tensors::parse(&mut cursor, tensor_count).map_err(malformed)?;

    let alignment = metadata.unsigned("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !(8..1 << 62).contains(&alignment) {
        return Err(malformed(Malformed::Alignment { value: alignment }));
    }
    let placed = tensors::place(tensors, cursor.offset(), data.len() as u64, alignment).map_err(malformed)?;
    model::check_architecture(&metadata)?;
    let tokenizer = vocabulary::read(&metadata)?;
    let config = model::read(&metadata, &placed, &tokenizer)?;
    Ok(Header { tensors: placed, config, keys: model::keys(&metadata), tokenizer })
}
