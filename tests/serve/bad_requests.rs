//! Requests that are wrong: each is refused in words that name what is wrong, and the server goes on.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{head, rest};
use crate::support::server::{Server, error_message};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const LIMIT: usize = 64;
/// Of the tiny model: 3 control tokens, 256 bytes, 8 merges.
const VOCAB: usize = 267;

fn server() -> Server {
    Server::tiny(&["--max-model-len", &LIMIT.to_string()])
}

/// Posts, and checks the error's status, parameter and words, and that the next request is answered.
async fn refused(server: &Server, path: &str, body: impl ToString, status: u16, param: Value, words: &[&str]) {
    let body = body.to_string();
    let message = error_message(&server.post(path, &body).await, status, &param, &body);
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
    server.assert_answers().await;
}

#[tokio::test]
async fn a_prompt_longer_than_the_model_takes_is_refused() {
    let server = server();
    let limit = LIMIT.to_string();
    for length in [LIMIT, LIMIT + 1, 100_000] {
        let words = [limit.as_str(), &length.to_string()];
        refused(&server, COMPLETIONS, json!({"prompt": vec![65; length]}), 400, json!("prompt"), &words).await;
    }
    // A byte is a token at most, and so is `x`.
    let text = "x".repeat(1000);
    refused(&server, COMPLETIONS, json!({"prompt": text}), 400, json!("prompt"), &["1000", &limit]).await;
    let messages = json!([{"role": "user", "content": text}]);
    refused(&server, CHAT, json!({"messages": messages}), 400, json!("prompt"), &[&limit]).await;
    // One that fits, with an answer that does not.
    let body = json!({"prompt": vec![65; LIMIT - 4], "max_tokens": 5});
    refused(&server, COMPLETIONS, body, 400, json!("max_tokens"), &["at most 4", &limit]).await;
}

#[tokio::test]
async fn parameters_out_of_range_are_refused_by_name() {
    let server = server();
    for (field, value, word) in [
        ("max_tokens", json!(0), "from 1"),
        ("max_tokens", json!(-5), "from 1"),
        ("temperature", json!(-1.0), "0 or more"),
        ("top_p", json!(0.0), "above 0"),
        ("top_k", json!(-2), "from -1"),
        ("logprobs", json!(21), "from 0 to 20"),
        ("stop_token_ids", json!([VOCAB]), "267"),
    ] {
        let body = json!({"prompt": [65], field: value});
        refused(&server, COMPLETIONS, body, 400, json!(field), &[field, word, &value.to_string()]).await;
    }
}

#[tokio::test]
async fn values_of_a_wrong_type_are_refused_by_name() {
    let server = server();
    for (field, value, word) in [
        ("max_tokens", json!("16"), "a whole number"),
        ("max_tokens", json!([1]), "a whole number"),
        ("temperature", json!("hot"), "a number"),
        ("stream", json!("yes"), "true or false"),
        ("ignore_eos", json!(1), "true or false"),
        ("stop", json!(5), "a string"),
        ("seed", json!(1.5), "64 bits"),
        ("model", json!(["tiny"]), "a string"),
        ("prompt", json!(7), "a string"),
        ("prompt", json!({"text": "a"}), "a string"),
        ("prompt", json!(["a", 1]), "a string"),
    ] {
        let mut body = json!({"prompt": [65]});
        body[field] = value;
        refused(&server, COMPLETIONS, body, 400, json!(field), &[field, word]).await;
    }
    let body = json!({"messages": [{"role": "user", "content": 5}]});
    refused(&server, CHAT, body, 400, json!("messages[0].content"), &["text parts"]).await;
}

#[tokio::test]
async fn an_unknown_parameter_and_an_unknown_model_are_refused_by_name() {
    let server = server();
    let body = json!({"prompt": [65], "max_token": 5});
    refused(&server, COMPLETIONS, body, 400, json!("max_token"), &["max_token is not a parameter"]).await;
    let body = json!({"messages": [{"role": "user", "content": "a"}], "colour": "red"});
    refused(&server, CHAT, body, 400, json!("colour"), &["colour is not a parameter"]).await;
    let body = json!({"prompt": [65], "n": 2});
    refused(&server, COMPLETIONS, body, 400, json!("n"), &["n is not supported", "2"]).await;
    let body = json!({"prompt": [65], "model": "gpt-4"});
    refused(&server, COMPLETIONS, body, 404, json!("model"), &["gpt-4", "tiny.gguf"]).await;
}

#[tokio::test]
async fn token_ids_outside_of_the_vocabulary_are_refused() {
    let server = server();
    for (id, words) in [
        (json!(VOCAB), ["267", "267"]),
        (json!(u32::MAX), ["4294967295", "267"]),
        (json!(1u64 << 32), ["token ids", "4294967296"]),
        (json!(-1), ["token ids", "-1"]),
        (json!(0.5), ["token ids", "0.5"]),
    ] {
        refused(&server, COMPLETIONS, json!({"prompt": [65, id]}), 400, json!("prompt"), &words).await;
        refused(&server, COMPLETIONS, json!({"prompt": [[65], [65, id]]}), 400, json!("prompt"), &words).await;
    }
    // The last one of the vocabulary is none of them.
    let body = json!({"prompt": [VOCAB - 1], "max_tokens": 1});
    assert_eq!(server.post(COMPLETIONS, body).await.status, 200);
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let server = server();
    for body in ["", "{", "nonsense", "[1, 2]", r#"{"prompt": "a",}"#, r#"{"prompt": [1 2]}"#, "{\"prompt\": \"\n\"}"] {
        refused(&server, COMPLETIONS, body, 400, Value::Null, &["JSON"]).await;
    }
}

#[tokio::test]
async fn json_nested_100_000_deep_is_refused() {
    const DEPTH: usize = 100_000;
    let server = server();
    let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for nested in [format!("{open}{close}"), open.clone(), objects] {
        let body = format!(r#"{{"prompt": {nested}}}"#);
        let closed = nested.ends_with(['}', ']']);
        let param = if closed { json!("prompt") } else { Value::Null };
        refused(&server, COMPLETIONS, body, 400, param, &[if closed { "prompt" } else { "JSON" }]).await;
    }
    let body = format!(r#"{{"prompt": [65], "response_format": {open}{close}}}"#);
    refused(&server, COMPLETIONS, body, 400, json!("response_format"), &["not supported"]).await;
    let body = format!(r#"{{"messages": {open}{close}}}"#);
    refused(&server, CHAT, body, 400, json!("messages[0]"), &["an object"]).await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_and_the_client_hears_of_it() {
    const MB: usize = 1 << 20;
    let server = server();
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = head("POST", COMPLETIONS, Some(100 * MB), "connection: close\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let block = vec![b' '; MB];
    for _ in 0..100 {
        client.write_all(&block).await.unwrap();
    }
    let reply = rest(&mut client).await;
    let message = error_message(&reply, 413, &Value::Null, "100 MB");
    assert!(message.contains(&format!("more than {} bytes", 8 * MB)), "{message}");
    server.assert_answers().await;
}
