//! Recordings of long load in small files: what comes last is kept, a server that is killed leaves it, and a file that
//! may not grow costs the recording and not the server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use vitrum::report::Report;

use crate::load::Load;
use crate::support::client::{get, wait_until};
use crate::support::server::{Ended, Server, TINY_MODEL_LEN, error_message, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;
use crate::{file, machine};

const LIMIT: u64 = 500_000;

fn server(profiles: &Path, flags: &[&str]) -> Server {
    let folder = TempDir::new();
    let model = TinyModel { max_position: TINY_MODEL_LEN, ..TinyModel::default() }.write(&folder);
    let mut command = vitrum(["serve", "--port", "0", "--device", "cpu", "--threads", "1", "--profile-dir"]);
    command.arg(profiles).args(flags).arg(model);
    Server::spawn(folder, command)
}

/// No file that the server writes from now on may be longer; `unlimited` lifts that.
fn limit_files(server: &Server, bytes: &str) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", server.pid())).arg(format!("--fsize={bytes}:"));
    assert!(command.status().expect("prlimit runs").success());
}

/// Waits for so many recorded steps; the file is never larger than its limit.
async fn wait_for_steps(server: &Server, id: &Value, spool: &Path, steps: u64) {
    wait_until("steps are recorded", async || {
        let length = spool.metadata().expect("the file").len();
        assert!(length <= LIMIT, "{length} bytes");
        let path = format!("/profile/sessions/{}", id.as_str().expect("an id"));
        let session = get(server.address, &path).await.json();
        assert!(session["bytes"].as_u64().is_some_and(|bytes| bytes <= LIMIT), "{session}");
        session["steps"].as_u64().expect("a number") >= steps
    })
    .await;
}

/// What comes now is left out of the newest recording.
async fn is_full(server: &Server) -> bool {
    get(server.address, "/profile/sessions").await.json()["sessions"][0]["full"] == true
}

fn stats(recording: &Path) -> Ended {
    run_within(vitrum([Path::new("profile"), Path::new("stats"), recording]), Duration::from_secs(60))
}

#[tokio::test]
async fn a_long_load_in_a_small_file_keeps_the_last_steps() {
    let _alone = machine().await;
    let profiles = TempDir::new();
    let limit = LIMIT.to_string();
    let server = server(profiles.path(), &["--profile-keep", "last", "--profile-max-bytes", &limit]);
    let started = server.post("/start_profile", "").await.json();
    assert_eq!((&started["keep"], &started["max_bytes"]), (&json!("last"), &json!(LIMIT)), "{started}");
    let spool = PathBuf::from(started["spool"].as_str().expect("a path"));
    let load = Load::start(&server, 2, 50);
    wait_for_steps(&server, &started["id"], &spool, 3000).await;
    load.end().await;
    let stopped = server.post("/stop_profile", "").await.json();
    assert_eq!((&stopped["complete"], &stopped["limit_reached"]), (&json!(true), &json!(true)), "{stopped}");
    let overwritten = &stopped["overwritten"];
    let gone = overwritten["records"]["nodes"].as_u64().expect("a number");
    let number = |name: &str| stopped[name].as_u64().expect("a number");
    assert!(gone > 0 && number("bytes") <= LIMIT, "{stopped}");
    assert_eq!(number("received") + gone, number("expected"), "{stopped}");

    let report = Report::load(&spool).expect("a report");
    assert!(report.completeness.complete, "{:?}", report.completeness);
    // The process's first step is 0, and every step was recorded.
    let from = overwritten["whole_from_step"].as_u64().expect("a step");
    let all = get(server.address, "/profile/sessions").await.json()["sessions"][0]["steps"].as_u64().expect("a number");
    assert!(report.recording.steps.iter().map(|step| step.step).eq(from..all), "from {from} to {all}");
    assert!(all - from > 100, "{from} of {all}");
    assert!(file(&stopped, ".pt.trace.json.gz").starts_with(profiles.path().to_str().expect("UTF-8")));
    let ended = stats(&spool);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains(&format!("Complete from step {from} on")), "{}", ended.stdout);
    assert!(ended.stdout.contains("KEPT THE LAST"), "{}", ended.stdout);

    // The client may want what comes first: then it is not complete.
    server.post("/start_profile", json!({"keep": "first", "max_bytes": 150_000})).await;
    let load = Load::start(&server, 2, 50);
    wait_until("the file is full", async || is_full(&server).await).await;
    load.end().await;
    let stopped = server.post("/stop_profile", "").await.json();
    assert_eq!((&stopped["complete"], &stopped["overwritten"]), (&json!(false), &Value::Null), "{stopped}");
    assert_eq!(stopped["limit_reached"], true);
}

#[tokio::test]
async fn a_killed_server_leaves_the_last_steps_and_they_are_said_to_be_cut_off() {
    let _alone = machine().await;
    for counted in [300, 2000, 3001] {
        let profiles = TempDir::new();
        let server = server(profiles.path(), &[]);
        let body = json!({"keep": "last", "max_bytes": LIMIT});
        let started = server.post("/start_profile", body).await.json();
        let spool = PathBuf::from(started["spool"].as_str().expect("a path"));
        let load = Load::start(&server, 2, 50);
        wait_for_steps(&server, &started["id"], &spool, counted).await;
        load.abort();
        wait_until("no request runs", async || server.running().await == 0.0).await;
        // What was in memory is lost: some hundred steps of a block. What was handed to the writer is in the file
        // soon; while it writes a block, there may be anything.
        wait_until("the last blocks are in the file", async || {
            let report = Report::load(&spool).ok();
            let steps = report.map(|report| report.recording.steps).unwrap_or_default();
            steps.len() > 50 && steps.last().is_some_and(|step| step.step + 400 > counted)
        })
        .await;
        drop(server); // kill -9
        let ended = stats(&spool);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("the recording was cut off"), "{}", ended.stderr);
        assert!(ended.stdout.contains("TRUNCATED"), "{}", ended.stdout);
        let report = Report::load(&spool).expect("a report");
        let numbers: Vec<u64> = report.recording.steps.iter().map(|step| step.step).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        let last = numbers.last().copied().unwrap_or_default();
        assert!(numbers.len() > 50 && last + 400 > counted, "{} steps up to {last}", numbers.len());
        assert_eq!(report.completeness.whole_from_step.is_some(), ended.stdout.contains("KEPT THE LAST"));
        assert!(counted < 2000 || numbers[0] > 0, "it went round");
    }
}

#[tokio::test]
async fn a_file_that_may_not_grow_ends_the_recording_and_the_server_goes_on() {
    let _alone = machine().await;
    let profiles = TempDir::new();
    let server = server(profiles.path(), &[]);
    for (keep, fits) in [("first", true), ("last", true), ("first", false), ("last", false)] {
        limit_files(&server, "307200");
        let started = server.post("/start_profile", json!({"keep": keep})).await.json();
        let load = Load::start(&server, 2, 50);
        wait_until("the file can hold no more", async || is_full(&server).await).await;
        load.end().await;
        let spool = started["spool"].as_str().expect("a path");
        let cut_short = format!("cannot write {spool}: File too large");
        // Its trace may be larger or not: whether it can be written is made certain here.
        limit_files(&server, if fits { "unlimited" } else { "10240" });
        let reply = server.post("/stop_profile", "").await;
        if fits {
            let stopped = reply.json();
            assert_eq!((reply.status, &stopped["complete"]), (200, &json!(false)), "{keep}: {stopped}");
            let error = stopped["write_error"].as_str().expect("an error");
            assert!(error.starts_with(&cut_short), "{keep}: {error:?} is not {cut_short:?}");
            assert!(Path::new(file(&stopped, ".pt.trace.json.gz")).exists(), "{stopped}");
        } else {
            let message = error_message(&reply, 500, &Value::Null, keep);
            for words in [spool, ".pt.trace.json.gz: File too large"] {
                assert!(message.contains(words), "{keep}: {message:?} does not say {words:?}");
            }
        }
        server.log_with(&format!("the recording ends early: {cut_short}"));
        assert!(Path::new(spool).metadata().expect("the file").len() <= 307_200);
        server.assert_answers().await;
        // What there is is read, and said to be cut off.
        let ended = stats(Path::new(spool));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stdout.contains("TRUNCATED"), "{}", ended.stdout);
    }
    // The next one has room.
    limit_files(&server, "307200");
    let body = json!({"keep": "last", "max_bytes": 250_000});
    assert_eq!(server.post("/start_profile", body).await.status, 200);
    server.assert_answers().await;
    let stopped = server.post("/stop_profile", "").await.json();
    assert_eq!((&stopped["complete"], &stopped["write_error"]), (&json!(true), &Value::Null), "{stopped}");
}
