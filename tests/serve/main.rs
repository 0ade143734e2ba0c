//! The real binary, `vitrum serve`, over real HTTP: the same logits whatever else runs, how requests end, bad
//! requests, bad clients, and starts that fail.

mod bad_clients;
mod bad_requests;
mod bad_starts;
mod defaults;
mod endings;
mod outputs;
mod same_bits;
#[path = "../support/mod.rs"]
mod support;
