//! Server-sent events, byte by byte: what benchmark clients count.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::client::{Reply, chunks, post, post_with, read_until, sent};
use crate::scripted::{EOS, Harness, MODEL, Script, gate};

/// Everything that `vllm bench serve` sends to a completions endpoint.
fn bench_body(max_tokens: u32) -> Value {
    json!({
        "model": MODEL, "prompt": "1", "repetition_penalty": 1.0, "max_tokens": max_tokens, "logprobs": null,
        "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
    })
}

fn created(reply: &Reply) -> u64 {
    reply.events()[0]["created"].as_u64().unwrap()
}

#[tokio::test]
async fn a_completion_stream_is_these_bytes() {
    let server = Harness::start().await;
    let reply = post_with(server.address, "/v1/completions", "x-request-id: b-1\r\n", bench_body(2)).await;
    let chunk = |rest: &str| {
        let created = created(&reply);
        format!(
            r#"data: {{"id":"cmpl-b-1","object":"text_completion","created":{created},"model":"org/counting",{rest}}}"#
        )
    };
    let (two, three) = (json!(server.text(2, 2)), json!(server.text(3, 3)));
    let expected = [
        chunk(&format!(
            r#""choices":[{{"index":0,"text":{two},"logprobs":null,"finish_reason":null,"stop_reason":null}}]"#
        )),
        chunk(&format!(
            r#""choices":[{{"index":0,"text":{three},"logprobs":null,"finish_reason":"length","stop_reason":null}}]"#
        )),
        chunk(r#""choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#),
        "data: [DONE]".into(),
        String::new(),
    ];
    assert_eq!(reply.text(), expected.join("\n\n"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
}

#[tokio::test]
async fn a_chat_stream_is_these_bytes() {
    let server = Harness::start().await;
    let body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "1"}]}],
        "max_completion_tokens": 2, "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
    });
    let reply = post_with(server.address, "/v1/chat/completions", "x-request-id: b-1\r\n", body).await;
    let prompt = server.ended().prompt;
    let first = prompt.last().unwrap() + 1;
    let (one, two) = (json!(server.text(first, first)), json!(server.text(first + 1, first + 1)));
    let created = created(&reply);
    let chunk = |rest: &str| {
        let object = "chat.completion.chunk";
        format!(
            r#"data: {{"id":"chatcmpl-b-1","object":"{object}","created":{created},"model":"org/counting",{rest}}}"#
        )
    };
    let delta = |delta: &str, finish: &str| {
        let after = format!(r#""logprobs":null,"finish_reason":{finish},"stop_reason":null"#);
        chunk(&format!(r#""choices":[{{"index":0,"delta":{{{delta}}},{after}}}]"#))
    };
    let count = prompt.len();
    let total = count + 2;
    let expected = [
        delta(&format!(r#""role":"assistant","content":{one}"#), "null"),
        delta(&format!(r#""content":{two}"#), r#""length""#),
        chunk(&format!(
            r#""choices":[],"usage":{{"prompt_tokens":{count},"completion_tokens":2,"total_tokens":{total}}}"#
        )),
        "data: [DONE]".into(),
        String::new(),
    ];
    assert_eq!(reply.text(), expected.join("\n\n"));
}

/// Every event comes in a chunk of its own when the engine is slower than the network, at the time of its token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_before_the_next_is_made() {
    let (open, gate) = gate();
    let server = Harness::script(Script { gate, ..Script::default() }).await;
    let mut stream = sent(server.address, "/v1/completions", bench_body(3)).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "the head comes alone: {head:?}");
    let mut tail = Vec::new();
    for token in 2..=3 {
        open.send(()).unwrap();
        let event = read_until(&mut stream, "\n\n\r\n").await;
        assert_eq!(event.matches("data: ").count(), 1, "{event}");
        assert!(event.contains(&json!(server.text(token, token)).to_string()), "{event}");
        let more = tokio::time::timeout(Duration::from_millis(50), stream.read_buf(&mut tail)).await;
        assert!(more.is_err(), "nothing comes without a token");
    }
    open.send(()).unwrap();
    let end = read_until(&mut stream, "0\r\n\r\n").await;
    let events: Vec<String> =
        chunks(end.as_bytes()).into_iter().map(|chunk| String::from_utf8(chunk).unwrap()).collect();
    assert_eq!(events.concat().matches("data: ").count(), 3, "the last token, the counts, the end: {events:?}");
}

/// Tokens whose text is held back, or that have none, are chunks too: clients count them.
#[tokio::test]
async fn there_is_one_chunk_per_token() {
    let server = Harness::start().await;
    // (parameters, tokens): the first token's text may begin the stop string, so it is held back
    for (extra, tokens, held) in [
        (json!({"prompt": [122], "max_tokens": 3, "stop": server.text(123, 123) + "9"}), 3, Some("123")),
        (json!({"prompt": [100], "max_tokens": 9, "stop": "103"}), 3, None),
        (json!({"prompt": [EOS - 3], "max_tokens": 9}), 3, None),
        (json!({"prompt": [EOS - 1], "max_tokens": 9}), 1, None),
        (json!({"prompt": [7], "max_tokens": 200}), 200, None),
    ] {
        let mut body = json!({"stream": true, "stream_options": {"include_usage": true}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut events = post(server.address, "/v1/completions", &body).await.events();
        let usage = events.pop().unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["completion_tokens"], tokens, "{extra}");
        assert_eq!(events.len(), tokens, "{extra}");
        let finish: Vec<bool> = events.iter().map(|event| !event["choices"][0]["finish_reason"].is_null()).collect();
        assert_eq!(finish.iter().position(|&finish| finish), Some(tokens - 1), "only the last has a reason: {extra}");
        body["stream"] = false.into();
        body["stream_options"] = Value::Null;
        let whole = post(server.address, "/v1/completions", &body).await.json();
        let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(whole["choices"][0]["text"], text.as_str(), "a stream adds up to the whole: {extra}");
        if let Some(held) = held {
            assert!(!events[0]["choices"][0]["text"].as_str().unwrap().contains(held) && text.contains(held), "{text}");
        }
    }
}

#[tokio::test]
async fn many_prompts_share_a_stream() {
    let server = Harness::start().await;
    let body = json!({
        "prompt": [[10], [20], [EOS - 2]], "max_tokens": 40, "stream": true, "stream_options": {"include_usage": true},
    });
    let mut events = post(server.address, "/v1/completions", body).await.events();
    assert_eq!(
        events.pop().unwrap()["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 82, "total_tokens": 85})
    );
    let text = |index: usize| {
        let of = events.iter().map(|event| &event["choices"][0]).filter(move |choice| choice["index"] == index);
        of.map(|choice| choice["text"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(text(0).concat(), server.text(11, 50));
    assert_eq!(text(1).concat(), server.text(21, 60));
    assert_eq!(text(2).concat(), server.text(EOS - 1, EOS - 1));
    assert_eq!((text(0).len(), text(1).len(), text(2).len()), (40, 40, 2));
}

#[tokio::test]
async fn counts_come_as_asked_for() {
    let server = Harness::start().await;
    for (options, in_chunks, at_end) in [
        (json!(null), false, false),
        (json!({}), false, false),
        (json!({"include_usage": true}), false, true),
        (json!({"include_usage": true, "continuous_usage_stats": true}), true, true),
    ] {
        let body = json!({"prompt": [5, 6], "max_tokens": 3, "stream": true, "stream_options": options});
        let mut events = post(server.address, "/v1/completions", body).await.events();
        if at_end {
            assert_eq!(events.pop().unwrap()["choices"], json!([]));
        }
        assert_eq!(events.len(), 3, "{options}");
        for (index, event) in events.iter().enumerate() {
            let usage = json!({"prompt_tokens": 2, "completion_tokens": index + 1, "total_tokens": index + 3});
            assert_eq!(event.get("usage"), in_chunks.then_some(&usage), "{options}");
        }
    }
}

#[tokio::test]
async fn log_probabilities_come_with_their_tokens() {
    let server = Harness::start().await;
    let body = json!({"prompt": [1], "max_tokens": 2, "logprobs": 1, "stream": true});
    let events = post(server.address, "/v1/completions", body).await.events();
    let (two, three) = (server.text(2, 2), server.text(3, 3));
    assert_eq!(
        events[1]["choices"][0]["logprobs"],
        json!({
            "text_offset": [two.chars().count()], "token_logprobs": [-0.5], "tokens": [three],
            "top_logprobs": [{&three: -0.5}],
        })
    );
    let body =
        json!({"messages": [{"role": "user", "content": "1"}], "max_tokens": 1, "logprobs": true, "stream": true});
    let events = post(server.address, "/v1/chat/completions", body).await.events();
    assert_eq!(events[0]["choices"][0]["logprobs"]["content"][0]["logprob"], -0.5);
    assert_eq!(events[0]["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn a_failure_is_an_event_of_the_stream() {
    let server = Harness::script(Script { fail_after: Some(2), ..Script::default() }).await;
    let events = post(server.address, "/v1/completions", bench_body(9)).await.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2]["error"]["code"], 500);
    assert!(events[2]["error"]["message"].as_str().unwrap().contains("caught fire"));
    // Without a stream there is still a status to answer with.
    let reply = post(server.address, "/v1/completions", json!({"prompt": [1]})).await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("InternalServerError")));
}
