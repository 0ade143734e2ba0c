//! The linear kernels of csrc, compiled for the host, against their scalar references: every form of rows, weight format
//! and number of tokens a block, in every mode of the emulation.

mod bench;
#[path = "../kernel_bench/mod.rs"]
#[allow(dead_code, reason = "the CPU kernels' tests use the rest")]
mod kernel_bench;
mod norm;
mod norm_qkv;
mod residual;
