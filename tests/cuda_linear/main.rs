//! The linear kernels of csrc, compiled for the host, against their scalar references: every form of rows, weight
//! format and number of tokens a block, in every mode of the emulation.

mod bench;
#[allow(dead_code, reason = "the CPU kernels' tests use the rest")]
mod norm;
mod norm_qkv;
mod residual;
