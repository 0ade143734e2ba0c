//! The block and the JSON file, against the words of `vllm bench serve`.

use std::time::Duration;

use clap::Parser;

use super::*;
use crate::bench::serve::metrics::tests::outcomes;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ServeArgs,
}

fn args(flags: &[&str]) -> ServeArgs {
    Flags::try_parse_from(std::iter::once(&"bench").chain(flags)).unwrap_or_else(|error| panic!("{error}")).args
}

#[test]
fn the_block_has_the_lines_and_widths() {
    let args = args(&["--max-concurrency", "8", "--percentile-metrics", "ttft", "--metric-percentiles", "50,99.9"]);
    let mut out = Vec::new();
    print(&mut out, &Metrics::new(&outcomes(), 4.0, &[]), &args).unwrap();
    let expected = "\
============ Serving Benchmark Result ============
Successful requests:                     2
Failed requests:                         1
Maximum request concurrency:             8
Benchmark duration (s):                  4.00
Total input tokens:                      15
Total generated tokens:                  4
Request throughput (req/s):              0.50
Output token throughput (tok/s):         1.00
Peak output token throughput (tok/s):    2.00
Peak concurrent requests:                2.00
Total token throughput (tok/s):          4.75
---------------Time to First Token----------------
Mean TTFT (ms):                          150.00
Median TTFT (ms):                        150.00
P50 TTFT (ms):                           150.00
P99.9 TTFT (ms):                         199.90
==================================================
";
    let printed = String::from_utf8(out).unwrap();
    let trimmed: String = printed.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(trimmed, expected);
    assert!(printed.lines().all(|line| line.len() == 51 || (line.len() == 50 && !line.contains(':'))), "{printed}");
}

#[test]
fn the_json_file_has_the_keys() {
    let args = args(&["--save-detailed", "--goodput", "ttft:150", "--metadata", "tp=1", "--request-rate", "2.5"]);
    let metrics = Metrics::new(&outcomes(), 4.0, &args.goodput);
    let result = json(&Heading { model: "org/m", date: "20250101-000000" }, &metrics, &outcomes(), &args);
    let keys = "\
                date endpoint_type backend label model_id tokenizer_id num_prompts tp request_rate burstiness \
                max_concurrency duration completed failed total_input_tokens total_output_tokens request_throughput \
                request_goodput output_throughput total_token_throughput input_lens output_lens ttfts itls start_times \
                generated_texts errors latencies queue_times max_output_tokens_per_s max_concurrent_requests rtfx \
                mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms \
                p99_tpot_ms mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms";
    let found: Vec<&str> = result.keys().map(String::as_str).collect();
    assert_eq!(found, keys.split_whitespace().collect::<Vec<_>>());
    assert_eq!((&result["output_lens"], &result["request_goodput"]), (&json!([3, 1, 0]), &json!(0.25)));
    assert_eq!(path(&args, "org/m", "D"), PathBuf::from("openai-2.5qps-m-D.json"));
}

#[test]
fn a_failure_is_told_once() {
    let mut out = Vec::new();
    let failed = || Outcome { failure: Some(Failure::NoToken), ..Outcome::default() };
    print_failures(&mut out, &[failed(), failed(), Outcome::default()]).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.ends_with("Error 0: the stream ended without a token\nError 1: as error 0\n"), "{text}");
}

#[test]
fn bad_flags_are_refused_by_name() {
    for flags in [
        ["--dataset-name", "sharegpt"],
        ["--goodput", "itl:3"],
        ["--metric-percentiles", "101"],
        ["--extra-body", "[1]"],
        ["--metadata", "novalue"],
        ["--percentile-metrics", "ttft,foo"],
    ] {
        let error = Flags::try_parse_from(std::iter::once("bench").chain(flags)).err().expect("refused").to_string();
        assert!(error.contains(flags[0]), "{error}");
    }
}

#[test]
fn dates() {
    for (seconds, date) in
        [(0, "19700101-000000"), (951_827_696, "20000229-123456"), (1_735_689_599, "20241231-235959")]
    {
        assert_eq!(date_of(UNIX_EPOCH + Duration::from_secs(seconds)), date);
    }
}
