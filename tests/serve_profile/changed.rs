//! `vitrum profile diff` on real recordings: a node made 200 µs longer is found, with the step that it is part of; a
//! limit names what is beyond it by the tables' own numbers; of one recording and itself nothing differs.
//!
//! Three servers are asked in turns, so that all of them have the machine's good and bad moments; one worker, as in
//! known_truth.rs. All of them have a delay in that node: without any, the tiny model's other nodes, which take less
//! than a microsecond, find warmer caches than behind a worker that did nothing for a while: that is a change, too.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Ended, Server, run_within, vitrum};
use crate::{file, generate, machine, recording_server, stop};

const LAYER: i64 = 1;
const OP: &str = "attn.core";
/// The delay of all of them, and what one has more.
const DELAYS_US: f64 = 200.0;
const DELAY_US: f64 = 200.0;
const ROUNDS: usize = 24;
const TOKENS: usize = 100;

fn server(delay_us: f64) -> Server {
    recording_server(&["--threads", "1", "--test-delay", &format!("{OP}:{LAYER}:{delay_us}")])
}

/// Each server's recording of the same load.
async fn record(servers: &[Server; 3]) -> [String; 3] {
    for server in servers {
        assert_eq!(server.post("/start_profile", "").await.status, 200);
    }
    for _ in 0..ROUNDS {
        for server in servers {
            generate(server, TOKENS).await;
        }
    }
    let mut recordings = Vec::new();
    for server in servers {
        recordings.push(file(&stop(server).await, ".vtr").to_owned());
    }
    recordings.try_into().expect("three")
}

fn diff(base: &str, new: &str, flags: &[&str]) -> Ended {
    run_within(vitrum([&["profile", "diff", base, new], flags].concat()), Duration::from_secs(20))
}

fn rows(base: &str, new: &str, by: &str) -> Vec<Value> {
    let ended = diff(base, new, &["--by", by, "--format", "json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[tokio::test]
async fn a_node_made_200_us_longer_is_found_and_nothing_where_nothing_changed() {
    let _alone = machine().await;
    let servers = [DELAYS_US, DELAYS_US, DELAYS_US + DELAY_US].map(server);
    let [plain, again, delayed] = &record(&servers).await;

    let found = rows(plain, delayed, "node");
    let place = |row: &Value| (row["Layer"].as_i64(), row["Op"].as_str().map(str::to_owned));
    let first = &found[0];
    assert_eq!((place(first), &first["Change"]), ((Some(LAYER), Some(OP.into())), &json!("slower")), "{first}");
    let us = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key}: {row}"));
    assert!((us(first, "Delta (us)") - DELAY_US).abs() <= 0.1 * DELAY_US, "{first}");
    assert!(us(first, "Low (us)") <= DELAY_US * 1.1 && us(first, "High (us)") >= DELAY_US * 0.9, "{first}");
    for row in found[1..].iter().filter(|row| row["Change"] == "slower" && place(row) != place(first)) {
        println!("slower, too: {row}");
        assert!(us(row, "Low (us)") <= 0.1 * DELAY_US, "{row}");
    }

    // By how many percent each step and each op is slower, as a limit sees it.
    let mut slower = Vec::new();
    for (by, name) in [("step", "Graphs"), ("op", "Op")] {
        for row in rows(plain, delayed, by).iter().filter(|row| row["Change"] == "slower") {
            let percent = 100.0 * us(row, "Low (us)") / us(row, "Med base (us)");
            slower.push((row[name].as_str().expect("a name").to_owned(), percent));
        }
    }
    let (_, node_percent) = slower.iter().find(|(name, _)| name == OP).expect("the op");
    assert!(slower.iter().any(|(name, _)| name.contains(" + sample.plain.")), "no step: {slower:?}");
    let above = |limit: f64| slower.iter().filter(move |(_, percent)| *percent > limit);
    for limit in [0.99 * node_percent, 1.01 * node_percent] {
        let ended = diff(plain, delayed, &[&format!("--fail-above={limit}")]);
        assert_eq!(ended.code, Some(i32::from(above(limit).count() > 0)), "{limit} % of {slower:?}: {}", ended.stderr);
        let named: Vec<&str> = ended.stderr.split(';').filter(|part| part.contains(" takes ")).collect();
        assert_eq!(named.len(), above(limit).count(), "{limit} % of {slower:?}: {}", ended.stderr);
        for (name, _) in above(limit) {
            assert!(named.iter().any(|part| part.contains(name)), "{name}: {}", ended.stderr);
        }
    }

    let compared = rows(plain, again, "node");
    let tested = compared.iter().filter(|row| row["Change"] != "too few").count();
    for row in compared.iter().filter(|row| row["Change"] != "too few") {
        assert!(us(row, "Low (us)") <= 0.1 * DELAY_US && us(row, "High (us)") >= -0.1 * DELAY_US, "{row}");
    }
    assert!(tested >= 13, "{compared:?}");
    for by in ["step", "graph", "op", "layer", "node"] {
        let same = rows(plain, plain, by);
        assert!(!same.is_empty() && same.iter().all(|row| us(row, "Delta (us)") == 0.0), "{same:?}");
    }
}
