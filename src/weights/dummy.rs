//! Random weights: a model of the right shape and speed without its file (`--load-format dummy`).
//!
//! Tensors are made when they are asked for and are not kept: a model never is in memory twice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::dummy_config::DummyConfig;
use super::random::{Stream, fill_norm, fill_row};
use super::{Keys, ModelConfig, Tensor, TensorSpec, WeightsError};
use crate::device::WeightFormat;

/// Below this size a second thread costs more than it brings.
const BYTES_PER_THREAD_MIN: usize = 1 << 20;

/// Random weights in the shapes of a `config.json`.
#[derive(Debug)]
pub struct Dummy {
    path: PathBuf,
    format: WeightFormat,
    seed: u64,
    config: ModelConfig,
    keys: &'static Keys,
    specs: HashMap<String, TensorSpec>,
    /// `rope_freqs.weight`, which is computed, not drawn.
    rope_factors: Option<Vec<f32>>,
}

impl Dummy {
    /// Reads the configuration; matrices will have this format.
    pub fn open(config_json: &Path, format: WeightFormat, seed: u64) -> Result<Dummy, WeightsError> {
        Dummy::new(DummyConfig::read(config_json)?, config_json, format, seed)
    }

    /// The same for the text of such a file; errors name it as `config_json`.
    pub fn of_text(text: &str, config_json: &Path, format: WeightFormat, seed: u64) -> Result<Dummy, WeightsError> {
        Dummy::new(DummyConfig::parse(text.as_bytes(), config_json)?, config_json, format, seed)
    }

    fn new(config: DummyConfig, config_json: &Path, format: WeightFormat, seed: u64) -> Result<Dummy, WeightsError> {
        let DummyConfig { model, keys, rope_factors } = config;
        let mut specs: Vec<TensorSpec> = model.tensors();
        if rope_factors.is_some() {
            specs.push(model.rope_frequency_factors());
        }
        if let Some(spec) = specs.iter().find(|spec| spec.rows > 1 && !spec.cols.is_multiple_of(format.block_values()))
        {
            let (path, name) = (config_json.to_owned(), spec.name.clone());
            return Err(WeightsError::TensorBlocks { path, name, format, cols: spec.cols });
        }
        let specs = specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Ok(Dummy { path: config_json.to_owned(), format, seed, config: model, keys, specs, rope_factors })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The configuration's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it calls the model's numbers.
    pub fn keys(&self) -> &'static Keys {
        self.keys
    }

    /// The format of a tensor: vectors are f32.
    pub fn format(&self, name: &str) -> Result<WeightFormat, WeightsError> {
        self.spec(name).map(|spec| if spec.rows == 1 { WeightFormat::F32 } else { self.format })
    }

    fn spec(&self, name: &str) -> Result<&TensorSpec, WeightsError> {
        let missing = || WeightsError::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        self.specs.get(name).ok_or_else(missing)
    }

    /// Whether the model has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.specs.contains_key(name)
    }

    /// Makes a tensor: always the same for the same seed and name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        let TensorSpec { name, rows, cols } = self.spec(name)?;
        let (rows, cols) = (*rows, *cols);
        let stream = Stream::of_tensor(self.seed, name);
        let (format, data) = match &self.rope_factors {
            Some(factors) if name == "rope_freqs.weight" => {
                (WeightFormat::F32, factors.iter().flat_map(|factor| factor.to_le_bytes()).collect())
            }
            _ if rows == 1 => {
                let mut data = vec![0; WeightFormat::F32.row_bytes(cols)];
                fill_norm(stream, &mut data);
                (WeightFormat::F32, data)
            }
            _ => {
                let bytes = rows.saturating_mul(self.format.row_bytes(cols));
                let no_memory = |_| WeightsError::TensorMemory { path: self.path.clone(), name: name.clone(), bytes };
                // Asked first: memory that comes zeroed is not touched by one thread alone, and cannot be refused.
                Vec::<u8>::new().try_reserve_exact(bytes).map_err(no_memory)?;
                let mut data = vec![0; bytes];
                fill_matrix(self.format, stream, cols, &mut data);
                (self.format, data)
            }
        };
        Ok(Tensor { name, format, rows, cols, data: Cow::Owned(data) })
    }
}

fn fill_matrix(format: WeightFormat, stream: Stream, cols: usize, data: &mut [u8]) {
    let row_bytes = format.row_bytes(cols);
    let rows = data.len() / row_bytes;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (data.len() / BYTES_PER_THREAD_MIN).clamp(1, cores);
    let rows_per_thread = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        for (index, part) in data.chunks_mut(rows_per_thread * row_bytes).enumerate() {
            let mut fill = move || {
                for (row, bytes) in part.chunks_exact_mut(row_bytes).enumerate() {
                    fill_row(format, stream.of_row(index * rows_per_thread + row), cols, bytes);
                }
            };
            if threads == 1 { fill() } else { drop(scope.spawn(fill)) }
        }
    });
}
