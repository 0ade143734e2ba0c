//! Random weights: a model of the right shape and speed without its file (`--load-format dummy`).
//!
//! Tensors are made when they are asked for and are not kept: a model never is in memory twice.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::config_json::ConfigJson;
use super::{Container, Keys, Naming, Tensor, TensorSpec, TokenizerSpec, WeightsError};
use crate::formats::WeightFormat;
use crate::formats::random::Stream;

/// Below this size a second thread costs more than it brings.
const BYTES_PER_THREAD_MIN: usize = 1 << 20;

/// Random weights for a `config.json`. Tensors have GGUF's names.
#[derive(Debug)]
pub struct Dummy {
    path: PathBuf,
    config: ConfigJson,
    format: WeightFormat,
    seed: u64,
}

impl Dummy {
    /// Reads the configuration; matrices will have this format.
    pub fn open(config_json: &Path, format: WeightFormat, seed: u64) -> Result<Dummy, WeightsError> {
        let config = ConfigJson::read(config_json)?;
        Ok(Dummy { path: config_json.to_owned(), config, format, seed })
    }

    /// The same for the text of such a file; errors name it as `config_json`.
    pub fn of_text(text: &str, config_json: &Path, format: WeightFormat, seed: u64) -> Result<Dummy, WeightsError> {
        let config = ConfigJson::parse(text.as_bytes(), config_json)?;
        Ok(Dummy { path: config_json.to_owned(), config, format, seed })
    }
}

impl Container for Dummy {
    fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder's.
    fn name(&self) -> String {
        let folder = self.path.parent().and_then(Path::file_name).unwrap_or(self.path.as_os_str());
        folder.to_string_lossy().into_owned()
    }

    fn architecture(&self) -> &str {
        &self.config.architecture
    }

    fn key_naming(&self) -> Naming {
        Naming::HuggingFace
    }

    fn keys(&self) -> Keys<'_> {
        self.config.keys(&self.path)
    }

    fn tensor_naming(&self) -> Naming {
        Naming::Gguf
    }

    fn tensor_names(&self) -> Option<Vec<&str>> {
        None
    }

    /// Vectors are f32.
    fn format(&self, tensor: &TensorSpec) -> Result<WeightFormat, WeightsError> {
        let &TensorSpec { ref name, rows, cols } = tensor;
        let format = if rows == 1 { WeightFormat::F32 } else { self.format };
        if cols.is_multiple_of(format.block_values()) {
            return Ok(format);
        }
        Err(WeightsError::TensorBlocks { path: self.path.clone(), name: name.clone(), format, cols })
    }

    /// Always the same for the same seed and name.
    fn tensor<'a>(&'a self, tensor: &'a TensorSpec) -> Result<Tensor<'a>, WeightsError> {
        let format = self.format(tensor)?;
        let &TensorSpec { ref name, rows, cols } = tensor;
        let bytes = rows.saturating_mul(format.row_bytes(cols));
        let no_memory = |_| WeightsError::TensorMemory { path: self.path.clone(), name: name.clone(), bytes };
        // Asked first: memory that comes zeroed is not touched by one thread alone, and cannot be refused.
        Vec::<u8>::new().try_reserve_exact(bytes).map_err(no_memory)?;
        let mut data = vec![0; bytes];
        let mut stream = Stream::of_tensor(self.seed, name);
        match rows {
            1 => stream.fill_f32(&mut data, 1.0, 0.125), // around 1: the gains of a norm
            _ => fill_matrix(format, stream, cols, &mut data),
        }
        Ok(Tensor { name, format, rows, cols, data: Cow::Owned(data) })
    }

    fn tokenizer(&self) -> Option<&TokenizerSpec> {
        None
    }
}

/// Fills rows with values of mean 0 and standard deviation 1/√cols: a row's product with an input of unit variance has
/// unit variance. Values are uniform within a block.
fn fill_matrix(format: WeightFormat, stream: Stream, cols: usize, data: &mut [u8]) {
    // A uniform distribution over ±a has standard deviation a/√3.
    let amplitude = (3.0 / cols as f32).sqrt();
    let row_bytes = format.row_bytes(cols);
    let rows = data.len() / row_bytes;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (data.len() / BYTES_PER_THREAD_MIN).clamp(1, cores);
    let rows_per_thread = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        for (index, part) in data.chunks_mut(rows_per_thread * row_bytes).enumerate() {
            let mut fill = move || {
                for (row, bytes) in part.chunks_exact_mut(row_bytes).enumerate() {
                    format.fill_row(bytes, &mut stream.of_row(index * rows_per_thread + row), amplitude);
                }
            };
            if threads == 1 { fill() } else { drop(scope.spawn(fill)) }
        }
    });
}
