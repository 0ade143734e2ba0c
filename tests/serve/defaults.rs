//! `--generation-config`: sampling parameters that nobody gives.

use std::fs;

use serde_json::json;

use crate::support::server::{Server, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;

#[tokio::test]
async fn a_file_sets_what_requests_do_not_give() {
    let folder = TempDir::new();
    folder.write("generation_config.json", r#"{"temperature": 0, "top_k": 20, "repetition_penalty": 1.1}"#);
    let path = folder.path().to_str().unwrap();
    let server = Server::tiny(&["--device", "cpu", "--generation-config", path]);
    server.log_with("sampling defaults of generation_config.json: temperature 0, top_k 20");
    let body = |seed: u32| json!({"prompt": [65, 66], "max_tokens": 20, "ignore_eos": true, "seed": seed});
    let mut greedy = body(1);
    greedy["temperature"] = 0.into();
    let text = async |body| server.post("/v1/completions", body).await.json()["choices"][0]["text"].clone();
    let expected = text(greedy).await;
    for seed in 1..4 {
        assert_eq!(text(body(seed)).await, expected, "no seed draws another token");
    }
    let log = server.terminate();
    let warned = "sampling defaults of generation_config.json, not applied: repetition_penalty 1.1";
    assert!(log.contains(warned), "{log}");
}

#[test]
fn generate_takes_them_and_a_bad_file_is_named() {
    let folder = TempDir::new();
    let model = TinyModel::default().write(&folder);
    let config = folder.write("generation_config.json", r#"{"temperature": 50, "max_new_tokens": 7}"#);
    let (model, config) = (model.to_str().unwrap().to_owned(), config.to_str().unwrap().to_owned());
    let run = |flags: &[&str]| {
        let fixed = ["generate", &model, "-p", "a", "--device", "cpu", "--ignore-eos", "--seed", "1"];
        run_within(vitrum(fixed.iter().chain(flags)), std::time::Duration::from_secs(30))
    };
    let (greedy, told) = (run(&["--max-tokens", "7"]), run(&["--generation-config", &config]));
    assert_eq!((greedy.code, told.code), (Some(0), Some(0)), "{}{}", greedy.stderr, told.stderr);
    assert_ne!(greedy.stdout, told.stdout, "drawn, as the file says");
    assert!(told.stderr.contains("generation_config.json: temperature 50, at most 7 tokens"), "{}", told.stderr);
    let own = run(&["--generation-config", &config, "--temperature", "0"]);
    assert_eq!(own.stdout, greedy.stdout, "what is given counts");
    assert_eq!(run(&["--generation-config", "vllm", "--max-tokens", "7"]).stdout, greedy.stdout);

    fs::write(&config, r#"{"top_p": 2}"#).unwrap();
    let bad = run(&["--generation-config", &config]);
    assert_eq!(bad.code, Some(1));
    let said = format!("error: {config}: top_p is 2, and has to be a number above 0 and up to 1");
    assert!(bad.stderr.contains(&said), "{}", bad.stderr);
    let missing = run(&["--generation-config", "/no/such/file"]);
    assert!(missing.stderr.contains("error: /no/such/file: "), "{}", missing.stderr);
}
