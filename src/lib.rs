//! vitrum: an LLM inference engine that you can see through.

pub mod bench;
pub mod device;
pub mod ops;
pub mod report;
pub mod request;
pub mod text;
pub mod trace;
pub mod weights;
