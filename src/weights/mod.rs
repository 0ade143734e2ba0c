//! Model files: GGUF read in place, and random weights for a `config.json`.

mod config;

pub use self::config::{Architecture, ModelConfig};
