//! Families of models: what tiny ones compute is what transformers computes, from either container, on either device.

#[path = "support/family.rs"]
mod family;
mod support;

use family::{Expected, Fixture};
use support::software_gpu::in_child;
use support::steps::{assert_same_bits, prefill, push, run};
use support::temp::TempDir;
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::request::TokenId;
use vitrum::step::{Precision, RowTokens, StepLimits, StepRunner};

const LIMITS: StepLimits = StepLimits { max_tokens: 64, max_seqs: 8, max_model_len: 128, kv_pages: 120 };
const EXACT: Precision = Precision { activations: Activations::F32, kv: KvFormat::F32 };
const REDUCED: Precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };

/// Two implementations in f32 differ by the order of their sums.
const ALLOWED: f32 = 1e-3;
/// bf16 activations and an f16 cache, as a part of the logits' root mean square: a rounding of 2⁻⁹ in each of up to
/// three dozen products, in models whose scores are made large. transformers itself moves by as much in bf16.
const ALLOWED_REDUCED: f64 = 0.05;

/// Variants with a part that is not there yet, and the words of their refusal.
const REFUSED: [(&str, &str); 11] = [
    ("gemma2", "architecture Gemma2ForCausalLM is not supported"),
    ("gemma2-scalar", "architecture Gemma2ForCausalLM is not supported"),
    ("gemma2-wide", "architecture Gemma2ForCausalLM is not supported"),
    ("gemma3", "architecture Gemma3ForCausalLM is not supported"),
    ("gemma3-layers", "architecture Gemma3ForCausalLM is not supported"),
    ("gemma3-nested", "architecture Gemma3ForConditionalGeneration is not supported"),
    ("mistral", "sliding_window = "),
    ("phi3", "architecture Phi3ForCausalLM is not supported"),
    ("phi3-long", "architecture Phi3ForCausalLM is not supported"),
    ("phi3-short", "architecture Phi3ForCausalLM is not supported"),
    ("qwen2-window", "use_sliding_window = true is not supported"),
];

fn is_refused(fixture: &Fixture) -> bool {
    fixture.variant == "phi4-mini" || REFUSED.iter().any(|(variant, _)| *variant == fixture.variant)
}

fn supported() -> impl Iterator<Item = Fixture> {
    Fixture::all().into_iter().filter(|fixture| !is_refused(fixture))
}

/// A model in each container, with what it has to compute.
fn containers(fixture: &Fixture) -> [(&'static str, Checkpoint, &Expected); 2] {
    let folder = TempDir::new();
    let opened =
        |result: Result<Checkpoint, _>| result.unwrap_or_else(|error: vitrum::weights::WeightsError| panic!("{error}"));
    let of_folder = opened(Checkpoint::open_folder(&fixture.write_folder(&folder)));
    let of_gguf = opened(Checkpoint::open(&fixture.write_gguf(&folder)));
    [("safetensors", of_folder, &fixture.expect), ("GGUF", of_gguf, fixture.expect_of_gguf())]
}

fn runner(choice: DeviceChoice, weights: &Checkpoint, precision: Precision) -> StepRunner {
    let threads = (choice == DeviceChoice::Cpu).then_some(2);
    let device = Device::open(&DeviceOptions { choice, threads, isa: None, delay: None, activity: false });
    StepRunner::open(device.expect("the device is there"), weights, &LIMITS, precision, None).expect("the model fits")
}

/// The 20 largest logits are those.
fn assert_top_20(what: &str, got: &[f32], expected: &[(u32, f32)]) {
    for (token, logit) in expected {
        let off = (got[*token as usize] - logit).abs();
        assert!(off <= ALLOWED, "{what}: logit of token {token} is {} and not {logit}", got[*token as usize]);
    }
    let mut sorted = got.to_vec();
    sorted.sort_by(|one, other| other.total_cmp(one));
    let least = expected.iter().map(|(_, logit)| *logit).fold(f32::INFINITY, f32::min);
    assert!(sorted[expected.len()] <= least + ALLOWED, "{what}: another token has {}", sorted[expected.len()]);
}

/// The tokens that follow, each the largest logit, as far as it is so by more than the margin.
fn assert_greedy(what: &str, runner: &mut StepRunner, fixture: &Fixture, expected: &Expected, margin: f32) {
    let mut logits = prefill(runner, &fixture.prompt(), 64);
    for (index, (token, ahead)) in expected.greedy.iter().zip(&expected.greedy_margins).enumerate() {
        let largest = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).expect("logits").0;
        if *ahead <= margin {
            return;
        }
        assert_eq!(largest as u32, *token, "{what}: token {index}");
        push(runner, 0, RowTokens::Host(&[TokenId(*token)]), fixture.prompt.len() + index);
        logits = run(runner, 1).remove(0);
    }
}

#[test]
fn logits_are_those_of_transformers_from_both_containers() {
    for fixture in supported() {
        for (container, weights, expected) in &containers(&fixture) {
            let what = format!("{} as {container}", fixture.variant);
            let mut runner = runner(DeviceChoice::Cpu, weights, EXACT);
            let prompt = fixture.prompt();
            assert_top_20(
                &format!("{what}, position 50"),
                &prefill(&mut runner, &prompt[..51], 64),
                &expected.position_50,
            );
            let last = prefill(&mut runner, &prompt, 64);
            assert_top_20(&what, &last, &expected.last);
            assert_same_bits(&mut runner, &prompt, &last, &what);
            assert_greedy(&what, &mut runner, &fixture, expected, 2.0 * ALLOWED);
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let fixtures = Fixture::all();
    for (variant, words) in REFUSED {
        let fixture = fixtures.iter().find(|fixture| fixture.variant == variant).expect("a fixture");
        let folder = TempDir::new();
        let error = Checkpoint::open_folder(&fixture.write_folder(&folder)).expect_err(variant);
        support::assert_says(error, words);
    }
}

#[test]
fn a_cuda_device_computes_what_the_cpu_does() {
    in_child("child_a_cuda_device_computes_what_the_cpu_does");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_a_cuda_device_computes_what_the_cpu_does() {
    for fixture in supported() {
        let [(_, weights, expected), _] = containers(&fixture);
        let config = weights.config();
        // No kernel of CUDA's adds those (features.md), and none writes less than a block for a KV head.
        let outputs = config.heads / config.kv_heads * config.head_dim;
        if config.biases.mlp || !outputs.is_multiple_of(32) {
            eprintln!("{}: not for a GPU", fixture.variant);
            continue;
        }
        let prompt = fixture.prompt();
        let exact = prefill(&mut runner(DeviceChoice::Cpu, &weights, EXACT), &prompt, 64);
        let mut runner = runner(DeviceChoice::Cuda, &weights, REDUCED);
        let got = prefill(&mut runner, &prompt, 64);
        let off = support::steps::deviation(&got, &exact);
        eprintln!("{}: off by {off:.5}", fixture.variant);
        assert!(off < ALLOWED_REDUCED, "{}: off by {off}", fixture.variant);
        assert_same_bits(&mut runner, &prompt, &got, &fixture.variant);
        assert_greedy(&fixture.variant, &mut runner, &fixture, expected, 0.3);
    }
}
