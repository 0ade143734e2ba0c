//! The CUDA device: what its kernels, in csrc, are given.

pub mod pack;
pub mod rows;
