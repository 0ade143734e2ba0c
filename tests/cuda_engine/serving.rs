//! A server whose GPU fails: requests are told, and it ends.

use serde_json::{Value, json};

use super::support::client::{rest, sent};
use super::support::server::{Server, vitrum};
use super::support::software_gpu::on_softcuda;
use super::support::temp::TempDir;
use super::support::tiny_model::TinyModel;

/// Tokens of an answer: a step takes some calls of the driver, so there are thousands.
const TOKENS: usize = 400;

/// Calls from the end of the start to the failure: more than what captures the graphs, fewer than what replays them.
const CALLS_LATER: u64 = 500;

/// Of the GPU: it is this machine's.
const MEMORY_BYTES: u64 = 64 << 20;

fn server(fail_call: &str) -> Server {
    let folder = TempDir::new();
    let model = TinyModel { layers: 1, ..TinyModel::default() }.write(&folder);
    let mut command = on_softcuda(vitrum(["serve", "--device", "cuda", "--port", "0"]));
    command.arg(model).env("SOFTCUDA_FAIL_CALL", fail_call).env("SOFTCUDA_MEMORY_BYTES", MEMORY_BYTES.to_string());
    Server::spawn(folder, command)
}

#[tokio::test]
async fn a_gpu_that_fails_ends_the_requests_and_the_server() {
    let log = server("0").terminate();
    let calls = log.lines().find_map(|line| line.strip_prefix("softcuda: ")?.strip_suffix(" calls"));
    let calls: u64 = calls.and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("no count of calls: {log}"));

    let server = server(&format!("{}:719", calls + CALLS_LATER));
    let body = |stream| json!({"prompt": [65, 66], "max_tokens": TOKENS, "ignore_eos": true, "stream": stream});
    let mut streaming = sent(server.address, "/v1/completions", body(true)).await;
    let whole = server.post("/v1/completions", body(false)).await;
    let said = |error: &Value| {
        let message = error["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {error}")).to_owned();
        assert!(
            message.contains("the engine stopped: cu") && message.contains("CUDA_ERROR_LAUNCH_FAILED"),
            "{message}"
        );
    };
    assert_eq!(whole.status, 500, "{}", whole.text());
    said(&whole.json());
    let stream = rest(&mut streaming).await;
    let events: Vec<Value> = stream.events();
    let (error, tokens) = events.split_last().expect("events");
    said(error);
    assert!(tokens.len() > 10 && tokens.len() < TOKENS, "{} tokens came before the failure", tokens.len());

    let (status, log) = server.end();
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error: {log}"));
    assert!(last.contains("the engine stopped: cu") && last.contains("CUDA_ERROR_LAUNCH_FAILED"), "{last}");
}
