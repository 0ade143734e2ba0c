//! Prompts on SmolLM2-135M-Instruct (Q4_1) with the logits and tokens that a reference computed in f32.

use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    prompts: Vec<Prompt>,
}

/// A prompt and what the reference made of it.
#[derive(Clone, Deserialize)]
pub struct Prompt {
    pub name: String,
    pub text: String,
    pub token_ids: Vec<u32>,
    pub f32_dequant_weights: Reference,
}

/// The reference's answer: the quantised weights expanded to f32, and computed in f32.
#[derive(Clone, Deserialize)]
pub struct Reference {
    /// After the prompt.
    pub top20_ids: Vec<usize>,
    pub top20_logits: Vec<f32>,
    /// The most likely token of each step.
    pub greedy_ids: Vec<u32>,
    /// By how much its logit leads.
    pub step_margin: Vec<f32>,
}

impl Reference {
    /// The largest deviation among the reference's 20 most likely tokens.
    pub fn deviation(&self, logits: &[f32]) -> f32 {
        let pairs = self.top20_ids.iter().zip(&self.top20_logits);
        pairs.map(|(id, expected)| (logits[*id] - expected).abs()).fold(0.0, f32::max)
    }
}

/// All prompts.
pub fn golden() -> Vec<Prompt> {
    let text = include_str!("../data/golden/smollm2-135m-q4_1.json");
    serde_json::from_str::<File>(text).expect("the reference file is ours").prompts
}
