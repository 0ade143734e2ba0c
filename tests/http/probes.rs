//! What routers, load balancers and dashboards ask.

use std::time::Duration;

use serde_json::json;
use vitrum::engine::metrics::FinishedRequest;
use vitrum::request::FinishReason;
use vitrum::trace::schema::{GraphKey, GraphKind};

use crate::client::{get, post, post_with};
use crate::scripted::{Harness, MAX_MODEL_LEN, MODEL};

#[tokio::test]
async fn the_models_are_listed() {
    let server = Harness::start().await;
    let mut list = get(server.address, "/v1/models").await.json();
    assert!(list["data"][0]["created"].take().as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        list["data"][0],
        json!({
            "id": MODEL, "object": "model", "created": null, "owned_by": "vitrum", "root": "/models/counting.gguf",
            "parent": null, "max_model_len": MAX_MODEL_LEN,
        })
    );
    assert_eq!((&list["object"], &list["data"][1]["id"]), (&json!("list"), &json!("alias")));
    assert_eq!(get(server.address, &format!("/v1/models/{MODEL}")).await.json()["id"], MODEL);
    assert_eq!(get(server.address, "/v1/models/other").await.status, 404);
}

#[tokio::test]
async fn probes_answer() {
    let server = Harness::start().await;
    for path in ["/health", "/ping"] {
        let reply = get(server.address, path).await;
        assert_eq!((reply.status, reply.text()), (200, ""));
    }
    assert_eq!(post(server.address, "/ping", "").await.status, 200);
    assert_eq!(get(server.address, "/version").await.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(get(server.address, "/load").await.json(), json!({"server_load": 0}));
}

#[tokio::test]
async fn every_response_has_the_requests_id() {
    let server = Harness::start().await;
    for path in ["/health", "/nowhere"] {
        let reply = post_with(server.address, path, "X-Request-Id: mine-7\r\n", "").await;
        assert_eq!(reply.header("x-request-id"), Some("mine-7"), "{path}");
    }
    let (one, other) = (get(server.address, "/health").await, get(server.address, "/health").await);
    let (one, other) = (one.header("x-request-id").unwrap(), other.header("x-request-id").unwrap());
    assert!(one.len() >= 16 && one != other, "{one} {other}");
    let long = format!("x-request-id: {}\r\n", "a".repeat(1000));
    assert!(post_with(server.address, "/health", &long, "").await.header("x-request-id").unwrap().len() < 300);
}

#[tokio::test]
async fn texts_become_tokens_and_back() {
    let server = Harness::start().await;
    let body = json!({"model": MODEL, "prompt": "12 13", "add_special_tokens": false});
    let answer = post(server.address, "/tokenize", body).await.json();
    assert_eq!(answer, json!({"count": 2, "max_model_len": MAX_MODEL_LEN, "tokens": [12, 13], "token_strs": null}));
    let body = json!({"messages": [{"role": "user", "content": "12 13"}], "return_token_strs": true});
    let answer = post(server.address, "/tokenize", body).await.json();
    assert_eq!(answer["count"].as_u64().unwrap() as usize, answer["tokens"].as_array().unwrap().len());
    assert_eq!(answer["token_strs"][0], server.text(12, 12));
    let answer = post(server.address, "/detokenize", json!({"model": MODEL, "tokens": [12, 13]})).await.json();
    assert_eq!(answer, json!({"prompt": server.text(12, 13)}));
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({"prompt": 3})),
        ("/tokenize", json!({"prompt": "1", "messages": []})),
        ("/tokenize", json!({"prompt": "1", "colour": 1})),
        ("/detokenize", json!({"tokens": [1000]})),
        ("/detokenize", json!({"tokens": "x"})),
        ("/detokenize", json!({})),
    ] {
        assert_eq!(post(server.address, path, &body).await.status, 400, "{path} {body}");
    }
}

#[tokio::test]
async fn metrics_have_vllms_names() {
    let server = Harness::start().await;
    let metrics = server.engine.metrics();
    metrics.request_received();
    metrics.set_queue(3, 2);
    metrics.set_kv_usage(0.25);
    metrics.on_first_token(Duration::from_millis(3));
    metrics.on_token(Duration::from_micros(700));
    metrics.preempted();
    metrics.step(5, 2);
    metrics.replay(GraphKey { kind: GraphKind::ForwardDecode, bucket: 8 });
    metrics.replay(GraphKey { kind: GraphKind::ForwardDecode, bucket: 8 });
    metrics.on_finish(&FinishedRequest {
        reason: FinishReason::Length,
        queue: Duration::from_secs(1),
        prefill: Duration::from_secs(2),
        decode: Duration::from_secs(4),
        e2e: Duration::from_secs(7),
        prompt_tokens: 5,
        generation_tokens: 3,
        max_tokens: 16,
    });
    let reply = get(server.address, "/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    let value = |name: &str, extra: &str| -> f64 {
        let labels = format!("model_name=\"{MODEL}\",engine=\"0\"");
        let prefix =
            if extra.is_empty() { format!("{name}{{{labels}}} ") } else { format!("{name}{{{labels},{extra}}} ") };
        let line = text.lines().find(|line| line.starts_with(&prefix)).unwrap_or_else(|| panic!("{prefix}: {text}"));
        line[prefix.len()..].parse().unwrap()
    };
    for (name, extra, expected) in [
        ("vitrum:requests_received_total", "", 1.0),
        ("vllm:num_requests_waiting", "", 3.0),
        ("vllm:num_requests_running", "", 2.0),
        ("vllm:kv_cache_usage_perc", "", 0.25),
        ("vllm:num_preemptions_total", "", 1.0),
        ("vllm:prompt_tokens_total", "", 5.0),
        ("vllm:generation_tokens_total", "", 2.0),
        ("vllm:iteration_tokens_total_sum", "", 7.0),
        ("vllm:request_success_total", "finished_reason=\"length\"", 1.0),
        ("vllm:request_success_total", "finished_reason=\"stop\"", 0.0),
        ("vllm:cache_config_info", "block_size=\"16\",num_gpu_blocks=\"64\"", 1.0),
        ("vllm:e2e_request_latency_seconds_sum", "", 7.0),
        ("vllm:request_queue_time_seconds_sum", "", 1.0),
        ("vllm:request_prefill_time_seconds_sum", "", 2.0),
        ("vllm:request_decode_time_seconds_sum", "", 4.0),
        ("vllm:request_inference_time_seconds_sum", "", 6.0),
        ("vllm:request_time_per_output_token_seconds_sum", "", 2.0),
        ("vllm:request_prompt_tokens_sum", "", 5.0),
        ("vllm:request_generation_tokens_sum", "", 3.0),
        ("vllm:request_params_max_tokens_sum", "", 16.0),
        ("vitrum:graph_replays_total", "graph=\"forward.decode.8\"", 2.0),
    ] {
        assert_eq!(value(name, extra), expected, "{name}");
    }
    // le is a histogram's first label here
    let bucket = |name: &str, le: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}_bucket{{")) && line.contains(&format!("le=\"{le}\"")));
        line.unwrap_or_else(|| panic!("{name} {le}: {text}")).rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(
        (bucket("vllm:time_to_first_token_seconds", "0.001"), bucket("vllm:time_to_first_token_seconds", "0.005")),
        (0, 1)
    );
    assert_eq!(bucket("vllm:time_to_first_token_seconds", "2560.0"), 1);
    assert_eq!(bucket("vllm:inter_token_latency_seconds", "0.01"), 1);
    assert_eq!(
        (
            bucket("vitrum:inter_token_latency_seconds", "0.0005"),
            bucket("vitrum:inter_token_latency_seconds", "0.00075")
        ),
        (0, 1)
    );
    for line in text.lines() {
        let sample = line.split(['{', ' ']).next().unwrap();
        assert!(
            line.starts_with("# HELP ")
                || line.starts_with("# TYPE ")
                || sample.starts_with("vllm:")
                || sample.starts_with("vitrum:"),
            "{line}"
        );
    }
    assert!(text.contains("# TYPE vllm:prompt_tokens_total counter\n"));
    assert!(text.contains("# TYPE vllm:time_to_first_token_seconds histogram\n"));
}
