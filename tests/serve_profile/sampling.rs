//! `vitrum serve --profile-sample N`: what a server says of its nodes while it serves, beside recordings or without.
//!
//! One worker, for the reason that known_truth.rs gives.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use vitrum::report::Report;
use vitrum::trace::sample::{By, GraphSample, SampleReading};

use crate::support::client::get;
use crate::support::server::{Ended, Server, error_message, run_within, vitrum};
use crate::{file, generate, machine, recording_server, stop};

fn server(flags: &[&str]) -> Server {
    recording_server(&[&["--threads", "1"], flags].concat())
}

async fn read(server: &Server, by: By) -> SampleReading {
    let reply = get(server.address, &format!("/profile/nodes?by={by}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_value(reply.json()).expect("a reading")
}

async fn reset(server: &Server) {
    let reply = server.post("/profile/nodes/reset", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// The graph of one row.
fn decode(reading: &SampleReading) -> &GraphSample {
    let found = reading.graphs.iter().find(|graph| graph.graph.to_string() == "forward.decode.1");
    found.unwrap_or_else(|| panic!("{reading:?}"))
}

/// Exclusive times of each node of the decode graph in a complete recording, sorted, in µs.
fn recorded(report: &Report) -> Vec<Vec<f64>> {
    let recording = &report.recording;
    let graph = recording.graphs.iter().position(|table| table.key.to_string() == "forward.decode.1").expect("it");
    let mut times = vec![Vec::new(); recording.graphs[graph].nodes.len()];
    for node in &recording.nodes {
        if recording.replays[node.replay as usize].graph == graph {
            times[node.ordinal as usize].push(node.excl_ns as f64 / 1e3);
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable_by(f64::total_cmp));
    times
}

/// Records so many answers of 200 tokens, with whatever is sampled meanwhile.
async fn record(server: &Server, body: Value, answers: usize) -> (Report, SampleReading) {
    generate(server, 8).await; // every graph is captured
    assert_eq!(server.post("/start_profile", body).await.status, 200);
    reset(server).await;
    for _ in 0..answers {
        generate(server, 200).await;
    }
    let reading = read(server, By::Node).await;
    let stopped = stop(server).await;
    let report = Report::load(Path::new(file(&stopped, ".vtr"))).expect("a recording");
    assert!(report.completeness.complete, "{:?}", report.completeness);
    (report, reading)
}

#[tokio::test]
async fn samples_are_those_of_a_recording_of_the_same_steps() {
    let _alone = machine().await;
    let server = server(&["--profile-sample", "1"]);
    let (report, reading) = record(&server, json!({}), 1).await;
    let steps = report.recording.steps.len() as u64;
    // The step behind the last token may be read after it was sent.
    assert!(steps.abs_diff(reading.steps) <= 1 && reading.sampled + reading.left_out <= reading.steps, "{reading:?}");
    assert_eq!(reading.left_out, 0, "nobody was reading");
    let (decode, recorded) = (decode(&reading), recorded(&report));
    assert_eq!(decode.nodes.len(), recorded.len());
    for (row, times) in decode.nodes.iter().zip(&recorded) {
        assert!(times.len() >= 190 && row.count.abs_diff(times.len() as u64) <= 1, "{row:?}: {}", times.len());
        let (low, high) = (times[times.len() * 45 / 100], times[times.len() * 55 / 100]);
        assert!(
            row.times.p50_us >= 0.99 * low - 0.02 && row.times.p50_us <= 1.01 * high + 0.02,
            "{row:?}: {low}, {high}"
        );
        assert!(row.times.max_us <= times[times.len() - 1] && row.gb_s.is_some(), "{row:?}");
        assert!(row.read_peak_percent.is_some_and(|percent| percent > 0.0), "the recording measured it: {row:?}");
    }
}

#[tokio::test]
async fn a_recording_beside_the_sampler_is_complete_and_agrees_with_it() {
    let _alone = machine().await;
    let server = server(&["--profile-sample", "8"]);
    let (report, reading) = record(&server, json!({}), 4).await;
    assert_eq!(report.recording.steps.iter().filter(|step| !step.traced).count(), 0);
    assert!(reading.sampled.abs_diff(reading.steps / 8) <= 2 && reading.left_out == 0, "{reading:?}");
    for (row, times) in decode(&reading).nodes.iter().zip(recorded(&report)) {
        let (low, high) = (times[times.len() / 5], times[times.len() * 4 / 5]);
        assert!(
            row.times.p50_us >= 0.99 * low - 0.02 && row.times.p50_us <= 1.01 * high + 0.02,
            "{row:?}: {low}, {high}"
        );
    }
    // A toggled recording compares timed steps with others: the sampler times none of its own.
    let (report, reading) = record(&server, json!({"toggle": true}), 4).await;
    let untraced: Vec<u64> = report.recording.steps.iter().filter(|step| !step.traced).map(|step| step.step).collect();
    assert!(untraced.len() > 300, "{} of {}", untraced.len(), report.recording.steps.len());
    let timed = report.recording.replays.iter().filter(|replay| !replay.nodes.is_empty());
    assert!(timed.map(|replay| replay.record.step).all(|step| !untraced.contains(&step)));
    assert!(reading.left_out > 20 && reading.sampled > 20, "{reading:?}");
    assert!((reading.sampled + reading.left_out).abs_diff(reading.steps / 8) <= 2, "{reading:?}");
}

#[tokio::test]
async fn a_node_made_200_us_longer_is_so_in_the_samples_and_no_other_is() {
    const DELAY_US: f64 = 200.0;
    let _alone = machine().await;
    let servers =
        [server(&["--profile-sample", "4"]), server(&["--profile-sample", "4", "--test-delay", "attn.core:1:200"])];
    for server in &servers {
        generate(server, 8).await;
        reset(server).await;
    }
    // In turns, so that both have the machine's good and bad moments.
    for _ in 0..9 {
        for server in &servers {
            generate(server, 300).await;
        }
    }
    let [plain, delayed] = [read(&servers[0], By::Node).await, read(&servers[1], By::Node).await];
    for reading in [&plain, &delayed] {
        assert!(reading.steps >= 9 * 300 && reading.sampled.abs_diff(reading.steps / 4) <= 2, "{reading:?}");
    }
    let pairs: Vec<_> = decode(&plain).nodes.iter().zip(&decode(&delayed).nodes).collect();
    assert_eq!(pairs.len(), 11);
    for (plain, delayed) in pairs {
        let more_us = delayed.times.p50_us - plain.times.p50_us;
        let is_delayed = (plain.layer, plain.op.map(|op| op.as_str())) == (Some(1), Some("attn.core"));
        let expected_us = if is_delayed { DELAY_US } else { 0.0 };
        println!("{:?} {:?}: {:.1} µs and {more_us:+.1} µs", plain.layer, plain.op, plain.times.p50_us);
        assert!((more_us - expected_us).abs() <= 0.1 * DELAY_US, "{plain:?} takes {more_us} µs more");
    }
}

fn top(server: &Server, flags: &[&str]) -> Ended {
    let url = format!("http://{}", server.address);
    let args = [&["profile", "top", "--url", &url], flags].concat();
    run_within(vitrum(args), Duration::from_secs(20))
}

#[tokio::test]
async fn samples_are_printed_scraped_reset_and_refused_by_name() {
    let _alone = machine().await;
    let server = server(&["--profile-sample", "2"]);
    generate(&server, 100).await;
    for (flags, words) in [
        (&[][..], &["one in 2", "forward.decode.1: ", "by op", "mlp.down", "lm_head", "Peak (%)"][..]),
        (&["--by", "layer", "--graph", "forward.decode.1"], &["by layer", "Replay (us)"]),
        (&["--by", "node", "--rows", "3"], &["by node", "Kernel", "and 8 rows more"]),
    ] {
        let ended = top(&server, flags);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        words.iter().for_each(|word| assert!(ended.stdout.contains(word), "no {word:?} in {}", ended.stdout));
    }
    assert!(!top(&server, &["--graph", "forward.decode.1"]).stdout.contains("sample.plain"));

    let labels = "op=\"mlp.up\",graph_kind=\"forward.decode\"";
    let metric = async |name: &str, labels: &str| server.metric(name, labels).await;
    let count = metric("vitrum:node_time_seconds_count", labels).await;
    assert!(count >= 2.0 * 49.0, "two layers of every other step: {count}");
    assert_eq!(metric("vitrum:node_time_seconds_bucket", &format!("le=\"+Inf\",{labels}")).await, count);
    let sum_s = metric("vitrum:node_time_seconds_sum", labels).await;
    assert!(sum_s > 1e-7 * count && sum_s < 0.1 * count, "{sum_s}");
    let text = get(server.address, "/metrics").await.text().to_owned();
    for head in ["vitrum:node_time_seconds histogram", "vitrum:sampled_steps_total counter"] {
        assert_eq!(text.matches(&format!("# TYPE {head}\n")).count(), 1, "{head}: {text}");
    }
    let buckets: Vec<&str> = text.lines().filter(|line| line.contains("node_time_seconds_bucket")).collect();
    let values: Vec<f64> = buckets.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(values.chunks(14).all(|series| series.is_sorted()) && values.len().is_multiple_of(14), "{buckets:?}");
    assert!(buckets.len() <= 16 * 14, "{} lines", buckets.len());

    let sampled = metric("vitrum:sampled_steps_total", "").await;
    assert!(sampled >= 49.0 && metric("vitrum:sample_left_out_total", "").await <= 3.0);
    let ended = top(&server, &["--reset"]);
    assert!(ended.code == Some(0) && ended.stdout.starts_with("0 of 0 steps sampled, one in 2"), "{ended:?}");
    assert_eq!(metric("vitrum:sampled_steps_total", "").await, sampled, "a counter does not go back");

    for (query, param) in [("by=colour", "by"), ("graph=8", "graph"), ("top=5", "top"), ("by=op&by=op", "by")] {
        let reply = get(server.address, &format!("/profile/nodes?{query}")).await;
        error_message(&reply, 400, &json!(param), query);
    }
    error_message(&server.post("/profile/nodes/reset", json!({"graph": 1})).await, 400, &json!("graph"), "reset");
}

#[tokio::test]
async fn a_server_that_samples_nothing_says_how_to() {
    let _alone = machine().await;
    let server = server(&["--profile-sample", "0"]);
    server.assert_answers().await;
    let words = "start the server with --profile-sample N";
    let replies = [get(server.address, "/profile/nodes").await, server.post("/profile/nodes/reset", "").await];
    for reply in replies {
        assert!(error_message(&reply, 403, &Value::Null, "nodes").contains(words));
    }
    let ended = top(&server, &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(words) && ended.stdout.is_empty(), "{ended:?}");
    assert!(!get(server.address, "/metrics").await.text().contains("node_time_seconds"));
    let ended = top(&server, &["--watch", "0"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--watch"), "{ended:?}");
}
