//! Two servers on one machine, one request to both at once, one trace: the request's moments in both lie within what
//! the client saw by its own clock, and the servers' events do not mix.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use vitrum::trace::spool::{Reader, file_header};

use crate::support::server::{Server, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::{file, machine, recording_server, stop};

/// What a reader of the client's clock and of the trace's microseconds may be off by.
const ROUNDING_NS: i128 = 2_000;

fn unix_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as i128
}

/// What the client saw, by its own wall clock.
struct Seen {
    sent_ns: i128,
    answered_ns: i128,
    recordings: [PathBuf; 2],
}

/// One request to both servers at once.
async fn ask_both(servers: &[Server; 2]) -> Seen {
    let [one, other] = servers;
    for server in servers {
        assert_eq!(server.post("/start_profile", "").await.status, 200);
    }
    let body = json!({"prompt": [65, 66, 67], "max_tokens": 20, "temperature": 0, "ignore_eos": true});
    let sent_ns = unix_ns();
    let replies = tokio::join!(one.post("/v1/completions", &body), other.post("/v1/completions", &body));
    let answered_ns = unix_ns();
    assert_eq!((replies.0.status, replies.1.status), (200, 200));
    let stopped = [stop(one).await, stop(other).await];
    Seen { sent_ns, answered_ns, recordings: stopped.each_ref().map(|stopped| file(stopped, ".vtr").into()) }
}

fn merge(recordings: [&Path; 2], out: &Path) -> Value {
    let mut command = vitrum(["profile", "merge"]);
    command.args(recordings).arg("--output").arg(out);
    let ended = run_within(command, Duration::from_secs(20));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.trim_end().ends_with(out.to_str().expect("UTF-8")), "{}", ended.stdout);
    let mut text = String::new();
    GzDecoder::new(File::open(out).expect("the trace")).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

/// A copy of a recording that says to be of another boot, so that the wall clock has to do.
fn of_another_boot(recording: &Path, copy: &Path) {
    let bytes = std::fs::read(recording).expect("the recording");
    let mut header = Reader::open(recording).expect("a recording").header().clone();
    assert!(header.session.clock.boot_id.is_some(), "{:?}", header.session.clock);
    header.session.clock.boot_id = Some("another boot".into());
    // Magic, version, length, checksum; the header's JSON.
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let moved = [file_header(&header).expect("a header").as_slice(), &bytes[20 + length..]].concat();
    std::fs::write(copy, moved).expect("a copy");
}

/// From its arrival to its last token, the request lies where the client saw it; gives its begin.
fn assert_within(trace: &Value, entry: &Value, seen: &Seen) -> i128 {
    let base_ns: i128 = trace["baseTimeNanoseconds"].as_i64().expect("a base").into();
    let events = trace["traceEvents"].as_array().expect("events").iter();
    let pid = &entry["merged"]["pids"]["requests"];
    let lives: Vec<&Value> = events
        .filter(|event| event["pid"] == *pid && event["name"].as_str().is_some_and(|name| name.starts_with("request ")))
        .filter(|event| event["ph"] == "X")
        .collect();
    assert_eq!(lives.len(), 1, "{lives:?}");
    let ns = |key: &str| (lives[0][key].as_f64().expect("a number") * 1e3) as i128;
    let (start_ns, end_ns) = (base_ns + ns("ts"), base_ns + ns("ts") + ns("dur"));
    let error_ns = ROUNDING_NS + i128::from(entry["merged"]["clock"]["error_ns"].as_u64().expect("an error"));
    assert!(start_ns >= seen.sent_ns - error_ns, "{} ns before it was sent", seen.sent_ns - start_ns);
    assert!(end_ns <= seen.answered_ns + error_ns, "{} ns after the answer", end_ns - seen.answered_ns);
    start_ns
}

/// A number of an event that no other recording's may have.
type Number<'a> = &'a dyn Fn(&Value) -> Option<u64>;

/// No process, launch, arrow or graph of both.
fn assert_distinct(trace: &Value) {
    let entries = trace["vitrum"]["recordings"].as_array().expect("a list");
    let pids = |at: usize| -> HashSet<u64> {
        let pids = entries[at]["merged"]["pids"].as_object().expect("pids");
        pids.values().map(|pid| pid.as_u64().expect("a pid")).collect()
    };
    let numbers = |at: usize, of: Number<'_>| -> HashSet<u64> {
        let events = trace["traceEvents"].as_array().expect("events").iter();
        let own = pids(at);
        events.filter(|event| own.contains(&event["pid"].as_u64().expect("a pid"))).filter_map(of).collect()
    };
    assert!(pids(0).is_disjoint(&pids(1)));
    assert_ne!(entries[0]["merged"]["process"], entries[1]["merged"]["process"]);
    let kinds: [Number<'_>; 4] = [
        &|event| event["id"].as_u64(),
        &|event| event["args"]["correlation"].as_u64(),
        &|event| event["args"]["graph node id"].as_u64(),
        &|event| event["args"]["stream"].as_u64(),
    ];
    for (at, kind) in kinds.iter().enumerate() {
        let (one, other) = (numbers(0, kind), numbers(1, kind));
        assert!(!one.is_empty() && !other.is_empty() && one.is_disjoint(&other), "kind {at}");
    }
}

fn lint(trace: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acceptance/lint_trace.py");
    let output = Command::new("python3").arg(script).arg(trace).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_request_to_two_servers_lines_up_in_one_trace() {
    let _alone = machine().await;
    let servers = [recording_server(&["--threads", "1"]), recording_server(&["--threads", "1"])];
    let seen = ask_both(&servers).await;
    let [one, other] = &seen.recordings;
    let folder = TempDir::new();
    let moved = folder.path().join("moved.vtr");
    of_another_boot(other, &moved);
    for (second, by) in [(other, "same_boot"), (&moved, "wall_clock")] {
        let out = folder.path().join(format!("{by}.pt.trace.json.gz"));
        let trace = merge([one, second], &out);
        let entries = trace["vitrum"]["recordings"].as_array().expect("a list");
        let clock = &entries[1]["merged"]["clock"];
        let (offset_ns, error_ns) = (clock["offset_ns"].as_i64().expect("ns"), clock["error_ns"].as_u64().expect("ns"));
        println!("{by}: {clock}");
        assert_eq!(clock["by"], by);
        if by == "same_boot" {
            assert_eq!((offset_ns, error_ns), (0, 0));
        } else {
            // It is the same clock in truth, so the error is all that there is.
            assert!(error_ns > 0 && offset_ns.unsigned_abs() <= error_ns, "{offset_ns} ns, error {error_ns} ns");
        }
        let starts = [0, 1].map(|at| assert_within(&trace, &entries[at], &seen));
        let apart_ns = (starts[0] - starts[1]).abs();
        let client_ns = seen.answered_ns - seen.sent_ns;
        println!("{by}: arrived {apart_ns} ns apart, the client took {client_ns} ns");
        assert!(apart_ns <= client_ns + i128::from(error_ns) + ROUNDING_NS);
        assert_distinct(&trace);
        lint(&out);
    }
}
