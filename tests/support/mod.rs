//! What several tests share. Each test is a crate of its own and uses a part of it.
#![allow(dead_code, reason = "no test uses all of it")]

pub mod gguf_writer;
pub mod smollm2;
pub mod temp;
pub mod tiny_model;
