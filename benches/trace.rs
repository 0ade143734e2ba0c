//! What a recording costs to take and to render, and what a sampled step costs the engine's thread.

#[path = "../tests/trace/synthetic.rs"]
mod synthetic;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vitrum::report::{self, Export, Format, Report, Table};
use vitrum::request::StepId;
use vitrum::trace::record::{Recorder, Sampler};
use vitrum::trace::schema::{NodeStamp, StepSizes};

use self::synthetic::{Plan, header, options, play};

/// SmolLM2-135M's graphs: 153 nodes a step.
fn plan(nodes: u64) -> Plan {
    let plan = Plan { layers: 30, ..Plan::default() };
    let steps = nodes / plan.step_nodes();
    Plan { steps, ..plan }
}

fn folder() -> PathBuf {
    let path = std::env::temp_dir().join(format!("vitrum-bench-trace-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a folder for the bench");
    path
}

fn trace(criterion: &mut Criterion) {
    let dir = folder();
    let mut group = criterion.benchmark_group("trace");
    group.sample_size(10);

    let small = plan(20_000);
    let graphs = small.graphs();
    group.throughput(Throughput::Elements(small.steps * small.step_nodes()));
    group.bench_function("record", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let mut recorder =
                        Recorder::start(&options(&dir), &header(), &graphs.each_ref()).expect("a recorder");
                    let path = recorder.path().to_owned();
                    let begin = std::time::Instant::now();
                    let expected = play(&small, &mut recorder);
                    let elapsed = begin.elapsed();
                    assert!(recorder.stop(expected).expect("a summary").is_complete());
                    std::fs::remove_file(path).expect("the spool");
                    elapsed
                })
                .sum()
        });
    });

    let mut sampler = Sampler::start(NonZeroU32::MIN, 1).expect("a sampler");
    // Times of 1 to 50 µs.
    let stamp = |i| NodeStamp { start_ns: 1 + 60_000 * i, end_ns: 1_001 + 60_000 * i + 7_919 * i % 49_000, wait_ns: 0 };
    let stamps: Vec<NodeStamp> = (0..small.step_nodes()).map(stamp).collect();
    let mut step = 0;
    group.throughput(Throughput::Elements(small.step_nodes()));
    group.bench_function("sample", |bencher| {
        bencher.iter(|| {
            step += 1;
            let sources = sampler.decide(None);
            sampler.submitted(StepId(step), sources, (StepSizes::default(), 0), graphs.each_ref().map(Some));
            sampler.finished(StepId(step), &stamps, 1_000_000 * step);
        });
    });

    let large = Plan { rest: Duration::from_millis(2), ..plan(1_000_000) };
    let mut recorder = Recorder::start(&options(&dir), &header(), &large.graphs().each_ref()).expect("a recorder");
    let expected = play(&large, &mut recorder);
    let spool = recorder.stop(expected).expect("a summary");
    assert!(spool.is_complete(), "{spool:?}");
    group.throughput(Throughput::Elements(spool.received));
    group.bench_function("render", |bencher| bencher.iter(|| report::render(&spool.path).expect("a trace")));
    for (name, format) in [("speedscope", Export::Speedscope), ("sqlite", Export::Sqlite)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| report::export(&spool.path, format, None).expect("a file"));
        });
    }
    let loaded = Report::load(&spool.path).expect("a report");
    let csv = dir.join("rows.csv");
    group.bench_function("cuda_gpu_trace", |bencher| {
        bencher.iter(|| {
            let tables = [Table::GpuTrace];
            report::write_stats(&spool.path, &loaded, &tables, Format::Csv, &csv).expect("a file")
        });
    });
    group.finish();
    std::fs::remove_dir_all(dir).expect("the folder");
}

criterion_group!(benches, trace);
criterion_main!(benches);
