//! Step latency by bucket: SmolLM2-135M's shape with random Q4_1 weights on the CPU device.
//!
//! `decode/N`: N sequences of 128 tokens get one token each. `prefill/N`: one prompt of N tokens. Both are whole steps:
//! upload, forward graph, sample graph, download.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::formats::WeightFormat;
use vitrum::kernels::params::{PAGE_TOKENS, SampleRow};
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::request::TokenId;
use vitrum::step::{Precision, RowTokens, Rows, StepLimits, StepRunner};
use vitrum::trace::schema::NodeSources;

const CONTEXT: usize = 128;
const MAX_SEQS: usize = 32;
const MAX_TOKENS: usize = 256;
const PAGES_PER_SEQ: usize = (MAX_TOKENS + 1).div_ceil(PAGE_TOKENS as usize);

fn runner() -> StepRunner {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/configs/smollm2-135m.json");
    let weights = Checkpoint::random(&config, WeightFormat::Q4_1, 0).expect("the configuration is a good one");
    let options = DeviceOptions { choice: DeviceChoice::Cpu, threads: None, isa: None, delay: None, activity: false };
    let limits = StepLimits {
        max_tokens: MAX_TOKENS,
        max_seqs: MAX_SEQS,
        max_model_len: PAGES_PER_SEQ * PAGE_TOKENS as usize,
        kv_pages: MAX_SEQS * PAGES_PER_SEQ,
    };
    let precision = Precision { activations: Activations::Reduced, kv: KvFormat::F16 };
    let device = Device::open(&options).expect("the CPU is there");
    StepRunner::open(device, &weights, &limits, precision, None).expect("the model fits")
}

/// One step: `seqs` sequences with `rows` rows each from position `first` on.
fn step(runner: &mut StepRunner, seqs: usize, rows: usize, first: usize) {
    let tokens = vec![TokenId(17); rows];
    let batch = runner.start_batch();
    for seq in 0..seqs {
        let first_page = (seq * PAGES_PER_SEQ) as u32;
        let pages: Vec<u32> = (first_page..first_page + PAGES_PER_SEQ as u32).collect();
        batch.push(&Rows {
            slot: seq as u32,
            tokens: RowTokens::Host(&tokens),
            first_position: first,
            pages: &pages,
            sample: Some(SampleRow { slot: seq as u32, top_p: 1.0, ..SampleRow::default() }),
        });
    }
    let submitted = runner.submit(NodeSources::NONE).expect("the step is within the limits");
    black_box(runner.wait(submitted).expect("the CPU does not fail").token(seqs - 1));
}

fn latency(criterion: &mut Criterion) {
    let mut runner = runner();
    let mut group = criterion.benchmark_group("step");
    for seqs in [1, 2, 4, 8, 16, 32] {
        group.throughput(Throughput::Elements(seqs as u64));
        group.bench_function(BenchmarkId::new("decode", seqs), |b| b.iter(|| step(&mut runner, seqs, 1, CONTEXT)));
    }
    for rows in [16, 64, 256] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::new("prefill", rows), |b| b.iter(|| step(&mut runner, 1, rows, 0)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3))
        .sample_size(20);
    targets = latency
}
criterion_main!(benches);
