//! The engine on a tiny random model: what runs beside a request must not change its answer.

mod support;

use std::time::{Duration, Instant};

use support::tiny_engine::*;
use vitrum::engine::EngineOptions;
use vitrum::request::{FinishReason, RequestError, SamplingParams, TokenId};
use vitrum::step::StepLimits;

/// Six different requests: short and long prompts, greedy and drawn, with log probabilities.
fn requests() -> Vec<(Vec<TokenId>, SamplingParams)> {
    let drawn = |seed| SamplingParams { temperature: 0.9, seed: Some(seed), ..with_logprobs(24) };
    vec![
        (prompt(1, 1), with_logprobs(24)),
        (prompt(17, 2), with_logprobs(40)),
        (prompt(300, 3), with_logprobs(12)),
        (prompt(33, 4), drawn(99)),
        (prompt(5, 5), SamplingParams { top_k: 20, ..drawn(7) }),
        (prompt(64, 6), SamplingParams { top_p: 0.8, ..drawn(8) }),
    ]
}

fn with_logprobs(max_tokens: u32) -> SamplingParams {
    SamplingParams { logprobs: Some(20), ..greedy(max_tokens) }
}

/// Each request on an engine of its own: nothing else runs, prompts in one chunk.
fn alone() -> Vec<Answer> {
    let options =
        EngineOptions { limits: StepLimits { max_tokens: 512, ..limits() }, prompt_chunk: 512, ..engine_options() };
    let engine = engine(&options);
    requests().into_iter().map(|request| run_all(&engine, &[request]).remove(0)).collect()
}

#[test]
fn an_answer_does_not_depend_on_what_runs_beside_it() {
    let expected = alone();
    assert!(expected.iter().all(|answer| answer.logprobs.len() == answer.tokens.len()));
    let engine = engine(&engine_options());
    assert_eq!(run_all(&engine, &requests()), expected, "all at once: tokens and log probabilities bit by bit");
}

#[test]
fn an_answer_does_not_depend_on_how_its_prompt_is_cut() {
    let expected = alone();
    for prompt_chunk in [1, 7, 64] {
        let engine = engine(&EngineOptions { prompt_chunk, ..engine_options() });
        assert_eq!(run_all(&engine, &requests()), expected, "prompts cut into chunks of {prompt_chunk}");
    }
}

#[test]
fn a_preempted_request_goes_on_as_if_nothing_had_happened() {
    let long: Vec<_> = (0..6).map(|i| (prompt(40, i), with_logprobs(100))).collect();
    let expected = run_all(&engine(&engine_options()), &long);
    // 6 × 140 positions take 54 pages; 20 hold two of them.
    let scarce = StepLimits { kv_pages: 20, max_model_len: 320, ..limits() };
    let engine = engine(&EngineOptions { limits: scarce, ..engine_options() });
    assert_eq!(run_all(&engine, &long), expected);
    let metrics = engine.metrics().encode().expect("metrics are text");
    let preemptions =
        metrics.lines().find(|line| line.starts_with("vllm:num_preemptions_total")).expect("it is counted");
    assert!(!preemptions.ends_with(" 0"), "pages ran out: {preemptions}");
    assert_eq!(run_all(&engine, &long), expected, "and again: every page came back");
}

#[test]
fn more_requests_than_slots_are_served_in_turn() {
    let many: Vec<_> = (0..33).map(|i| (prompt(3 + i as usize % 20, i), greedy(9))).collect();
    let engine = engine(&engine_options());
    let expected: Vec<_> =
        many.iter().map(|request| run_all(&engine, std::slice::from_ref(request)).remove(0)).collect();
    assert_eq!(run_all(&engine, &many), expected);
}

#[test]
fn a_request_ends_at_its_limits_and_at_its_stop_tokens() {
    let engine = engine(&engine_options());
    let free = run_all(&engine, &[(prompt(9, 1), greedy(20))]).remove(0);
    assert_eq!((free.tokens.len(), free.reason), (20, FinishReason::Length));

    let stop = free.tokens[6];
    let first = free.tokens.iter().position(|token| *token == stop).expect("it is there");
    let stopping = SamplingParams { stop_token_ids: vec![stop], ..greedy(20) };
    let stopped = run_all(&engine, &[(prompt(9, 1), stopping)]).remove(0);
    assert_eq!((stopped.tokens.as_slice(), stopped.reason), (&free.tokens[..=first], FinishReason::Stop));

    // The model's limit: 1024 positions for prompt and answer.
    let full = run_all(&engine, &[(prompt(1020, 1), greedy(20))]).remove(0);
    assert_eq!((full.tokens.len(), full.reason), (4, FinishReason::Length));
}

#[test]
fn a_seed_gives_the_same_tokens_and_another_seed_others() {
    let engine = engine(&engine_options());
    let drawn = |seed| (prompt(9, 1), SamplingParams { temperature: 1.0, seed: Some(seed), ..greedy(32) });
    let answers = run_all(&engine, &[drawn(1), drawn(1), drawn(2)]);
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0].tokens, answers[2].tokens);
}

#[test]
fn a_dropped_stream_ends_its_request() {
    let engine = engine(&engine_options());
    let stream = engine.submit(prompt(9, 1), greedy(1000)).expect("a good request");
    drop(stream);
    let start = Instant::now();
    loop {
        let metrics = engine.metrics().encode().expect("metrics are text");
        if metrics.lines().any(|line| line.contains("finished_reason=\"abort\"") && line.ends_with(" 1")) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the request goes on:\n{metrics}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_batch_is_queued_whole_or_not_at_all() {
    let engine = engine(&EngineOptions { max_waiting: 3, ..engine_options() });
    let batch = |count: u32| (0..count).map(|i| (prompt(5, i), greedy(9))).collect::<Vec<_>>();
    let refused = |requests| engine.submit_batch(requests).expect_err("it has to be refused");
    assert_eq!(refused([batch(2), vec![(vec![], greedy(1))]].concat()), RequestError::EmptyPrompt);
    assert_eq!(refused(batch(4)), RequestError::QueueFull { limit: 3 });
    // What was refused holds no place in the queue, and was never run.
    let steps = engine.watch_steps(100);
    let streams = engine.submit_batch(batch(3)).expect("there is room for three");
    let answers: Vec<_> = streams.into_iter().map(answer).collect();
    assert_eq!(answers, run_all(&engine, &batch(3)), "the same as one by one");
    let sequences: Vec<u64> = steps.try_iter().take(9).map(|done| done.sizes.seqs).collect();
    assert_eq!(sequences, [3; 9]);
}

#[test]
fn bad_requests_are_refused_by_name() {
    let engine = engine(&EngineOptions { max_waiting: 2, ..engine_options() });
    let refused = |prompt: Vec<TokenId>, sampling: SamplingParams| {
        engine.submit(prompt, sampling).expect_err("it has to be refused")
    };
    assert_eq!(refused(vec![], greedy(1)), RequestError::EmptyPrompt);
    assert_eq!(refused(prompt(1024, 1), greedy(1)), RequestError::PromptTooLong { tokens: 1024, limit: 1024 });
    let outside = RequestError::TokenOutOfRange { token: 331, position: 1, vocab: 331 };
    assert_eq!(refused(vec![TokenId(0), TokenId(331)], greedy(1)), outside);
    for (name, sampling) in [
        ("max_tokens", greedy(0)),
        ("temperature", SamplingParams { temperature: -0.5, ..greedy(1) }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..greedy(1) }),
        ("top_p", SamplingParams { top_p: 0.0, ..greedy(1) }),
        ("logprobs", SamplingParams { logprobs: Some(21), ..greedy(1) }),
    ] {
        let error = refused(prompt(3, 1), sampling);
        assert!(matches!(error, RequestError::InvalidParameter { name: named, .. } if named == name), "{error}");
    }
}

#[test]
fn a_full_queue_refuses_and_shutdown_finishes_what_was_accepted() {
    let limits = StepLimits { max_seqs: 1, ..limits() };
    let engine = engine(&EngineOptions { max_waiting: 2, limits, ..engine_options() });
    let mut accepted = Vec::new();
    let full = loop {
        match engine.submit(prompt(200, 1), greedy(200)) {
            Ok(stream) => accepted.push(stream),
            Err(error) => break error,
        }
        assert!(accepted.len() < 64, "the queue never fills");
    };
    assert_eq!(full, RequestError::QueueFull { limit: 2 });
    engine.shutdown();
    assert!(!engine.is_alive());
    assert_eq!(engine.submit(prompt(3, 1), greedy(1)).expect_err("it has ended"), RequestError::ShuttingDown);
    for stream in accepted {
        assert_eq!(answer(stream).tokens.len(), 200);
    }
}

#[test]
fn a_step_that_would_not_fit_the_staging_memory_is_refused_at_the_start() {
    let limits = StepLimits { max_tokens: 100_000, max_seqs: 100_000, max_model_len: 1024, kv_pages: 256 };
    let error = vitrum::engine::start(
        &weights(vitrum::formats::WeightFormat::Q4_1),
        &EngineOptions { limits, ..engine_options() },
    )
    .expect_err("100,000 page tables are more than a step may upload");
    assert!(error.to_string().contains("lower --max-num-seqs"), "{error}");
}
