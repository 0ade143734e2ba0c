//! Load generators: [`serve`] loads a server over HTTP, [`latency`] loads an engine in this process. [`remote`] has a
//! word with a server.
//!
//! Flags, printed lines and JSON keys are those of `vllm bench serve` and `vllm bench latency`, so that scripts that
//! read one read the other. Absent: every data set but `random`, and https.

mod client;
pub mod latency;
pub mod remote;
pub mod serve;
mod stats;

pub use self::client::ClientError;
