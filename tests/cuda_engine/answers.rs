//! Answers: near the CPU device's, and bit by bit the same whatever runs beside them.
//!
//! The two devices add in different orders, so their log probabilities differ a little, and where two tokens are about
//! as probable they may choose differently; from there on they say different things. So an answer is compared token by
//! token up to the first difference. Before it all log probabilities have to be near; at it, the CUDA device's token
//! has to be one that the CPU device would have chosen with log probabilities that are as near.

use vitrum::device::DeviceChoice;
use vitrum::engine::{self, Engine, EngineOptions};
use vitrum::formats::WeightFormat;
use vitrum::kernels::sample::uniform;
use vitrum::request::{SamplingParams, TokenId, TokenLogprobs};
use vitrum::step::StepLimits;

use super::support::software_gpu::in_child;
use super::support::tiny_engine::{Answer, CONFIG, prompt, run_all, weights_of};
use super::{LIMITS, TOP, drawn, options, with_logprobs};

type Request = (Vec<TokenId>, SamplingParams);

/// The most by which a log probability may differ between the devices.
const LOGPROB_DEVIATION: f32 = 0.05;

/// The least part of all tokens that has to be compared: before the first differences.
const COMPARED: f64 = 0.6;

fn start(format: WeightFormat, options: &EngineOptions) -> Engine {
    // Heads that the CUDA kernels read; one layer less, since the software GPU is slow.
    let config = CONFIG.replace("\"head_dim\": 16", "\"head_dim\": 32").replace("layers\": 3", "layers\": 2");
    engine::start(&weights_of(&config, format), options).expect("the tiny model fits")
}

/// 33 requests: prompts of one token and of several chunks, greedy and drawn. Drawn ones draw from no more tokens than
/// have log probabilities.
fn requests() -> Vec<Request> {
    let request = |i: u32| {
        let len = [1, 7, 19, 40, 70][i as usize % 5];
        let sampling = match i % 3 {
            0 => with_logprobs(4 + i % 4),
            1 => SamplingParams { top_k: TOP as u32, ..drawn(i.into(), 4 + i % 4) },
            _ => SamplingParams { top_k: TOP as u32, temperature: 0.5, ..drawn(i.into(), 4 + i % 4) },
        };
        (prompt(len, i), sampling)
    };
    (0..33).map(request).collect()
}

/// Whether the CPU device would have chosen `token` if its log probabilities were off by the allowed deviation.
fn may_choose(row: &TokenLogprobs, token: TokenId, sampling: &SamplingParams, position: u32) -> bool {
    let Some(at) = row.top.iter().position(|(id, _)| *id == token) else { return false };
    if sampling.temperature == 0.0 {
        return row.top[0].1 - row.top[at].1 <= 2.0 * LOGPROB_DEVIATION;
    }
    // The token whose part of the line, in descending order, the uniform number falls into. Those that are about as
    // probable may stand before it or behind it.
    let mine = row.top[at].1;
    let weight = |logprob: f32| f64::from(logprob / sampling.temperature).exp();
    let sum: f64 = row.top.iter().map(|(_, logprob)| weight(*logprob)).sum();
    let above = |least: f32| -> f64 {
        let others = row.top.iter().filter(|(id, logprob)| *id != token && *logprob > least);
        others.map(|(_, logprob)| weight(*logprob)).sum::<f64>() / sum
    };
    let (begin, end) = (above(mine + 2.0 * LOGPROB_DEVIATION), above(mine - 2.0 * LOGPROB_DEVIATION));
    // Each weight is off by no more than this part of itself, so is each bound.
    let off = 2.0 * f64::from(LOGPROB_DEVIATION / sampling.temperature);
    let u = uniform(sampling.seed.expect("it is drawn"), position);
    begin - off <= u && u <= end + weight(mine) / sum + off
}

/// Compares two answers of one request; how many tokens were the same.
fn compare(request: &Request, cuda: &Answer, cpu: &Answer) -> usize {
    let (prompt, sampling) = request;
    assert_eq!((cuda.tokens.len(), cuda.logprobs.len()), (cpu.tokens.len(), cuda.tokens.len()));
    for (at, (got, expected)) in cuda.tokens.iter().zip(&cpu.tokens).enumerate() {
        let (got_row, row) = (&cuda.logprobs[at], &cpu.logprobs[at]);
        for (id, logprob) in &got_row.top {
            let expected = row.top.iter().find(|(known, _)| known == id);
            let off = expected.map_or(0.0, |(_, expected)| (logprob - expected).abs());
            assert!(off <= LOGPROB_DEVIATION, "token {at}: {logprob} and not {expected:?}");
        }
        if got != expected {
            let position = (prompt.len() + at) as u32;
            assert!(
                may_choose(row, *got, sampling, position),
                "token {at} of {request:?}: {got:?} and not {expected:?} of {row:?}"
            );
            return at;
        }
    }
    cpu.tokens.len()
}

fn compare_all(what: &str, requests: &[Request], cuda: &[Answer], cpu: &[Answer]) {
    let same: usize = (0..requests.len()).map(|i| compare(&requests[i], &cuda[i], &cpu[i])).sum();
    let all: usize = cpu.iter().map(|answer| answer.tokens.len()).sum();
    eprintln!("{what}: {same} of {all} tokens before the first differences");
    assert!(same as f64 >= COMPARED * all as f64, "{what}: {same} of {all}");
}

#[test]
fn answers_are_the_cpus_and_do_not_depend_on_what_runs_beside_them() {
    in_child("answers::child_answers_are_the_cpus_and_do_not_depend_on_what_runs_beside_them");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_answers_are_the_cpus_and_do_not_depend_on_what_runs_beside_them() {
    // A third of them for the second format: the software GPU is slow.
    let all = requests();
    for (format, requests) in [(WeightFormat::Q4_1, &all[..]), (WeightFormat::Bf16, &all[..11])] {
        let cuda = start(format, &options(DeviceChoice::Cuda));
        assert_eq!(cuda.info().device.kind, "cuda");
        let at_once = run_all(&cuda, requests);
        let cpu = run_all(&start(format, &options(DeviceChoice::Cpu)), requests);
        compare_all(&format!("{format:?}"), requests, &at_once, &cpu);
        // Alone, tokens and log probabilities are the same bit by bit.
        for at in [0, 4, 7] {
            let alone = run_all(&cuda, &requests[at..=at]).remove(0);
            assert_eq!(alone, at_once[at], "{format:?}: request {at} alone");
        }
        cuda.shutdown();
    }
}

#[test]
fn chunks_and_preemption_change_no_answer() {
    in_child("answers::child_chunks_and_preemption_change_no_answer");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_chunks_and_preemption_change_no_answer() {
    let long: Vec<Request> = (0..6).map(|i| (prompt(30, i), with_logprobs(20))).collect();
    let run = |choice, prompt_chunk, kv_pages| {
        let limits = StepLimits { kv_pages, max_model_len: 64, ..LIMITS };
        let engine = start(WeightFormat::Q4_1, &EngineOptions { limits, prompt_chunk, ..options(choice) });
        let answers = run_all(&engine, &long);
        engine.shutdown();
        let metrics = engine.metrics().encode().expect("metrics are text");
        let preemptions =
            metrics.lines().find_map(|line| line.strip_prefix("vllm:num_preemptions_total")?.rsplit_once(' '));
        (answers, preemptions.expect("it is counted").1 != "0")
    };
    let (expected, preempted) = run(DeviceChoice::Cuda, 64, LIMITS.kv_pages);
    assert!(!preempted, "there are pages enough");
    compare_all("long ones", &long, &expected, &run(DeviceChoice::Cpu, 64, LIMITS.kv_pages).0);
    assert!(run(DeviceChoice::Cuda, 7, LIMITS.kv_pages).0 == expected, "prompts in chunks of 7");
    // 6 × 50 positions take 24 pages.
    let (scarce, preempted) = run(DeviceChoice::Cuda, 64, 10);
    assert!(preempted, "pages ran out");
    assert!(scarce == expected, "a preempted request goes on as if nothing had happened");
}
