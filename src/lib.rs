//! vitrum: an LLM inference engine that you can see through.

pub mod device;
pub mod engine;
pub mod http;
pub mod request;
pub mod text;
pub mod trace;
pub mod weights;
