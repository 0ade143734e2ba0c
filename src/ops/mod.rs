//! Ops: what a node of a step's graph does, in shapes, parameters, cost, and a scalar reference in f64.
//!
//! One file per kernel, under one noun: `src/ops/<op>.rs`, its parameters in `csrc/params.h`, its CPU kernel in
//! `src/device/cpu/kernels/<op>.rs`. An op's struct holds shapes and addresses; `node` asserts that they fit together,
//! and makes the node. What sizes a model may have for that is asked of [`sizes`], before there is any.
//! References are naive on purpose: they are what the kernels are tested against.

pub mod attention;
pub mod embed;
pub mod linear;
pub mod linear_residual;
pub mod next_rows;
pub mod norm_gate_up;
pub mod norm_lm_head;
pub mod norm_qkv;
pub mod sample;
pub mod sizes;
