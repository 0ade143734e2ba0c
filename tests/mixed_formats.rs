//! Whole models whose matrices have formats of their own each: near the exact computation, on every instruction set and
//! on the CUDA device, and bit by bit the same in any batch.

#[path = "support/sets.rs"]
mod sets;
mod support;

use sets::sets;
use support::software_gpu::in_child;
use support::steps::{assert_same_bits, deviation, prefill, tokens};
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::formats::WeightFormat;
use vitrum::isa::IsaChoice;
use vitrum::kernels::params::{ACTIVATIONS_F32, ACTIVATIONS_INT8X2};
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::step::{Precision, StepLimits, StepRunner};

const LIMITS: StepLimits = StepLimits { max_tokens: 64, max_seqs: 8, max_model_len: 512, kv_pages: 120 };

/// How far logits may be from the exact ones, as a part of their root mean square: as for models of one format.
const ALLOWED: f64 = 0.02;

fn weights(seed: u64) -> Checkpoint {
    let folder = TempDir::new();
    let model = TinyModel {
        formats_seed: Some(seed),
        head_dim: 32,
        hidden: 96,
        tied_embeddings: seed.is_multiple_of(2),
        seed,
        ..TinyModel::default()
    };
    Checkpoint::open(&model.write(&folder)).expect("a model")
}

fn runner(choice: DeviceChoice, isa: Option<IsaChoice>, weights: &Checkpoint, precision: Precision) -> StepRunner {
    let threads = (choice == DeviceChoice::Cpu).then_some(2);
    let device = Device::open(&DeviceOptions { choice, threads, isa, delay: None, activity: false });
    StepRunner::open(device.expect("the device is there"), weights, &LIMITS, precision, None).expect("the model fits")
}

const REDUCED: Precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };
const EXACT: Precision = Precision { activations: Activations::F32, kv: KvFormat::F32 };

/// Whether matrices of one node are in formats that read unlike forms.
fn is_mixed(weights: &Checkpoint) -> bool {
    let is_quantised = |part: &str| {
        let format = weights.tensor(&format!("blk.0.{part}.weight")).expect("a matrix").format;
        format.block_values() > 1
    };
    let [q, k, v, gate, up] = ["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"].map(is_quantised);
    q != k || k != v || gate != up
}

#[test]
fn cpu_logits_are_near_the_exact_ones_and_depend_on_no_batch() {
    let (mut mixed, prompt) = (0, tokens(70, 5, 256));
    for seed in 1..=8 {
        let weights = weights(seed);
        mixed += usize::from(is_mixed(&weights));
        let exact = prefill(&mut runner(DeviceChoice::Cpu, None, &weights, EXACT), &prompt, 64);
        let mut first: Option<Vec<f32>> = None;
        for isa in sets() {
            let mut runner = runner(DeviceChoice::Cpu, Some(isa), &weights, REDUCED);
            let got = prefill(&mut runner, &prompt, 64);
            let off = deviation(&got, &exact);
            println!("seed {seed}, {isa}: off by {off:.5}");
            assert!(off < ALLOWED, "seed {seed}, {isa}: off by {off}");
            assert_same_bits(&mut runner, &prompt, &got, &format!("seed {seed}, {isa}"));
            if !isa.has_bf16_dot() {
                assert!(*first.get_or_insert_with(|| got.clone()) == got, "seed {seed}, {isa}: other bits");
            }
        }
    }
    assert!(mixed >= 6, "{mixed} models of 8 are mixed");
}

#[test]
fn cuda_logits_are_near_the_exact_ones_and_depend_on_no_batch() {
    in_child("child_cuda_logits_are_near_the_exact_ones_and_depend_on_no_batch");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_cuda_logits_are_near_the_exact_ones_and_depend_on_no_batch() {
    let prompt = tokens(40, 5, 256);
    for seed in 1..=3 {
        let weights = weights(seed);
        let exact = prefill(&mut runner(DeviceChoice::Cpu, None, &weights, EXACT), &prompt, 64);
        let mut runner = runner(DeviceChoice::Cuda, None, &weights, REDUCED);
        let got = prefill(&mut runner, &prompt, 64);
        let off = deviation(&got, &exact);
        eprintln!("seed {seed}: off by {off:.5}");
        assert!(off < ALLOWED, "seed {seed}: off by {off}");
        assert_same_bits(&mut runner, &prompt, &got, &format!("seed {seed}"));
    }
}

/// A matrix is packed by itself on the CPU: what lies beside it in its node costs it neither bytes nor bits.
#[test]
fn the_cpu_packs_a_matrix_as_it_is_whatever_is_beside_it() {
    let options =
        DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(1), isa: None, delay: None, activity: false };
    let mut device = Device::open(&options).expect("the CPU is there");
    let beside = [WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_0];
    let values = vec![0.5; 32 * 96];
    for (format, activations) in [(WeightFormat::F16, ACTIVATIONS_F32), (WeightFormat::Q8_0, ACTIVATIONS_INT8X2)] {
        let data = support::gguf_writer::quantise(format, &values);
        let source = vitrum::device::PackSource { name: "test", format, rows: 32, cols: 96, data: &data };
        let packed = device.pack_beside(&source, Activations::ReducedFine, &beside).expect("a shape");
        assert_eq!((packed.format, packed.activations), (format as u32, activations));
    }
}
