//! Hugging Face's model folders: `config.json`, weights in safetensors, and what the tokenizer is made from.

mod shards;
mod texts;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use self::shards::Shards;
use super::config_json::ConfigJson;
use super::{Container, GenerationConfig, Keys, Naming, Tensor, TensorSpec, TokenizerSpec, WeightsError};
use crate::formats::WeightFormat;

/// The file that describes the model.
const CONFIG: &str = "config.json";

/// How its makers draw tokens from it.
const GENERATION_CONFIG: &str = "generation_config.json";

/// Tensors that say nothing: tables of the rotary embedding that old versions of transformers wrote.
const SILENT_SUFFIX: &str = ".rotary_emb.inv_freq";

/// An open model folder.
#[derive(Debug)]
pub struct Folder {
    folder: PathBuf,
    config_path: PathBuf,
    config: ConfigJson,
    shards: Shards,
    tokenizer: Option<TokenizerSpec>,
    tokenizer_fault: Option<WeightsError>,
    end_tokens: Vec<u32>,
    generation_config: Option<GenerationConfig>,
}

impl Folder {
    /// Opens a folder.
    pub fn open(folder: &Path) -> Result<Folder, WeightsError> {
        let config_path = folder.join(CONFIG);
        let config = ConfigJson::read(&config_path)?;
        let shards = Shards::open(folder)?;
        let (tokenizer, end_tokens, tokenizer_fault) = match texts::read(folder) {
            Ok((tokenizer, end_tokens)) => (tokenizer, end_tokens, None),
            Err(fault) => (None, Vec::new(), Some(fault)),
        };
        let path = folder.join(GENERATION_CONFIG);
        let generation_config = path.is_file().then(|| GenerationConfig::read(&path)).transpose()?;
        let folder = folder.to_owned();
        Ok(Folder { folder, config_path, config, shards, tokenizer, tokenizer_fault, end_tokens, generation_config })
    }
}

impl Container for Folder {
    fn path(&self) -> &Path {
        &self.config_path
    }

    /// The folder's own; in the cache of the hub, `owner/name`.
    fn name(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        // models--owner--name/snapshots/commit
        let repository = folder.parent().filter(|parent| name(parent) == "snapshots").and_then(Path::parent).map(name);
        let id = repository.as_deref().and_then(|repository| repository.strip_prefix("models--"));
        id.map_or_else(|| name(&folder), |id| id.replacen("--", "/", 1))
    }

    fn architecture(&self) -> &str {
        &self.config.architecture
    }

    fn key_naming(&self) -> Naming {
        Naming::HuggingFace
    }

    fn keys(&self) -> Keys<'_> {
        self.config.keys(&self.config_path)
    }

    fn tensor_naming(&self) -> Naming {
        Naming::HuggingFace
    }

    fn tensor_names(&self) -> Option<Vec<&str>> {
        Some(self.shards.names().filter(|name| !name.ends_with(SILENT_SUFFIX)).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.shards.has(name)
    }

    fn format(&self, tensor: &TensorSpec) -> Result<WeightFormat, WeightsError> {
        self.shards.format(tensor, &self.folder)
    }

    fn tensor<'a>(&'a self, tensor: &'a TensorSpec) -> Result<Tensor<'a>, WeightsError> {
        let format = self.format(tensor)?;
        let data = Cow::Borrowed(self.shards.data(&tensor.name));
        Ok(Tensor { name: &tensor.name, format, rows: tensor.rows, cols: tensor.cols, data })
    }

    fn release(&self, tensor: &TensorSpec) {
        self.shards.release(&tensor.name);
    }

    fn tokenizer(&self) -> Option<&TokenizerSpec> {
        self.tokenizer.as_ref()
    }

    /// Those of the generation configuration, then the tokenizer's own.
    fn end_tokens(&self) -> Vec<u32> {
        let configured = self.generation_config.iter().flat_map(|config| &config.eos_token_ids);
        configured.chain(&self.end_tokens).copied().collect()
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        self.generation_config.as_ref()
    }

    fn take_tokenizer_fault(&mut self) -> Option<WeightsError> {
        self.tokenizer_fault.take()
    }
}
