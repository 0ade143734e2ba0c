//! How a request ended, in the answer and in the counts.

use serde_json::json;

use crate::support::client::wait_until;
use crate::support::server::{Server, TINY_MODEL_LEN};

async fn ended(server: &Server, reason: &str) -> f64 {
    server.metric("vllm:request_success_total", &format!("finished_reason=\"{reason}\"")).await
}

#[tokio::test]
async fn a_stop_string_counts_as_a_stop_and_not_as_an_abort() {
    let server = Server::tiny(&[]);
    // What it says without being stopped: four characters of that stop it.
    let mut body = json!({"prompt": [65, 66], "max_tokens": 200, "temperature": 0, "ignore_eos": true});
    let whole = server.post("/v1/completions", &body).await.json();
    let text = whole["choices"][0]["text"].as_str().expect("a text").to_owned();
    let (from, _) = text.char_indices().nth(40).expect("40 characters");
    let stop: String = text[from..].chars().take(4).collect();
    body["stop"] = json!(stop);
    // The engine does not know the stop string: it has to be far from its own end when the string is seen.
    body["max_tokens"] = json!(TINY_MODEL_LEN - 2);
    for count in [1.0, 2.0] {
        let answer = server.post("/v1/completions", &body).await.json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        assert!(answer["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens < 200), "{answer}");
        wait_until("it counts as a stop", async || ended(&server, "stop").await == count).await;
    }
    assert_eq!((ended(&server, "length").await, ended(&server, "abort").await), (1.0, 0.0));
}
