//! A parameter is honoured or refused by name; so is everything that is no request at all.

use serde_json::{Value, json};

use crate::client::{exchange, get, head, post};
use crate::scripted::{Harness, MAX_MODEL_LEN, VOCAB};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// Posts, and checks status and parameter of the error; its message has to contain some words.
async fn refused(server: &Harness, path: &str, body: impl ToString, status: u16, param: Value, words: &str) {
    let body = body.to_string();
    let reply = post(server.address, path, &body).await;
    let shown: String = body.chars().take(200).collect();
    assert_eq!(reply.status, status, "{shown} → {}", reply.text());
    let answer = reply.json();
    let error = &answer["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!(status), &param), "{shown} → {answer}");
    assert!(error["message"].as_str().unwrap().contains(words), "{shown} → {answer}");
    assert!(error["type"].is_string());
}

#[tokio::test]
async fn wrong_values_are_refused_by_name() {
    let server = Harness::start().await;
    for (field, value, words) in [
        ("max_tokens", json!(0), "a whole number from 1"),
        ("max_tokens", json!(-1), "a whole number from 1"),
        ("max_tokens", json!("16"), "\"16\""),
        ("max_tokens", json!(1.5), "whole number"),
        ("max_tokens", json!(MAX_MODEL_LEN), "255"),
        ("temperature", json!(-0.1), "0 or more"),
        ("temperature", json!("hot"), "a number"),
        ("temperature", json!(1e300), "a number"),
        ("top_p", json!(0), "above 0"),
        ("top_p", json!(1.01), "up to 1"),
        ("top_k", json!(-2), "from -1"),
        ("top_k", json!(true), "whole number"),
        ("seed", json!("x"), "64 bits"),
        ("seed", json!(1.5), "64 bits"),
        ("logprobs", json!(21), "from 0 to 20"),
        ("logprobs", json!(true), "from 0 to 20"),
        ("stop", json!(""), "1 to 1024 bytes"),
        ("stop", json!(vec!["a"; 17]), "at most 16"),
        ("stop", json!([1]), "a string"),
        ("stop", json!({"a": 1}), "a string"),
        ("stop_token_ids", json!([VOCAB]), "below 1000"),
        ("stop_token_ids", json!(3), "a list"),
        ("ignore_eos", json!(1), "true or false"),
        ("stream", json!("yes"), "true or false"),
        ("add_special_tokens", json!(0), "true or false"),
        ("model", json!(3), "a string"),
        ("user", json!({}), "a string"),
        ("stream_options", json!({"include_usage": true}), "stream"),
    ] {
        refused(&server, COMPLETIONS, json!({"prompt": [1], field: value}), 400, json!(field), words).await;
    }
    let four = json!({"prompt": [[1], [1], [1], [1]]});
    refused(&server, COMPLETIONS, four, 400, json!("prompt"), "at most 3 prompts").await;
    let options = json!({"prompt": [1], "stream": true, "stream_options": {"include_everything": true}});
    refused(&server, COMPLETIONS, options, 400, json!("stream_options.include_everything"), "not a parameter").await;
    let options = json!({"prompt": [1], "stream": true, "stream_options": {"continuous_usage_stats": true}});
    let param = json!("stream_options.continuous_usage_stats");
    refused(&server, COMPLETIONS, options, 400, param, "include_usage").await;
    let messages = json!([{"role": "user", "content": "5"}]);
    let body = json!({"messages": messages, "max_completion_tokens": 3, "max_tokens": 4});
    refused(&server, "/v1/chat/completions", body, 400, json!("max_tokens"), "the same value").await;
    let options = json!({"prompt": [1], "stream": true, "stream_options": 3});
    refused(&server, COMPLETIONS, options, 400, json!("stream_options"), "an object").await;
}

#[tokio::test]
async fn wrong_prompts_are_refused() {
    let server = Harness::start().await;
    for (prompt, words) in [
        (json!(3), "a string"),
        (json!(["a", 1]), "a string"),
        (json!([]), "empty"),
        (json!([[1], []]), "empty"),
        (json!(""), "empty"),
        (json!([VOCAB]), "1000"),
        (json!([-1]), "whole numbers"),
        (json!(vec![1; MAX_MODEL_LEN]), "256"),
        (json!(vec!["1"; 1025]), "1024"),
    ] {
        refused(&server, COMPLETIONS, json!({"prompt": prompt}), 400, json!("prompt"), words).await;
    }
    refused(&server, COMPLETIONS, json!({"max_tokens": 1}), 400, json!("prompt"), "required").await;
    refused(&server, COMPLETIONS, json!({"prompt": null}), 400, json!("prompt"), "required").await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_unless_neutral() {
    let server = Harness::start().await;
    for (field, value) in [
        ("n", json!(2)),
        ("best_of", json!(2)),
        ("echo", json!(true)),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-0.5)),
        ("repetition_penalty", json!(1.1)),
        ("logit_bias", json!({"5": 1})),
        ("min_p", json!(0.1)),
        ("min_tokens", json!(5)),
        ("suffix", json!("end")),
        ("skip_special_tokens", json!(false)),
        ("response_format", json!({"type": "json_object"})),
        ("guided_json", json!({})),
        ("structured_outputs", json!({"json": {}})),
        ("prompt_logprobs", json!(1)),
        ("truncate_prompt_tokens", json!(5)),
        ("use_beam_search", json!(true)),
    ] {
        refused(&server, COMPLETIONS, json!({"prompt": [1], field: value}), 400, json!(field), "not supported").await;
    }
    let messages = json!([{"role": "user", "content": "1"}]);
    for (field, value) in [
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("required")),
        ("modalities", json!(["text", "audio"])),
        ("chat_template", json!("{{ x }}")),
        ("continue_final_message", json!(true)),
        ("reasoning_effort", json!("high")),
    ] {
        refused(&server, CHAT, json!({"messages": messages, field: value}), 400, json!(field), "not supported").await;
    }
    // One endpoint's parameter is unknown to the other.
    for (path, field) in [(COMPLETIONS, "top_logprobs"), (CHAT, "suffix"), (CHAT, "prompt"), (COMPLETIONS, "max_token")]
    {
        let body = json!({"prompt": [1], "messages": messages, field: 1});
        let mut body = body.as_object().unwrap().clone();
        body.remove(if path == COMPLETIONS {
            "messages"
        } else if field == "prompt" {
            ""
        } else {
            "prompt"
        });
        refused(&server, path, Value::Object(body), 400, json!(field), "not a parameter").await;
    }
}

#[tokio::test]
async fn wrong_messages_are_refused_by_path() {
    let server = Harness::start().await;
    for (messages, param, words) in [
        (json!("hello"), "messages", "a list"),
        (json!([]), "messages", "a list of 1"),
        (json!(["hello"]), "messages[0]", "an object"),
        (json!([{"content": "1"}]), "messages[0].role", "absent"),
        (json!([{"role": "user", "content": "1"}, {"role": "tool", "content": "1"}]), "messages[1].role", "system"),
        (json!([{"role": "user"}]), "messages[0].content", "absent"),
        (json!([{"role": "user", "content": 5}]), "messages[0].content", "text parts"),
        (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].type", "image_url"),
        (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text", "absent"),
        (json!([{"role": "user", "content": "1", "tool_calls": [{}]}]), "messages[0].tool_calls", "not supported"),
        (json!([{"role": "user", "content": "1", "mood": "good"}]), "messages[0].mood", "not a parameter"),
    ] {
        refused(&server, CHAT, json!({"messages": messages}), 400, json!(param), words).await;
    }
    refused(&server, CHAT, json!({"model": null}), 400, json!("messages"), "required").await;
    let body = json!({"messages": [{"role": "user", "content": "1"}], "top_logprobs": 2});
    refused(&server, CHAT, body, 400, json!("top_logprobs"), "logprobs").await;
    let body = json!({"messages": [{"role": "user", "content": "1"}], "max_completion_tokens": 1000});
    refused(&server, CHAT, body, 400, json!("max_completion_tokens"), "256").await;
    let body = json!({"messages": [{"role": "user", "content": "no number"}]});
    refused(&server, CHAT, body, 400, json!(null), "no").await;
}

#[tokio::test]
async fn a_model_that_is_not_served_is_not_found() {
    let server = Harness::start().await;
    refused(&server, COMPLETIONS, json!({"prompt": [1], "model": "gpt"}), 404, json!("model"), "org/counting").await;
    refused(&server, "/tokenize", json!({"prompt": "1", "model": "gpt"}), 404, json!("model"), "gpt").await;
}

#[tokio::test]
async fn what_is_no_object_is_refused() {
    let server = Harness::start().await;
    for body in ["", "{", "[]", "3", "\"x\"", "{\"prompt\": }", "{\"prompt\": \"a\"} x", "{\"prompt\": \"\u{1}\"}"] {
        refused(&server, COMPLETIONS, body, 400, json!(null), "JSON").await;
    }
    refused(&server, COMPLETIONS, r#"{"prompt": "1", "prompt": "2"}"#, 400, json!(null), "twice").await;
    let many: String = (0..300).map(|index| format!("\"f{index}\":1,")).collect();
    refused(&server, COMPLETIONS, format!("{{{many}\"prompt\":[1]}}"), 400, json!(null), "256 fields").await;
    // Bytes that are no UTF-8.
    let body = b"{\"prompt\": \"\xff\"}";
    let request = [head("POST", COMPLETIONS, Some(body.len()), "connection: close\r\n").as_bytes(), body].concat();
    assert_eq!(exchange(server.address, &request).await.status, 400);
    // A lone half of a surrogate pair.
    refused(&server, COMPLETIONS, r#"{"prompt": "\ud800"}"#, 400, json!("prompt"), "a string").await;
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let server = Harness::start().await;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [3, 200, 1_000_000] {
        refused(&server, COMPLETIONS, format!("{{\"prompt\": {}}}", deep(depth)), 400, json!("prompt"), "prompt").await;
        let body = format!("{{\"prompt\": [1], \"logit_bias\": {}}}", deep(depth));
        refused(&server, COMPLETIONS, body, 400, json!("logit_bias"), "not supported").await;
        let body = format!("{{\"messages\": {}}}", deep(depth));
        refused(&server, CHAT, body, 400, json!("messages[0]"), "an object").await;
        refused(&server, COMPLETIONS, deep(depth), 400, json!(null), "JSON").await;
    }
}

#[tokio::test]
async fn what_is_not_there_is_json_too() {
    let server = Harness::start().await;
    let reply = get(server.address, "/v1/nothing").await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (404, &json!("NotFoundError")));
    let reply = get(server.address, COMPLETIONS).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("GET"));
    assert_eq!(post(server.address, "/v1/models", "").await.status, 405);
}
