//! GET /metrics: vLLM's names, and what the engine reported under them.

use std::time::Duration;

use vitrum::engine::metrics::{EngineMetrics, FinishedRequest};
use vitrum::request::FinishReason;
use vitrum::trace::schema::{GraphKey, GraphKind};

use crate::client::get;
use crate::scripted::{Harness, MODEL};

/// One of everything that an engine reports.
fn report(metrics: &EngineMetrics) {
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
}

/// Name, further labels, value.
const SAMPLES: &[(&str, &str, f64)] = &[
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
];

/// Histogram, upper bound, how many are below it.
const BUCKETS: &[(&str, &str, u64)] = &[
    ("vllm:time_to_first_token_seconds", "0.001", 0),
    ("vllm:time_to_first_token_seconds", "0.005", 1),
    ("vllm:time_to_first_token_seconds", "2560.0", 1),
    ("vllm:time_to_first_token_seconds", "+Inf", 1),
    ("vllm:inter_token_latency_seconds", "0.01", 1),
    ("vitrum:inter_token_latency_seconds", "0.0005", 0),
    ("vitrum:inter_token_latency_seconds", "0.00075", 1),
];

#[tokio::test]
async fn metrics_have_vllms_names() {
    let server = Harness::start().await;
    report(server.engine.metrics());
    let reply = get(server.address, "/metrics").await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    let line = |found: &dyn Fn(&str) -> bool, what: &str| -> f64 {
        let line = text.lines().find(|line| found(line)).unwrap_or_else(|| panic!("no {what}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let labels = format!("model_name=\"{MODEL}\",engine=\"0\"");
    for (name, extra, expected) in SAMPLES {
        let comma = if extra.is_empty() { "" } else { "," };
        let prefix = format!("{name}{{{labels}{comma}{extra}}} ");
        assert_eq!(line(&|line| line.starts_with(&prefix), &prefix), *expected, "{prefix}");
    }
    for (name, bound, expected) in BUCKETS {
        let (name, bound) = (format!("{name}_bucket{{"), format!("le=\"{bound}\""));
        let count = line(&|line| line.starts_with(&name) && line.contains(&bound), &bound);
        assert_eq!(count, *expected as f64, "{name} {bound}");
    }
    assert!(text.contains("# TYPE vllm:prompt_tokens_total counter\n"));
    assert!(text.contains("# TYPE vllm:time_to_first_token_seconds histogram\n"));
    let known = ["# HELP ", "# TYPE ", "vllm:", "vitrum:"];
    let strange = text.lines().find(|line| !known.iter().any(|start| line.starts_with(start)));
    assert_eq!(strange, None);
}
