//! One node is made 200 µs longer: what users read says so, of that node and of no other.
//!
//! Two servers, one with the delay, are recorded in turns, so that both have the machine's good and bad moments, and
//! medians are compared: a time that another process took is in every average. The table's averages have to be the
//! trace's.
//!
//! One worker: with several, a node lasts until the slowest of them arrives, and one whose core another process uses
//! arrives milliseconds late. What several workers' stamps become is shown in src/device/cpu/stamps.rs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::server::{Server, run_within, vitrum};
use crate::{file, generate, machine, recording_server, stop};

const DELAY_US: f64 = 200.0;
const LAYER: i64 = 1;
const OP: &str = "attn.core";
const ROUNDS: usize = 9;
const TOKENS: usize = 300;
/// Of the tiny model: embedding, five ops in each of two layers, projection to the vocabulary, draw.
const PLACES: usize = 1 + 2 * 5 + 2;

/// Layer, −1 outside of layers, and op.
type Place = (i64, String);
/// Values in µs, by place.
type Times = BTreeMap<Place, Vec<f64>>;

/// What the two outputs say of one server.
#[derive(Default)]
struct Seen {
    /// `P50 (ns)` of `node_sum`, one value per recording.
    table: Times,
    /// `dur` of the trace's nodes.
    durations: Times,
    /// `excl_us` of the trace's nodes.
    exclusive: Times,
}

fn server(flags: &[&str]) -> Server {
    recording_server(&[&["--threads", "1"], flags].concat())
}

impl Seen {
    /// Records an answer, and reads the table and the trace.
    async fn record(&mut self, server: &Server) {
        assert_eq!(server.post("/start_profile", "").await.status, 200);
        generate(server, TOKENS).await;
        let stopped = stop(server).await;
        let averages = self.read_table(file(&stopped, ".vtr"));
        let nodes = self.read_trace(file(&stopped, ".pt.trace.json.gz"), &averages);
        assert_eq!(nodes, stopped["expected"], "node times in the trace");
    }

    /// Gives its averages in µs.
    fn read_table(&mut self, recording: &str) -> BTreeMap<Place, f64> {
        let args = ["profile", "stats", recording, "--report", "node_sum", "--format", "json"];
        let ended = run_within(vitrum(args), Duration::from_secs(10));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let rows: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(rows.len(), PLACES, "{rows:?}");
        let mut averages = BTreeMap::new();
        for row in rows {
            let us = |column: &str| row[column].as_f64().expect("a number") / 1e3;
            assert!(row["Count"].as_u64().is_some_and(|count| count >= TOKENS as u64), "{row}");
            let place = place(&row["Layer"], &row["Op"]);
            self.table.entry(place.clone()).or_default().push(us("P50 (ns)"));
            averages.insert(place, us("Avg (ns)"));
        }
        averages
    }

    /// Gives the number of nodes, whose times have these averages.
    fn read_trace(&mut self, path: &str, averages: &BTreeMap<Place, f64>) -> u64 {
        let mut text = String::new();
        GzDecoder::new(File::open(path).expect("the trace")).read_to_string(&mut text).expect("gzip");
        let trace: Value = serde_json::from_str(&text).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("a list");
        let nodes: Vec<&Value> = events.iter().filter(|event| event["cat"] == "kernel").collect();
        let mut exclusive = Times::new();
        for node in &nodes {
            let args = &node["args"];
            let place = place(&args["layer"], &args["op"]);
            for (times, value) in [(&mut self.durations, &node["dur"]), (&mut exclusive, &args["excl_us"])] {
                times.entry(place.clone()).or_default().push(value.as_f64().expect("a number"));
            }
        }
        assert!(exclusive.keys().eq(averages.keys()), "{:?}", averages.keys());
        for (place, times) in exclusive {
            let (average, in_table) = (times.iter().sum::<f64>() / times.len() as f64, averages[&place]);
            assert!(
                (average - in_table).abs() < 0.002,
                "{place:?}: {in_table} µs in the table, {average} in the trace"
            );
            self.exclusive.entry(place).or_default().extend(times);
        }
        nodes.len() as u64
    }
}

fn place(layer: &Value, op: &Value) -> Place {
    (layer.as_i64().unwrap_or(-1), op.as_str().expect("an op").to_owned())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The delayed place takes 200 µs more, within 10 %; every other place as long as before, within as many µs.
fn assert_truth(output: &str, plain: &Times, delayed: &Times) {
    assert_eq!(plain.len(), PLACES, "{output}: {:?}", plain.keys());
    assert!(plain.keys().eq(delayed.keys()), "{output}: {:?}", delayed.keys());
    for (place, times) in plain {
        let more_us = median(&delayed[place]) - median(times);
        let expected_us = if *place == (LAYER, OP.to_owned()) { DELAY_US } else { 0.0 };
        println!("{output}: {place:?}: {:.1} µs and {more_us:+.1} µs", median(times));
        let error_us = (more_us - expected_us).abs();
        assert!(error_us <= 0.1 * DELAY_US, "{output}: {place:?} takes {more_us} µs more, not {expected_us}");
    }
}

#[tokio::test]
async fn a_node_made_200_us_longer_is_so_in_the_table_and_in_the_trace_and_no_other_is() {
    let _alone = machine().await;
    let delay = format!("{OP}:{LAYER}:{DELAY_US}");
    let servers = [server(&[]), server(&["--test-delay", &delay])];
    let mut seen = [Seen::default(), Seen::default()];
    for _ in 0..ROUNDS {
        for (server, seen) in servers.iter().zip(&mut seen) {
            seen.record(server).await;
        }
    }
    let [plain, delayed] = &seen;
    assert_truth("node_sum", &plain.table, &delayed.table);
    assert_truth("dur", &plain.durations, &delayed.durations);
    assert_truth("excl_us", &plain.exclusive, &delayed.exclusive);
}
