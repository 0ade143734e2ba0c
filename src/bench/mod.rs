//! Load generators: [`serve`] loads a server over HTTP, [`latency`] loads an engine in this process.
//!
//! Flags, printed lines and JSON keys are those of `vllm bench serve` and `vllm bench latency`, so that scripts that
//! read one read the other. Absent: every data set but `random`, and https.

pub mod latency;
pub mod serve;
mod stats;
