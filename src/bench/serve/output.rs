//! The printed block and the JSON file: lines and keys of `vllm bench serve`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::args::{MetricName, ServeArgs};
use super::metrics::Metrics;
use super::request::{Failure, Outcome};
use crate::bench::stats::Sample;

/// A latency as it is printed and saved.
struct Latency<'a> {
    header: &'static str,
    label: &'static str,
    key: &'static str,
    sample: &'a Sample,
}

/// The latencies that were asked for and that this run has.
fn latencies<'a>(metrics: &'a Metrics, args: &ServeArgs) -> Vec<Latency<'a>> {
    let limited = args.max_concurrency.is_some();
    let paced = limited && args.request_rate.is_finite();
    let all = [
        (MetricName::Ttft, true, "Time to First Token", "TTFT", "ttft", &metrics.ttft_ms),
        (MetricName::Tpot, true, "Time per Output Token (excl. 1st token)", "TPOT", "tpot", &metrics.tpot_ms),
        (MetricName::Itl, true, "Inter-token Latency", "ITL", "itl", &metrics.itl_ms),
        (MetricName::E2el, true, "End-to-end Latency", "E2EL", "e2el", &metrics.e2el_ms),
        (
            MetricName::ClientQueueTime,
            limited,
            "Client-side Queueing",
            "Client Queue Time",
            "client_queue_time",
            &metrics.queue_ms,
        ),
        (
            MetricName::E2elIncludingClientQueue,
            paced,
            "Queue-inclusive End-to-end Latency",
            "E2EL incl. Client Queue",
            "e2el_including_client_queue",
            &metrics.e2el_with_queue_ms,
        ),
    ];
    all.into_iter()
        .filter(|(name, present, ..)| *present && args.percentile_metrics.contains(name))
        .map(|(_, _, header, label, key, sample)| Latency { header, label, key, sample })
        .collect()
}

/// Prints the block.
pub(super) fn print(out: &mut dyn Write, metrics: &Metrics, args: &ServeArgs) -> io::Result<()> {
    writeln!(out, "{:=^50}", " Serving Benchmark Result ")?;
    let mut line = |label: &str, value: &str| writeln!(out, "{label:<40} {value:<10}");
    line("Successful requests:", &metrics.completed.to_string())?;
    line("Failed requests:", &metrics.failed.to_string())?;
    if let Some(limit) = args.max_concurrency {
        line("Maximum request concurrency:", &limit.to_string())?;
    }
    if args.request_rate.is_finite() {
        line("Request rate configured (RPS):", &format!("{:.2}", args.request_rate))?;
    }
    line("Benchmark duration (s):", &format!("{:.2}", metrics.duration_s))?;
    line("Total input tokens:", &metrics.total_input.to_string())?;
    line("Total generated tokens:", &metrics.total_output.to_string())?;
    line("Request throughput (req/s):", &format!("{:.2}", metrics.request_throughput()))?;
    if let Some(goodput) = metrics.goodput {
        line("Request goodput (req/s):", &format!("{goodput:.2}"))?;
    }
    line("Output token throughput (tok/s):", &format!("{:.2}", metrics.output_throughput()))?;
    line("Peak output token throughput (tok/s):", &format!("{:.2}", metrics.peak_output_per_s as f64))?;
    line("Peak concurrent requests:", &format!("{:.2}", metrics.peak_concurrent as f64))?;
    line("Total token throughput (tok/s):", &format!("{:.2}", metrics.total_throughput()))?;
    for latency in latencies(metrics, args) {
        writeln!(out, "{:-^50}", latency.header)?;
        let mut line = |label: String, value: f64| writeln!(out, "{label:<40} {:<10}", format!("{value:.2}"));
        line(format!("Mean {} (ms):", latency.label), latency.sample.mean())?;
        line(format!("Median {} (ms):", latency.label), latency.sample.median())?;
        for &percent in &args.metric_percentiles {
            line(format!("P{percent} {} (ms):", latency.label), latency.sample.percentile(percent))?;
        }
    }
    writeln!(out, "{:=<50}", "")
}

/// Prints why requests failed: at most ten of them, and the body of a refused one once.
pub(super) fn print_failures(out: &mut dyn Write, outcomes: &[Outcome]) -> io::Result<()> {
    let failures: Vec<&Failure> = outcomes.iter().filter_map(|outcome| outcome.failure.as_ref()).collect();
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "Failed requests during benchmark run detected (capping to 10):")?;
    for (index, failure) in failures.iter().take(10).enumerate() {
        let words = failure.to_string();
        let same_as_before = index > 0 && failures[0].to_string() == words;
        writeln!(out, "Error {index}: {}", if same_as_before { "as error 0" } else { &words })?;
    }
    Ok(())
}

/// What stands in the JSON file before the figures.
pub(super) struct Heading<'a> {
    pub(super) model: &'a str,
    pub(super) date: &'a str,
}

/// The members of the JSON file, in vLLM's order.
pub(super) fn json(
    heading: &Heading<'_>,
    metrics: &Metrics,
    outcomes: &[Outcome],
    args: &ServeArgs,
) -> Map<String, Value> {
    let rate = if args.request_rate.is_finite() { json!(args.request_rate) } else { json!("inf") };
    let mut result = object(json!({
        "date": heading.date,
        "endpoint_type": args.backend.as_str(),
        "backend": args.backend.as_str(),
        "label": args.label,
        "model_id": heading.model,
        "tokenizer_id": heading.model,
        "num_prompts": args.num_prompts,
    }));
    result.extend(args.metadata.iter().map(|(key, value)| (key.clone(), json!(value))));
    let burstiness = if args.burstiness.is_finite() { json!(args.burstiness) } else { json!("inf") };
    result.extend(object(json!({
        "request_rate": rate,
        "burstiness": burstiness,
        "max_concurrency": args.max_concurrency,
        "duration": metrics.duration_s,
        "completed": metrics.completed,
        "failed": metrics.failed,
        "total_input_tokens": metrics.total_input,
        "total_output_tokens": metrics.total_output,
        "request_throughput": metrics.request_throughput(),
        "request_goodput": metrics.goodput,
        "output_throughput": metrics.output_throughput(),
        "total_token_throughput": metrics.total_throughput(),
    })));
    if args.save_detailed {
        result.extend(details(outcomes));
    }
    result.insert("latencies".into(), outcomes.iter().map(|outcome| outcome.latency_s).collect());
    result.insert("queue_times".into(), outcomes.iter().map(|outcome| outcome.queue_s).collect());
    result.insert("max_output_tokens_per_s".into(), json!(metrics.peak_output_per_s as f64));
    result.insert("max_concurrent_requests".into(), json!(metrics.peak_concurrent));
    result.insert("rtfx".into(), json!(0.0)); // of speech models
    for Latency { key, sample, .. } in latencies(metrics, args) {
        result.insert(format!("mean_{key}_ms"), json!(sample.mean()));
        result.insert(format!("median_{key}_ms"), json!(sample.median()));
        result.insert(format!("std_{key}_ms"), json!(sample.std_dev()));
        for &percent in &args.metric_percentiles {
            result.insert(format!("p{percent}_{key}_ms"), json!(sample.percentile(percent)));
        }
    }
    result
}

/// What is known of each request.
fn details(outcomes: &[Outcome]) -> Map<String, Value> {
    let each = |value: &dyn Fn(&Outcome) -> Value| -> Value { outcomes.iter().map(value).collect() };
    object(json!({
        "input_lens": each(&|outcome| json!(outcome.prompt_tokens)),
        "output_lens": each(&|outcome| json!(if outcome.failure.is_none() { outcome.output_tokens } else { 0 })),
        "ttfts": each(&|outcome| json!(outcome.ttft_s)),
        "itls": each(&|outcome| json!(outcome.itls_s)),
        "start_times": each(&|outcome| json!(outcome.start_s)),
        "generated_texts": each(&|outcome| json!(outcome.text)),
        "errors": each(&|outcome| json!(outcome.failure.as_ref().map(Failure::to_string).unwrap_or_default())),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => unreachable!("{other} is no object"),
    }
}

/// Where the JSON file goes.
pub(super) fn path(args: &ServeArgs, model: &str, date: &str) -> PathBuf {
    let label = args.label.as_deref().unwrap_or(args.backend.as_str());
    let rate = if args.request_rate.is_finite() { format!("{:?}", args.request_rate) } else { "inf".into() };
    let concurrency = args.max_concurrency.map(|limit| format!("-concurrency{limit}")).unwrap_or_default();
    let model = model.rsplit('/').next().unwrap_or(model);
    let name =
        args.result_filename.clone().unwrap_or_else(|| format!("{label}-{rate}qps{concurrency}-{model}-{date}.json"));
    args.result_dir.clone().unwrap_or_default().join(name)
}

/// `20250131-235959`, in UTC.
pub(super) fn date_of(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days since 0000-03-01: years then end with February, and 400 of them have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // 0 is March
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let second = seconds % 86_400;
    format!("{year:04}{month:02}{day_of_month:02}-{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
