//! SmolLM2-135M-Instruct (Q4_1) against reference logits and tokens (tests/data/golden): the exact path within rounding
//! of the reference, the reduced path nearer to it than llama.cpp is on the same file.

mod support;

use support::decoder::{self, Decoder};
use support::golden::{Prompt, golden};
use vitrum::device::Activations;
use vitrum::model::KvFormat;
use vitrum::request::TokenId;
use vitrum::step::Precision;

/// The largest deviation of llama.cpp's logits from the reference among the reference's 20 most likely tokens, per
/// prompt of the file: measured with llama.cpp b11434 on the same model file, two threads, AVX2.
const LLAMA_CPP_DEVIATION: [f32; 3] = [0.574377, 0.448856, 0.765329];

fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

fn largest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)));
    best.expect("a vocabulary") as u32
}

/// Feeds the reference's tokens and compares the most likely token of each step whose margin is above `deviation`.
/// Gives the part of steps compared.
fn compare_steps(decoder: &mut Decoder, prompt: &Prompt, deviation: f32) -> f32 {
    let reference = &prompt.f32_dequant_weights;
    let mut logits = decoder.prefill(&tokens(&prompt.token_ids), 512);
    let mut compared = 0;
    for (step, (expected, margin)) in reference.greedy_ids.iter().zip(&reference.step_margin).enumerate() {
        if *margin > deviation {
            assert_eq!(largest(&logits), *expected, "{}: step {step}, whose margin is {margin}", prompt.name);
            compared += 1;
        }
        logits = decoder.decode(TokenId(*expected));
    }
    compared as f32 / reference.greedy_ids.len() as f32
}

#[test]
fn prompts_have_the_reference_token_ids() {
    let tokenizer = decoder::tokenizer();
    for prompt in golden() {
        let ids = tokenizer.encode(&prompt.text, false).expect("the prompt is text");
        assert_eq!(ids, tokens(&prompt.token_ids), "{}", prompt.name);
    }
}

#[test]
fn exact_activations_are_within_rounding_of_the_reference() {
    let precision = Precision { activations: Activations::F32, kv: KvFormat::F32 };
    for prompt in golden() {
        let mut decoder = Decoder::new(precision);
        let logits = decoder.prefill(&tokens(&prompt.token_ids), 512);
        // f32 sums of 30 layers in another order than the reference's.
        let deviation = prompt.f32_dequant_weights.deviation(&logits);
        println!("{}: exact path deviates by {deviation}", prompt.name);
        assert!(deviation <= 1e-3, "{}: a top-20 logit deviates by {deviation}", prompt.name);
        let compared = compare_steps(&mut Decoder::new(precision), &prompt, 1e-3);
        assert!(compared >= 0.95, "{}: only {compared} of the steps have a margin", prompt.name);
    }
}

#[test]
fn reduced_activations_deviate_less_than_llama_cpp_does() {
    let precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };
    let mut compared = Vec::new();
    for (prompt, llama_cpp) in golden().iter().zip(LLAMA_CPP_DEVIATION) {
        let logits = Decoder::new(precision).prefill(&tokens(&prompt.token_ids), 512);
        let deviation = prompt.f32_dequant_weights.deviation(&logits);
        println!("{}: the reduced path deviates by {deviation}, llama.cpp by {llama_cpp}", prompt.name);
        assert!(deviation <= llama_cpp, "{}: deviates by {deviation}, llama.cpp by {llama_cpp}", prompt.name);
        compared.push(compare_steps(&mut Decoder::new(precision), prompt, deviation));
    }
    let mean = compared.iter().sum::<f32>() / compared.len() as f32;
    println!("{mean} of the steps have a margin above the deviation, and its token");
    assert!(mean >= 0.8, "only {mean} of the steps have a margin above the deviation: {compared:?}");
}

#[test]
fn logits_are_bit_equal_in_every_chunking_of_the_prompt() {
    let precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };
    for prompt in golden() {
        let ids = tokens(&prompt.token_ids);
        let whole = Decoder::new(precision).prefill(&ids, 512);
        for chunk in [1, 7, 64] {
            let cut = Decoder::new(precision).prefill(&ids, chunk);
            let differs = whole.iter().zip(&cut).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differs, None, "{}: cut into chunks of {chunk}", prompt.name);
        }
    }
}
