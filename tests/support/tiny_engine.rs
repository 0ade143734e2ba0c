//! A tiny model with random weights, and engines and runners on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::engine::{self, Engine, EngineOptions};
use vitrum::formats::WeightFormat;
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::request::{FinishReason, SamplingParams, TokenEvent, TokenId, TokenLogprobs};
use vitrum::step::{Precision, StepLimits, StepRunner};

/// Odd sizes on purpose: 3 query heads per KV head, a vocabulary that is no multiple of 16.
pub const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 160,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// The tiny model's weights.
pub fn weights(format: WeightFormat) -> Checkpoint {
    weights_of(CONFIG, format)
}

/// Random weights for a configuration.
pub fn weights_of(config: &str, format: WeightFormat) -> Checkpoint {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("vitrum-tiny-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder: PathBuf = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let path = folder.join("config.json");
    std::fs::write(&path, config).expect("a temporary file");
    let weights = Checkpoint::random(&path, format, 1).expect("the configuration is a good one");
    std::fs::remove_dir_all(&folder).expect("the temporary folder is ours");
    weights
}

/// The CPU device with two workers.
pub fn device_options() -> DeviceOptions {
    DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(2), isa: None, delay: None, activity: false }
}

/// Sizes that hold a dozen sequences.
pub fn limits() -> StepLimits {
    StepLimits { max_tokens: 64, max_seqs: 12, max_model_len: 1024, kv_pages: 256 }
}

/// Quantised activations and half-precision keys and values.
pub fn precision() -> Precision {
    Precision { activations: Activations::Reduced, kv: KvFormat::F16 }
}

/// A runner on the tiny model.
pub fn runner(format: WeightFormat, limits: &StepLimits) -> StepRunner {
    let device = Device::open(&device_options()).expect("the CPU is there");
    StepRunner::open(device, &weights(format), limits, precision(), None).expect("the tiny model fits")
}

/// Options of an engine on the tiny model.
pub fn engine_options() -> EngineOptions {
    EngineOptions {
        served_name: "tiny".into(),
        device: device_options(),
        precision: precision(),
        limits: limits(),
        kv_fraction: None,
        prompt_chunk: 64,
        max_waiting: 64,
        capture_all: false,
        sample_every: None,
    }
}

/// An engine on the tiny model.
pub fn engine(options: &EngineOptions) -> Engine {
    engine::start(&weights(WeightFormat::Q4_1), options).expect("the tiny model fits")
}

/// A prompt of `len` tokens that depends on `seed`.
pub fn prompt(len: usize, seed: u32) -> Vec<TokenId> {
    (0..len as u32).map(|i| TokenId((i * 37 + seed * 101 + 11) % 331)).collect()
}

/// Greedy, without an end but the length.
pub fn greedy(max_tokens: u32) -> SamplingParams {
    SamplingParams { temperature: 0.0, max_tokens, ignore_eos: true, ..SamplingParams::default() }
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub tokens: Vec<TokenId>,
    pub logprobs: Vec<TokenLogprobs>,
    pub reason: FinishReason,
}

/// Runs requests at once and waits for all answers, in the order of the requests.
pub fn run_all(engine: &Engine, requests: &[(Vec<TokenId>, SamplingParams)]) -> Vec<Answer> {
    let streams: Vec<_> = requests
        .iter()
        .map(|(prompt, sampling)| engine.submit(prompt.clone(), sampling.clone()).expect("a good request"))
        .collect();
    streams.into_iter().map(answer).collect()
}

/// Reads a stream to its end.
pub fn answer(mut stream: engine::TokenStream) -> Answer {
    let (mut tokens, mut all_logprobs) = (Vec::new(), Vec::new());
    while let Some(event) = stream.blocking_next() {
        match event {
            TokenEvent::Token { token, logprobs, last } => {
                tokens.push(token);
                all_logprobs.extend(logprobs.map(|logprobs| *logprobs));
                if let Some(last) = last {
                    return Answer { tokens, logprobs: all_logprobs, reason: last.reason() };
                }
            }
            TokenEvent::Failed(error) => panic!("the request failed: {error}"),
        }
    }
    panic!("the stream ended without a last event after {} tokens", tokens.len());
}
