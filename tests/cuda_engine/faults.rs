//! Every call of the driver may fail: then the engine ends with an error that names it, and leaves nothing behind.

use vitrum::device::DeviceChoice;
use vitrum::engine::{self, EngineOptions};
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;
use vitrum::request::{TokenEvent, TokenId};
use vitrum::step::StepLimits;

use super::options;
use super::support::software_gpu::{child, finished};
use super::support::temp::TempDir;
use super::support::tiny_engine::{greedy, prompt, weights_of};

/// As small as a model can be that has every kernel.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// The file in which the driver reads which call is to fail, and how many calls there are.
const FAIL_FILE: &str = "VITRUM_TEST_FAIL_FILE";
const CALLS: &str = "VITRUM_TEST_CALLS";

/// The status of a device that stays failed.
const LAUNCH_FAILED: u32 = 719;

/// An engine from its start to its end, with one short request: its tokens, or what went wrong.
fn short_run(weights: &Checkpoint) -> Result<Vec<TokenId>, String> {
    let limits = StepLimits { max_tokens: 8, max_seqs: 1, max_model_len: 32, kv_pages: 2 };
    let options = EngineOptions { limits, prompt_chunk: 8, ..options(DeviceChoice::Cuda) };
    let engine = engine::start(weights, &options).map_err(|error| error.to_string())?;
    let answer = engine.submit(prompt(5, 1), greedy(3)).map_err(|error| error.to_string()).and_then(|mut stream| {
        let mut tokens = Vec::new();
        while let Some(event) = stream.blocking_next() {
            match event {
                TokenEvent::Token { token, last, .. } => {
                    tokens.push(token);
                    if last.is_some() {
                        return Ok(tokens);
                    }
                }
                TokenEvent::Failed(error) => return Err(error.to_string()),
            }
        }
        Err("the stream has no end".into())
    });
    engine.shutdown();
    answer
}

#[test]
#[ignore = "run by the test of its name"]
fn child_a_short_run() {
    assert_eq!(short_run(&weights_of(CONFIG, WeightFormat::Q4_1)).expect("no call fails").len(), 3);
}

/// Runs with call after call failing, and says on standard error what came of it, where the driver's own word is.
#[test]
#[ignore = "run by the test of its name"]
fn child_every_failing_call_is_an_error() {
    let variable = |name| std::env::var(name).expect("the parent gives it");
    let (file, calls) = (variable(FAIL_FILE), variable(CALLS));
    let (calls, status) = calls.split_once(' ').expect("calls and a status");
    let fail = |call: u64, status: &str| {
        std::fs::write(&file, format!("{call}{status}")).expect("a file of the test");
    };
    let weights = weights_of(CONFIG, WeightFormat::Q4_1);
    fail(0, "");
    let expected = short_run(&weights).expect("no call fails");
    for call in 1..=calls.parse().expect("a number") {
        fail(call, status);
        eprintln!("== call {call}");
        match short_run(&weights) {
            Ok(tokens) if tokens == expected => eprintln!("== unharmed"),
            Ok(tokens) => panic!("call {call}: {tokens:?} and not {expected:?}"),
            Err(error) => eprintln!("== failed: {error}"),
        }
    }
}

/// What came of one failing call.
struct Outcome<'a> {
    call: &'a str,
    error: Option<&'a str>,
    /// Of the driver.
    lines: Vec<&'a str>,
}

fn outcomes(text: &str) -> Vec<Outcome<'_>> {
    text.split("== call ").skip(1).map(outcome).collect()
}

fn outcome(part: &str) -> Outcome<'_> {
    let mut lines = part.lines();
    let call = lines.next().expect("a number");
    let (mut error, mut is_over, mut of_driver) = (None, false, Vec::new());
    for line in lines {
        is_over |= line.starts_with("== ");
        error = line.strip_prefix("== failed: ").or(error);
        of_driver.extend(line.strip_prefix("softcuda: "));
    }
    assert!(is_over, "call {call} has no outcome: {part}");
    Outcome { call, error, lines: of_driver }
}

/// All calls of a short run, each failing in turn.
fn outcomes_of_all(status: &str, check: impl Fn(&Outcome<'_>)) {
    let mut count = child("faults::child_a_short_run");
    count.env("SOFTCUDA_FAIL_CALL", "0");
    let counted = finished(count);
    let calls = counted.stderr.lines().find_map(|line| line.strip_prefix("softcuda: ")?.strip_suffix(" calls"));
    let calls = calls.unwrap_or_else(|| panic!("the driver says how many calls there were: {}", counted.stderr));

    let folder = TempDir::new();
    let file = folder.write("fail", "0");
    let mut all = child("faults::child_every_failing_call_is_an_error");
    all.env("SOFTCUDA_FAIL_CALL", format!("@{}", file.display())).env(FAIL_FILE, file);
    all.env(CALLS, format!("{calls} {status}"));
    let ended = finished(all);
    assert!(ended.code == Some(0) && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    let outcomes = outcomes(&ended.stderr);
    assert_eq!(outcomes.len().to_string(), calls);
    outcomes.iter().for_each(check);
    // What is ignored are failures of the end: from the first of them on, all calls give back what was taken.
    let failed = outcomes.iter().take_while(|outcome| outcome.error.is_some()).count();
    let harmless = &outcomes[failed..];
    eprintln!("{calls} calls, the last {} at the end of the device", harmless.len());
    assert!(harmless.iter().all(|outcome| outcome.error.is_none()) && failed > 3 * harmless.len(), "{failed}");
}

/// If a call fails that gives something back, that is left, and goes with the context; the last one gives that back.
fn is_left(line: &&str) -> bool {
    line.starts_with("leaked: ") || *line == "the process ends while the context is retained"
}

#[test]
fn every_failing_call_is_an_error() {
    outcomes_of_all("", |Outcome { call, error, lines }| match error {
        Some(error) => {
            assert!(error.contains("CUDA_ERROR_UNKNOWN (999)") && error.contains("cu"), "call {call}: {error}");
            assert!(lines.is_empty(), "call {call}, {error}: {lines:#?}");
        }
        None => assert!(lines.iter().all(is_left), "call {call}: {lines:#?}"),
    });
}

/// After this nothing can be given back by itself: all of it goes with the context.
#[test]
fn a_device_that_stays_failed_is_an_error() {
    outcomes_of_all(&format!(":{LAUNCH_FAILED}"), |Outcome { call, error, lines }| {
        let expected = format!("CUDA_ERROR_LAUNCH_FAILED ({LAUNCH_FAILED})");
        assert!(error.is_none_or(|error| error.contains(&expected)), "call {call}: {error:?}");
        assert!(lines.iter().all(is_left), "call {call}: {lines:#?}");
    });
}
