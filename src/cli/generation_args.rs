//! `--generation-config`: where sampling parameters come from that nobody gives.

use std::path::Path;

use clap::Args;

use crate::model::Checkpoint;
use crate::weights::{GenerationConfig, WeightsError};

/// What the hub calls the file.
const FILE: &str = "generation_config.json";

/// Where sampling parameters come from that a request does not give.
#[derive(Args, Clone, Debug)]
pub(super) struct GenerationArgs {
    /// Where sampling parameters come from that are not given: `auto` = the model's generation_config.json, if it has
    /// one; `vllm` = none of them is set; or the path of such a file, or of its folder
    #[arg(long, value_name = "auto|vllm|PATH", default_value = "auto")]
    generation_config: String,
}

impl GenerationArgs {
    /// What is set, which the log says, too.
    pub(super) fn config(&self, checkpoint: &Checkpoint) -> Result<GenerationConfig, WeightsError> {
        let config = match self.generation_config.as_str() {
            "auto" => checkpoint.generation_config().cloned().unwrap_or_default(),
            "vllm" => GenerationConfig::default(),
            path if Path::new(path).is_dir() => GenerationConfig::read(&Path::new(path).join(FILE))?,
            path => GenerationConfig::read(Path::new(path))?,
        };
        let (applied, not_applied) = (config.applied(), config.not_applied());
        if !applied.is_empty() {
            tracing::info!("sampling defaults of {FILE}: {}", applied.join(", "));
        }
        if !not_applied.is_empty() {
            tracing::warn!("sampling defaults of {FILE}, not applied: {}", not_applied.join(", "));
        }
        Ok(config)
    }
}
