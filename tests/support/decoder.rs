//! One sequence on the real model, step by step.

use std::sync::OnceLock;

use vitrum::device::{Device, DeviceChoice, DeviceOptions};
use vitrum::kernels::params::{PAGE_TOKENS, SampleRow};
use vitrum::model::Checkpoint;
use vitrum::request::TokenId;
use vitrum::step::{Precision, RowTokens, Rows, StepLimits, StepRunner};
use vitrum::text::Tokenizer;
use vitrum::trace::schema::NodeSources;

use super::smollm2;

/// The model's weights, opened once.
pub fn weights() -> &'static Checkpoint {
    static WEIGHTS: OnceLock<Checkpoint> = OnceLock::new();
    WEIGHTS.get_or_init(|| Checkpoint::open(&smollm2::path()).expect("the file is whole: its hash was checked"))
}

/// The model's tokenizer.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_spec(weights().tokenizer().expect("the file has one")).expect("it is a known one")
}

/// One sequence, alone on a runner.
pub struct Decoder {
    runner: StepRunner,
    pages: Vec<u32>,
    position: usize,
}

impl Decoder {
    /// An empty sequence of up to 512 tokens.
    pub fn new(precision: Precision) -> Decoder {
        let options =
            DeviceOptions { choice: DeviceChoice::Cpu, threads: None, isa: None, delay: None, activity: false };
        let limits =
            StepLimits { max_tokens: 512, max_seqs: 1, max_model_len: 512, kv_pages: 512 / PAGE_TOKENS as usize };
        let device = Device::open(&options).expect("the CPU is there");
        let runner = StepRunner::open(device, weights(), &limits, precision, None).expect("the model fits");
        // Not in order: the page table has to be followed.
        let pages = (0..limits.kv_pages as u32).rev().collect();
        Decoder { runner, pages, position: 0 }
    }

    /// Feeds tokens in chunks and gives the logits after the last one.
    pub fn prefill(&mut self, tokens: &[TokenId], chunk: usize) -> Vec<f32> {
        let mut logits = Vec::new();
        for chunk in tokens.chunks(chunk) {
            logits = self.step(chunk);
        }
        logits
    }

    /// Feeds one token and gives the logits after it.
    pub fn decode(&mut self, token: TokenId) -> Vec<f32> {
        self.step(&[token])
    }

    fn step(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        let batch = self.runner.start_batch();
        batch.push(&Rows {
            slot: 0,
            tokens: RowTokens::Host(tokens),
            first_position: self.position,
            pages: &self.pages,
            sample: Some(SampleRow { top_p: 1.0, ..SampleRow::default() }),
        });
        self.position += tokens.len();
        let step = self.runner.submit(NodeSources::NONE).expect("the step is within the limits");
        self.runner.wait(step).expect("the CPU does not fail");
        self.runner.logits(1).remove(0)
    }
}
