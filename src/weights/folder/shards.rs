//! Weights in safetensors: one file, or several with an index that says which tensor is in which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use crate::formats::WeightFormat;
use crate::weights::mapped::MappedFile;
use crate::weights::{TensorSpec, WeightsError};

/// All weights.
const WHOLE: &str = "model.safetensors";
/// Which tensor is in which file.
const INDEX: &str = "model.safetensors.index.json";
/// The number at the beginning of a file: bytes of its header.
const LENGTH_BYTES: usize = 8;

/// The files, mapped.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Place>,
}

/// A tensor in a file.
#[derive(Debug)]
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the file, which was found to have them.
    range: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Shards {
    /// Maps the files of a model folder and reads their headers. Every tensor is known to lie within its file.
    pub(super) fn open(folder: &Path) -> Result<Shards, WeightsError> {
        let mut shards = Shards { files: Vec::new(), tensors: BTreeMap::new() };
        let (whole, index_path) = (folder.join(WHOLE), folder.join(INDEX));
        if whole.is_file() {
            shards.add(whole)?;
        } else if index_path.is_file() {
            shards.add_listed(folder, &index_path)?;
        } else {
            return Err(no_weights(folder));
        }
        Ok(shards)
    }

    /// The files of an index, each of which has the tensors that the index says.
    fn add_listed(&mut self, folder: &Path, index_path: &Path) -> Result<(), WeightsError> {
        let text = fs::read(index_path).map_err(|source| WeightsError::Io { path: index_path.to_owned(), source })?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|source| WeightsError::Json { path: index_path.to_owned(), source })?;
        let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        for name in names {
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                let (path, value) = (index_path.to_owned(), format!("{name:?}"));
                let expected = "the name of a file in the same folder".into();
                return Err(WeightsError::KeyValue { path, key: "weight_map".into(), value, expected });
            }
            self.add(folder.join(name))?;
        }
        for (tensor, name) in &index.weight_map {
            let path = folder.join(name);
            if self.tensors.get(tensor).is_none_or(|place| self.files[place.file].path() != path) {
                return Err(WeightsError::MissingTensor { path, name: tensor.clone() });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), WeightsError> {
        let file = MappedFile::open(&path)?;
        let header = SafeTensors::read_metadata(file.bytes());
        let (header_bytes, metadata) =
            header.map_err(|source| WeightsError::Safetensors { path: path.clone(), source })?;
        let data = LENGTH_BYTES + header_bytes;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            // The crate's sum of the file's size may have gone round.
            if data.checked_add(end).is_none_or(|end| end > file.bytes().len()) {
                let source = SafeTensorError::InvalidOffset(name);
                return Err(WeightsError::Safetensors { path, source });
            }
            let (file, dtype, shape) = (self.files.len(), info.dtype, info.shape.clone());
            let place = Place { file, dtype, shape, range: data + start..data + end };
            if let Some(other) = self.tensors.insert(name.clone(), place) {
                let other = self.files[other.file].path().to_owned();
                return Err(WeightsError::TensorTwice { path, name, other });
            }
        }
        self.files.push(file);
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The format of a tensor that has to be in this shape; `folder` is named where there is none.
    pub(super) fn format(&self, tensor: &TensorSpec, folder: &Path) -> Result<WeightFormat, WeightsError> {
        let name = tensor.name.clone();
        let Some(place) = self.tensors.get(&name) else {
            return Err(WeightsError::MissingTensor { path: folder.to_owned(), name });
        };
        let path = self.files[place.file].path().to_owned();
        let (rows, cols) = (tensor.rows, tensor.cols);
        let (found_rows, found_cols) = match place.shape[..] {
            [cols] => (1, cols),
            [rows, cols] => (rows, cols),
            // A shape that no tensor of a model is asked for in.
            [.., cols] => (place.shape.iter().product::<usize>() / cols.max(1), cols),
            [] => (1, 1),
        };
        if (found_rows, found_cols) != (rows, cols) || !(1..=2).contains(&place.shape.len()) {
            let (found_rows, found_cols) = (found_rows as u64, found_cols as u64);
            return Err(WeightsError::TensorShape { path, name, found_rows, found_cols, rows, cols });
        }
        let dtype = format!("{:?}", place.dtype);
        WeightFormat::from_safetensors_dtype(&dtype).ok_or(WeightsError::TensorFormat { path, name, type_name: dtype })
    }

    /// The bytes of a tensor that is there.
    pub(super) fn data(&self, name: &str) -> &[u8] {
        let place = &self.tensors[name];
        &self.files[place.file].bytes()[place.range.clone()]
    }

    /// The tensor is not read again soon: its pages leave this process, and are read again if they are touched.
    pub(super) fn release(&self, name: &str) {
        let place = &self.tensors[name];
        self.files[place.file].release(place.range.clone());
    }
}

/// Says what the folder has instead.
fn no_weights(folder: &Path) -> WeightsError {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) => return WeightsError::Io { path: folder.to_owned(), source },
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_weights = |name: &String| [".bin", ".pt", ".pth", ".safetensors"].iter().any(|end| name.ends_with(end));
    let mut found: Vec<String> = names.filter(is_weights).collect();
    found.sort();
    let found = if found.is_empty() { "no weights".to_owned() } else { found.join(", ") };
    WeightsError::NoSafetensors { path: folder.to_owned(), found }
}
