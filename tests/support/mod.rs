//! What several tests share. Each test is a crate of its own and uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it, and every test is a crate of its own")]

pub mod client;
pub mod decoder;
pub mod folder_writer;
pub mod gguf_writer;
pub mod golden;
pub mod server;
pub mod smollm2;
pub mod software_gpu;
pub mod steps;
pub mod temp;
pub mod tiny_engine;
pub mod tiny_model;

/// The error's text holds these words.
pub fn assert_says(error: impl std::error::Error, expected: &str) {
    let said = error.to_string();
    assert!(said.contains(expected), "{said:?} does not say {expected:?}");
}
