//! Sampling parameters that a request does not give.

use serde_json::{Value, json};
use vitrum::http::ServeOptions;
use vitrum::request::{SamplingDefaults, SamplingParams};

use crate::client::post;
use crate::scripted::{Harness, Script, options};

/// A request to each endpoint with these fields, as the engine gets it.
async fn sampled(server: &Harness, fields: Value) -> [SamplingParams; 2] {
    let completion = json!({"prompt": [1]});
    let chat = json!({"messages": [{"role": "user", "content": "1"}]});
    let mut got = Vec::new();
    for (path, mut body) in [("/v1/completions", completion), ("/v1/chat/completions", chat)] {
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let reply = post(server.address, path, body).await;
        assert_eq!(reply.status, 200, "{path} {fields}");
        got.push(server.ended().sampling);
    }
    got.try_into().unwrap()
}

#[tokio::test]
async fn what_a_request_does_not_give_is_as_the_server_was_told() {
    let sampling = SamplingDefaults { temperature: 0.5, top_k: 20, top_p: 0.75, max_tokens_limit: Some(5) };
    let server = Harness::with(Script::default(), ServeOptions { sampling, ..options() }).await;
    // fields → temperature, top_k, top_p, max_tokens
    for (fields, expected) in [
        (json!({}), (0.5, 20, 0.75, 5)),
        (json!({"temperature": null, "top_k": null, "top_p": null, "max_tokens": null}), (0.5, 20, 0.75, 5)),
        (json!({"temperature": 1.0, "top_k": 3, "top_p": 0.5, "max_tokens": 2}), (1.0, 3, 0.5, 2)),
        (json!({"temperature": 0}), (0.0, 20, 0.75, 5)),
        (json!({"top_k": -1}), (0.5, 0, 0.75, 5)),
        (json!({"top_k": 0, "top_p": 1}), (0.5, 0, 1.0, 5)),
        (json!({"max_tokens": 9}), (0.5, 20, 0.75, 5)),
    ] {
        for got in sampled(&server, fields.clone()).await {
            assert_eq!((got.temperature, got.top_k, got.top_p, got.max_tokens), expected, "{fields}");
        }
    }
}

#[tokio::test]
async fn without_a_word_nothing_is_cut() {
    let server = Harness::start().await;
    for got in sampled(&server, json!({"max_tokens": 3})).await {
        assert_eq!(got, SamplingParams { max_tokens: 3, ..SamplingParams::default() });
    }
}
