//! A CUDA device in software, for tests on machines without one. Never shipped: a dev-dependency of `vitrum`.
//!
//! - `emulate` runs the kernels of csrc on the host. The same `.cu` files are compiled with g++ through the headers in
//!   `simt/`, which give the keywords, intrinsics and PTX functions their meaning in C++.
//!
//! What passes here is right in what it computes, in its barriers and its waits, as far as the emulation sees (see
//! `emulate`). Nothing here says how fast a device is, or how its memory is ordered.

pub mod emulate;
