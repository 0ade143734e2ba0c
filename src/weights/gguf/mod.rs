//! GGUF files, read in place.
//!
//! A file is a header (metadata, tensor table) and a data section. Opening reads the header and checks every count,
//! length and offset against the file's size. Tensor data are not touched: they are slices of the mapping.
//!
//! Deliberately absent: split files, big-endian files, tensors with more than two dimensions.

mod cursor;
mod metadata;
mod tensors;
mod vocabulary;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use self::cursor::Cursor;
use self::metadata::Metadata;
use self::tensors::{TensorInfo, type_name};
use super::mapped::MappedFile;
use super::{
    Container, Keys, Malformed, Naming, Tensor, TensorSpec, TokenizerSpec, Value, VocabularySpec, WeightsError,
};
use crate::formats::WeightFormat;

const DEFAULT_ALIGNMENT: u64 = 32;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
    header: Header,
}

/// What a file says before its data.
#[derive(Debug)]
struct Header {
    name: String,
    architecture: String,
    /// The values of keys that begin with the architecture's name, without it.
    values: Vec<(String, Value)>,
    tensors: HashMap<String, TensorInfo>,
    tokenizer: TokenizerSpec,
    tokenizer_fault: Option<WeightsError>,
}

impl Gguf {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Gguf, WeightsError> {
        let file = MappedFile::open(path)?;
        let header = read(path, file.bytes())?;
        Ok(Gguf { file, header })
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        let missing = || WeightsError::MissingTensor { path: self.path().to_owned(), name: name.to_owned() };
        self.header.tensors.get(name).ok_or_else(missing)
    }
}

impl Container for Gguf {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn name(&self) -> String {
        self.header.name.clone()
    }

    fn architecture(&self) -> &str {
        &self.header.architecture
    }

    fn key_naming(&self) -> Naming {
        Naming::Gguf
    }

    fn keys(&self) -> Keys<'_> {
        let prefix = format!("{}.", self.header.architecture);
        Keys::new(self.path(), Naming::Gguf, prefix, self.header.values.iter().cloned())
    }

    fn tensor_naming(&self) -> Naming {
        Naming::Gguf
    }

    fn tensor_names(&self) -> Option<Vec<&str>> {
        Some(self.header.tensors.keys().map(String::as_str).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    fn format(&self, tensor: &TensorSpec) -> Result<WeightFormat, WeightsError> {
        let info = self.info(&tensor.name)?;
        let (path, name) = (self.path().to_owned(), tensor.name.clone());
        let (rows, cols) = (tensor.rows, tensor.cols);
        let (found_rows, found_cols) = info.shape();
        if (found_rows, found_cols) != (rows as u64, cols as u64) || info.dims.len() > 2 {
            return Err(WeightsError::TensorShape { path, name, found_rows, found_cols, rows, cols });
        }
        match info.format() {
            Some(format) if cols.is_multiple_of(format.block_values()) => Ok(format),
            Some(format) => Err(WeightsError::TensorBlocks { path, name, format, cols }),
            None => {
                let type_name = format!("{} ({})", type_name(info.type_id), info.type_id);
                Err(WeightsError::TensorFormat { path, name, type_name })
            }
        }
    }

    /// Its data are a slice of the mapping.
    fn tensor<'a>(&'a self, tensor: &'a TensorSpec) -> Result<Tensor<'a>, WeightsError> {
        let format = self.format(tensor)?;
        let info = self.info(&tensor.name)?;
        let data = &self.file.bytes()[info.range()];
        Ok(Tensor { name: &info.name, format, rows: tensor.rows, cols: tensor.cols, data: Cow::Borrowed(data) })
    }

    fn release(&self, tensor: &TensorSpec) {
        if let Some(info) = self.header.tensors.get(&tensor.name) {
            self.file.release(info.range());
        }
    }

    fn tokenizer(&self) -> Option<&TokenizerSpec> {
        Some(&self.header.tokenizer)
    }

    fn end_tokens(&self) -> Vec<u32> {
        match &self.header.tokenizer {
            TokenizerSpec::Vocabulary(vocabulary) => vocabulary.end_tokens(),
            TokenizerSpec::Json(_) => Vec::new(),
        }
    }

    fn take_tokenizer_fault(&mut self) -> Option<WeightsError> {
        self.header.tokenizer_fault.take()
    }
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
    let tensors = tensors::place(tensors, cursor.offset(), data.len() as u64, alignment).map_err(malformed)?;
    const ARCHITECTURE: &str = "general.architecture";
    let architecture = metadata.text(ARCHITECTURE)?.ok_or_else(|| metadata.missing(ARCHITECTURE))?.to_owned();
    let name = metadata.text_shown("general.name")?.unwrap_or_else(|| "unnamed".into());
    let values = metadata.values(&format!("{architecture}."));
    let (tokenizer, tokenizer_fault) = match vocabulary::read(&metadata) {
        Ok(vocabulary) => (vocabulary, None),
        Err(fault) => (VocabularySpec::default(), Some(fault)),
    };
    let tokenizer = TokenizerSpec::Vocabulary(tokenizer);
    Ok(Header { name, architecture, values, tensors, tokenizer, tokenizer_fault })
}
