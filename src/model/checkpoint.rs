//! A model before it is on a device: its container, read as what its family makes of it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::config::SizeNames;
use super::tensors::{Part, RowOrder, TensorList};
use super::{Family, ModelConfig, family_of};
use crate::formats::WeightFormat;
use crate::weights::{
    Container, Dummy, Folder, GenerationConfig, Gguf, Tensor, TensorSpec, TokenizerSpec, WeightsError,
};

/// A model's files, known to hold a model of a family that can be run.
#[derive(Debug)]
pub struct Checkpoint {
    container: Box<dyn Container>,
    family: &'static Family,
    config: ModelConfig,
    names: SizeNames,
    tensors: HashMap<(Part, Option<usize>), (TensorSpec, RowOrder)>,
    packed_bytes: AtomicU64,
}

impl Checkpoint {
    /// Opens a `.gguf` file.
    pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
        Checkpoint::of(Box::new(Gguf::open(path)?))
    }

    /// Opens a Hugging Face model folder.
    pub fn open_folder(folder: &Path) -> Result<Checkpoint, WeightsError> {
        Checkpoint::of(Box::new(Folder::open(folder)?))
    }

    /// Random weights for a Hugging Face `config.json`, the same for the same seed. Matrices have this format.
    pub fn random(config_json: &Path, format: WeightFormat, seed: u64) -> Result<Checkpoint, WeightsError> {
        Checkpoint::of(Box::new(Dummy::open(config_json, format, seed)?))
    }

    /// The model of a container: every tensor that the family asks for is there, with its shape and in a supported
    /// format, and no other; every key is understood.
    pub fn of(mut container: Box<dyn Container>) -> Result<Checkpoint, WeightsError> {
        let family = family_of(&*container)?;
        container.take_tokenizer_fault().map_or(Ok(()), Err)?;
        let mut keys = container.keys();
        let names = SizeNames::of(&keys);
        let config = (family.read)(&mut keys, &*container)?;
        keys.finish()?;
        let mut list = TensorList::new(container.tensor_naming(), config.layers);
        (family.tensors)(&config, &mut list);
        let listed = container.tensor_names();
        let is_listed = |name: &str| listed.is_some() && container.has(name);
        list.tensors.retain(|tensor| !tensor.is_optional || is_listed(&tensor.spec.name));
        for tensor in &list.tensors {
            container.format(&tensor.spec)?;
        }
        let used = list.tensors.iter().map(|tensor| &tensor.spec.name);
        let known: HashSet<&str> = used.chain(&list.ignored).map(String::as_str).collect();
        if let Some(name) = listed.into_iter().flatten().filter(|name| !known.contains(name)).min() {
            return Err(WeightsError::UnknownTensor { path: container.path().to_owned(), name: name.to_owned() });
        }
        let tensors = list.tensors.into_iter();
        let tensors = tensors.map(|tensor| ((tensor.part, tensor.layer), (tensor.spec, tensor.order))).collect();
        Ok(Checkpoint { container, family, config, names, tensors, packed_bytes: AtomicU64::new(0) })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file that it is described in.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// What the tokenizer is made from; random weights have none.
    pub fn tokenizer(&self) -> Option<&TokenizerSpec> {
        self.container.tokenizer()
    }

    /// How its makers draw tokens from it, if they say so.
    pub fn generation_config(&self) -> Option<&GenerationConfig> {
        self.container.generation_config()
    }

    /// The tensors that the model consists of, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.tensors.values().map(|(spec, _)| spec)
    }

    /// A tensor by its name in the container.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let spec = self.tensors().find(|spec| spec.name == name);
        let missing = || WeightsError::MissingTensor { path: self.path().to_owned(), name: name.to_owned() };
        self.container.tensor(spec.ok_or_else(missing)?)
    }

    pub(super) fn family(&self) -> &'static Family {
        self.family
    }

    pub(super) fn size_names(&self) -> &SizeNames {
        &self.names
    }

    /// Whether the model has a tensor that it may lack.
    pub(super) fn has(&self, part: Part, layer: Option<usize>) -> bool {
        self.tensors.contains_key(&(part, layer))
    }

    /// How many values a tensor has.
    pub(super) fn values_of(&self, part: Part, layer: Option<usize>) -> usize {
        let (spec, _) = self.entry(part, layer);
        spec.rows * spec.cols
    }

    /// The format of a tensor, which is not read.
    pub(super) fn format_of(&self, part: Part, layer: Option<usize>) -> Result<WeightFormat, WeightsError> {
        self.container.format(&self.entry(part, layer).0)
    }

    /// A tensor by what it is to the model, its rows in the order in which they are packed.
    pub(super) fn tensor_of(&self, part: Part, layer: Option<usize>) -> Result<Tensor<'_>, WeightsError> {
        let (spec, order) = self.entry(part, layer);
        let tensor = self.container.tensor(spec)?;
        let (path, name, bytes) = (self.path(), &spec.name, tensor.data.len());
        let no_memory = || WeightsError::TensorMemory { path: path.to_owned(), name: name.clone(), bytes };
        order.apply(tensor).ok_or_else(no_memory)
    }

    /// A tensor was packed, and is not needed again.
    pub(super) fn release(&self, part: Part, layer: Option<usize>) {
        let (spec, _) = self.entry(part, layer);
        self.container.release(spec);
        self.packed_bytes.fetch_add(self.bytes_of(spec), Ordering::Relaxed);
    }

    fn bytes_of(&self, spec: &TensorSpec) -> u64 {
        let format = self.container.format(spec);
        format.map_or(0, |format| spec.rows as u64 * format.row_bytes(spec.cols) as u64)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors().map(|spec| self.bytes_of(spec)).sum()
    }

    /// Bytes of the tensors that were packed so far.
    pub fn packed_bytes(&self) -> u64 {
        self.packed_bytes.load(Ordering::Relaxed)
    }

    fn entry(&self, part: Part, layer: Option<usize>) -> &(TensorSpec, RowOrder) {
        let entry = self.tensors.get(&(part, layer));
        entry.unwrap_or_else(|| panic!("{} lists no {part:?} of layer {layer:?}", self.family.name))
    }
}
