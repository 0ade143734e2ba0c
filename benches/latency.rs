//! Latency of a step, by bucket.
fn main() {}
