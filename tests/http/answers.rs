//! Whole answers.

use serde_json::json;
use vitrum::request::{SamplingParams, TokenId};

use crate::client::{post, post_with};
use crate::scripted::{EOS, Harness, MAX_MODEL_LEN, MODEL};

#[tokio::test]
async fn a_completion_has_every_field() {
    let server = Harness::start().await;
    let body = json!({"model": "alias", "prompt": "7 8 9", "max_tokens": 3});
    let reply = post_with(server.address, "/v1/completions", "x-request-id: bench-1\r\n", body).await;
    let mut answer = reply.json();
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    answer["created"] = 0.into();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-request-id"), Some("bench-1"));
    assert_eq!(
        answer,
        json!({
            "id": "cmpl-bench-1", "object": "text_completion", "created": 0, "model": "alias",
            "choices": [{
                "index": 0, "text": server.text(10, 12), "logprobs": null, "finish_reason": "length",
                "stop_reason": null,
            }],
            "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        })
    );
}

#[tokio::test]
async fn a_prompt_is_text_or_tokens_one_or_many() {
    let server = Harness::start().await;
    for (prompt, firsts) in [
        (json!("1 20"), vec![21]),
        (json!(["1 20", "30"]), vec![21, 31]),
        (json!([1, 20]), vec![21]),
        (json!([[1, 20], [30], [40]]), vec![21, 31, 41]),
    ] {
        let answer = post(server.address, "/v1/completions", json!({"prompt": prompt, "max_tokens": 2})).await.json();
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), firsts.len(), "{answer}");
        for (index, first) in firsts.iter().enumerate() {
            assert_eq!(choices[index]["index"], index);
            assert_eq!(choices[index]["text"], server.text(*first, first + 1));
        }
        assert_eq!(answer["usage"]["completion_tokens"], 2 * firsts.len());
    }
}

#[tokio::test]
async fn sampling_parameters_reach_the_engine() {
    let server = Harness::start().await;
    let body = json!({
        "prompt": [1], "max_tokens": 4, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 42,
        "stop_token_ids": [900], "ignore_eos": true, "logprobs": 3, "min_tokens": 0,
    });
    assert_eq!(post(server.address, "/v1/completions", body).await.status, 200);
    let expected = SamplingParams {
        temperature: 0.5,
        top_k: 7,
        top_p: 0.25,
        seed: Some(42),
        max_tokens: 4,
        stop_token_ids: vec![TokenId(900)],
        ignore_eos: true,
        logprobs: Some(3),
    };
    assert_eq!(server.ended().sampling, expected);
    for (field, value, seed, top_k) in
        [("seed", json!(-1), None, 0), ("seed", json!(-2), Some(u64::MAX - 1), 0), ("top_k", json!(-1), None, 0)]
    {
        assert_eq!(post(server.address, "/v1/completions", json!({"prompt": [1], field: value})).await.status, 200);
        let sampling = server.ended().sampling;
        assert_eq!((sampling.seed, sampling.top_k), (seed, top_k), "{field}");
        assert_eq!(sampling.max_tokens, 16, "the default");
    }
}

/// The bodies that `vllm bench serve` and guidellm send, with every parameter at its neutral value.
#[tokio::test]
async fn neutral_parameters_are_accepted() {
    let server = Harness::start().await;
    let completion = json!({
        "model": MODEL, "prompt": "1", "repetition_penalty": 1.0, "max_tokens": 2, "logprobs": null, "stop": null,
        "ignore_eos": true, "user": "me", "n": 1, "best_of": 1, "echo": false, "presence_penalty": 0.0,
        "frequency_penalty": 0, "logit_bias": {}, "min_p": 0.0, "min_tokens": 2, "suffix": null,
        "skip_special_tokens": true, "response_format": {"type": "text"}, "stream_options": null, "seed": null,
    });
    assert_eq!(post(server.address, "/v1/completions", completion).await.status, 200);
    let chat = json!({
        "model": null, "messages": [{"role": "user", "content": "1", "name": null}], "tools": [], "tool_choice": "none",
        "logprobs": false, "top_logprobs": 0, "max_tokens": 2, "parallel_tool_calls": true, "functions": null,
        "response_format": null, "stop": [],
    });
    assert_eq!(post(server.address, "/v1/chat/completions", chat).await.status, 200);
}

#[tokio::test]
async fn an_answer_ends_for_a_reason() {
    let server = Harness::start().await;
    let end = EOS;
    // extra parameters → the tokens of the text, completion_tokens, finish_reason, stop_reason; the prompt is EOS − 3
    for (extra, text_last, tokens, reason, stop) in [
        (json!({}), end - 1, 3, "stop", json!(null)),
        (json!({"ignore_eos": true, "max_tokens": 5}), end + 2, 5, "length", json!(null)),
        (json!({"max_tokens": 3}), end - 1, 3, "stop", json!(null)),
        (json!({"max_tokens": 2}), end - 1, 2, "length", json!(null)),
        (json!({"stop_token_ids": [end - 1]}), end - 2, 2, "stop", json!(end - 1)),
        (json!({"stop_token_ids": [end]}), end - 1, 3, "stop", json!(null)),
        (json!({"stop_token_ids": [end], "ignore_eos": true}), end - 1, 3, "stop", json!(end)),
    ] {
        let mut body = json!({"prompt": [end - 3]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = post(server.address, "/v1/completions", body).await.json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["text"], server.text(end - 2, text_last), "{extra}");
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{extra}");
        assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!(reason), &stop), "{extra}");
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_the_engines_request() {
    let server = Harness::start().await;
    let body = json!({"prompt": [100], "max_tokens": 150, "stop": ["nothing", "104"]});
    let answer = post(server.address, "/v1/completions", body).await.json();
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(text.contains("103") && !text.contains("104"), "{text:?}");
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("104")));
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    // On the very last token too, where the engine would say `length`.
    let body = json!({"prompt": [100], "max_tokens": 4, "stop": "104"});
    let answer = post(server.address, "/v1/completions", body).await.json();
    assert_eq!(answer["choices"][0]["stop_reason"], "104");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn tokens_that_are_parts_of_a_character_have_names_and_places() {
    let server = Harness::of_bytes().await;
    let body = json!({"prompt": [1], "max_tokens": 3, "logprobs": 2});
    let answer = post(server.address, "/v1/completions", body).await.json();
    assert_eq!(answer["choices"][0]["text"], "é\u{fffd}");
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["bytes:\\xc3", "bytes:\\xa9", "bytes:\\xe2"]));
    assert_eq!(logprobs["text_offset"], json!([0, 0, 1]));
    assert_eq!(logprobs["top_logprobs"][2], json!({"bytes:\\xe2": -0.5, "bytes:\\xe3": -1.5}));
}

#[tokio::test]
async fn completions_have_log_probabilities_in_four_lists() {
    let server = Harness::start().await;
    let answer = post(server.address, "/v1/completions", json!({"prompt": [1], "max_tokens": 2, "logprobs": 2})).await;
    let (two, three, four) = (server.text(2, 2), server.text(3, 3), server.text(4, 4));
    assert_eq!(
        answer.json()["choices"][0]["logprobs"],
        json!({
            "text_offset": [0, two.chars().count()],
            "token_logprobs": [-0.5, -0.5],
            "tokens": [two, three],
            "top_logprobs": [{&two: -0.5, &three: -1.5}, {&three: -0.5, &four: -1.5}],
        })
    );
    // 0 reports the drawn token alone.
    let answer = post(server.address, "/v1/completions", json!({"prompt": [1], "max_tokens": 1, "logprobs": 0})).await;
    assert_eq!(answer.json()["choices"][0]["logprobs"]["top_logprobs"], json!([{&two: -0.5}]));
}

#[tokio::test]
async fn a_chat_answer_has_every_field() {
    let server = Harness::start().await;
    let parts = json!([{"type": "text", "text": "5"}, {"type": "text", "text": "6"}]);
    let body = json!({
        "messages": [{"role": "system", "content": "3 4"}, {"role": "user", "content": parts}],
        "max_completion_tokens": 1, "logprobs": true, "top_logprobs": 1,
    });
    let reply = post_with(server.address, "/v1/chat/completions", "x-request-id: a b\r\n", body).await;
    let mut answer = reply.json();
    let ended = server.ended();
    let first = ended.prompt.last().unwrap() + 1;
    let text = server.text(first, first);
    answer["created"] = 0.into();
    let score = json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes()});
    assert_eq!(
        answer,
        json!({
            "id": "chatcmpl-a b", "object": "chat.completion", "created": 0, "model": MODEL,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": [{
                    "token": text, "logprob": -0.5, "bytes": text.as_bytes(), "top_logprobs": [score],
                }]},
                "finish_reason": "length", "stop_reason": null,
            }],
            "usage": {
                "prompt_tokens": ended.prompt.len(), "completion_tokens": 1, "total_tokens": ended.prompt.len() + 1,
            },
        })
    );
    assert!(ended.prompt.windows(4).any(|window| window == [3, 4, 5, 6]), "{:?}", ended.prompt);
}

#[tokio::test]
async fn a_chat_answer_may_fill_the_context() {
    let server = Harness::start().await;
    let body = json!({"messages": [{"role": "user", "content": "1"}]});
    let answer = post(server.address, "/v1/chat/completions", body).await.json();
    assert_eq!(answer["usage"]["total_tokens"], MAX_MODEL_LEN);
    // A default is cut where a completion's prompt leaves less than 16.
    let body = json!({"prompt": vec![1; MAX_MODEL_LEN - 5]});
    let answer = post(server.address, "/v1/completions", body).await.json();
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}
