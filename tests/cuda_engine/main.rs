//! The whole engine on the CUDA device, on the software driver of tests/softcuda: what it answers, and how it fails.

mod answers;
mod faults;
mod serving;
#[path = "../support/mod.rs"]
mod support;

use vitrum::device::{DeviceChoice, DeviceOptions};
use vitrum::engine::EngineOptions;
use vitrum::request::SamplingParams;
use vitrum::step::StepLimits;

use self::support::tiny_engine::{device_options, engine_options, greedy};

/// The most alternatives that log probabilities are given of.
const TOP: usize = 20;

/// Sizes that hold 33 requests at once.
const LIMITS: StepLimits = StepLimits { max_tokens: 96, max_seqs: 33, max_model_len: 512, kv_pages: 512 };

fn options(choice: DeviceChoice) -> EngineOptions {
    let device = DeviceOptions { choice, ..device_options() };
    EngineOptions { device, limits: LIMITS, prompt_chunk: 32, ..engine_options() }
}

/// Greedy, with all log probabilities that there are.
fn with_logprobs(max_tokens: u32) -> SamplingParams {
    SamplingParams { logprobs: Some(TOP as u32), ..greedy(max_tokens) }
}

/// Drawn with a seed.
fn drawn(seed: u64, max_tokens: u32) -> SamplingParams {
    SamplingParams { temperature: 0.9, seed: Some(seed), ..with_logprobs(max_tokens) }
}
