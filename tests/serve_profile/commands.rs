//! `vitrum profile start | stop | status | sessions` against a running server, `vitrum generate --profile`, and the
//! example on the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{get, post, post_with, wait_until};
use crate::support::server::{Ended, Server, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;
use crate::{generate, machine, recording_server};

const LIMIT: Duration = Duration::from_secs(60);

/// `vitrum profile …`, which has to end well.
fn profile(server: &Server, args: &[&str]) -> Ended {
    let ended = try_profile(server, args);
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended
}

fn try_profile(server: &Server, args: &[&str]) -> Ended {
    let url = format!("http://{}", server.address);
    let words = [&["profile", args[0], "--url", &url], &args[1..]].concat();
    run_within(vitrum(words), LIMIT)
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

/// The recording's steps, by `vitrum profile stats`.
fn recorded_steps(spool: &str) -> u64 {
    let args = ["profile", "stats", spool, "--report", "step_sum", "--format", "json"];
    let ended = run_within(vitrum(args), LIMIT);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    json_of(&ended).as_array().expect("rows").iter().map(|row| row["Steps"].as_u64().expect("a number")).sum()
}

#[tokio::test]
async fn a_recording_is_started_looked_at_and_stopped() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    let ended = try_profile(&server, &["status"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("nothing was recorded"), "{ended:?}");
    assert!(profile(&server, &["sessions"]).stdout.contains("nothing was recorded"));
    let ended = try_profile(&server, &["stop"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no profile is running"), "{ended:?}");

    let started = json_of(&profile(&server, &["start", "--json", "--prefix", "mine"]));
    let (id, spool) = (started["id"].as_str().expect("an id"), started["spool"].as_str().expect("a path"));
    assert!(Path::new(spool).file_name().is_some_and(|name| name.to_string_lossy().starts_with("mine.")), "{spool}");
    generate(&server, 8).await;
    let status = json_of(&profile(&server, &["status", "--json"]));
    assert_eq!((&status["id"], &status["state"], &status["steps"]), (&json!(id), &json!("recording"), &json!(8)));
    // A second one is refused with the id of the first, and so is a stop of another.
    for args in [&["start"][..], &["stop", "--session", "17"]] {
        let ended = try_profile(&server, args);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(if args.len() == 1 { id } else { "profile 17 is not running" }), "{ended:?}");
    }
    let stopped = profile(&server, &["stop", "--session", id]);
    assert!(stopped.stdout.contains("8 steps") && stopped.stdout.contains(".pt.trace.json.gz"), "{stopped:?}");
    assert_eq!(recorded_steps(spool), 8);
    let listed = profile(&server, &["sessions"]).stdout;
    assert!(listed.contains(id) && listed.contains("ready"), "{listed}");
    server.assert_answers().await;
}

#[tokio::test]
async fn windows_end_by_themselves_and_the_server_lives_on() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    // By steps: those of the answer behind the first three.
    let started = json_of(&profile(&server, &["start", "--json", "--skip", "2", "--warmup", "1", "--steps", "4"]));
    generate(&server, 20).await;
    let id = started["id"].as_str().expect("an id");
    let path = format!("/profile/sessions/{id}");
    wait_until("the files are ready", async || get(server.address, &path).await.json()["state"] == "ready").await;
    let session = get(server.address, &path).await.json();
    assert_eq!((&session["steps"], &session["complete"]), (&json!(4), &json!(true)), "{session}");
    assert_eq!(recorded_steps(session["spool"].as_str().expect("a path")), 4);
    // vLLM's clients stop what has ended: they are told what it came to, once.
    let stopped = server.post("/stop_profile", "").await;
    assert_eq!((stopped.status, &stopped.json()["id"]), (200, &json!(id)));
    assert_eq!(server.post("/stop_profile", "").await.status, 409);
    // By seconds, waited for by the command; nothing runs.
    let ended = profile(&server, &["start", "--delay", "0.1", "--duration", "0.2", "--wait"]);
    assert!(ended.stdout.contains("ready, 0 steps"), "{ended:?}");
    assert!(ended.after >= Duration::from_millis(300), "{:?}", ended.after);
    // By request: its own steps, of an answer beside another.
    profile(&server, &["start", "--request", "mine", "--prefix", "request"]);
    let body = json!({"prompt": [65, 66], "max_tokens": 6, "temperature": 0, "ignore_eos": true});
    let mine = post_with(server.address, "/v1/completions", "x-request-id: mine\r\n", body);
    let (answer, ()) = tokio::join!(mine, generate(&server, 40));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sessions = || async { get(server.address, "/profile/sessions").await.json()["sessions"][0].clone() };
    wait_until("the recording ends with its request", async || sessions().await["state"] == "ready").await;
    let session = sessions().await;
    assert_eq!((&session["steps"], &session["complete"]), (&json!(6), &json!(true)), "{session}");
    server.assert_answers().await;
}

#[tokio::test]
async fn a_stop_without_waiting_is_answered_and_status_tells_when_files_are_ready() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    profile(&server, &["start"]);
    generate(&server, 500).await;
    let stopped = json_of(&profile(&server, &["stop", "--no-wait", "--json"]));
    let id = stopped["id"].as_str().expect("an id").to_owned();
    // Another one may start while the files of the first are made.
    wait_until("the next one starts", async || server.post("/start_profile", "").await.status == 200).await;
    wait_until("the files are ready", async || {
        let status = try_profile(&server, &["status", "--session", &id, "--json"]);
        json_of(&status)["state"] == "ready"
    })
    .await;
    let status = json_of(&profile(&server, &["status", "--session", &id, "--json"]));
    let files = status["files"].as_array().expect("a list");
    assert!(files.len() >= 2 && files.iter().all(|file| Path::new(file.as_str().unwrap()).exists()), "{status}");
    assert_eq!(server.post("/stop_profile", "").await.status, 200);
}

#[tokio::test]
async fn whole_graphs_are_one_record_each() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    let bytes = async |flags: &[&str]| {
        let started = json_of(&profile(&server, &[&["start", "--json", "--steps", "200"], flags].concat()));
        generate(&server, 300).await;
        let stopped = server.post("/stop_profile", "").await.json();
        assert_eq!(
            (&stopped["id"], &stopped["complete"], &stopped["steps"]),
            (&started["id"], &json!(true), &json!(200))
        );
        (stopped["bytes"].as_u64().expect("a number"), stopped["expected"].as_u64().expect("a number"))
    };
    let (by_node, nodes) = bytes(&["--graph-trace", "node"]).await;
    let (by_graph, graphs) = bytes(&["--graph-trace", "graph"]).await;
    assert_eq!((nodes, graphs), (200 * 13, 200 * 2), "13 nodes in two graphs a step");
    assert!(by_graph < by_node, "{by_graph} and {by_node} bytes");
}

#[tokio::test]
async fn flags_that_do_not_fit_are_refused_by_name() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    for (args, word) in [
        (&["start", "--stage", "decoding"][..], "--stage"),
        (&["start", "--graph", "decode.8"], "forward.decode.8"),
        (&["start", "--delay=-1"], "--delay"),
        (&["start", "--duration", "inf"], "--duration"),
        (&["start", "--duration", "0"], "duration_seconds"),
        (&["start", "--duration", "1e12"], "duration_seconds"),
        (&["start", "--steps", "x"], "--steps"),
        (&["start", "--prefix", "../x"], "profile_prefix"),
        (&["start", "--max-bytes", "10"], "at least"),
        (&["start", "--max-bytes", "100000000000000"], "max_bytes"),
        (&["status", "--session", "../x"], "no id of a recording"),
        (&["status", "--session", "17"], "there is no profile 17"),
    ] {
        let ended = try_profile(&server, args);
        assert!(matches!(ended.code, Some(1 | 2)) && ended.stderr.contains(word), "{args:?}: {ended:?}");
    }
    let ended = run_within(vitrum(["profile", "status", "--url", "http://127.0.0.1:9"]), LIMIT);
    assert!(ended.code == Some(1) && ended.stderr.contains("could not connect to 127.0.0.1:9"), "{ended:?}");
    let ended = run_within(vitrum(["profile", "status", "--url", "ftp://x"]), LIMIT);
    assert!(ended.code == Some(1) && ended.stderr.contains("ftp://x is not a base URL"), "{ended:?}");
    assert_eq!(post(server.address, "/stop_profile", "").await.status, 409, "nothing was left started");
}

#[tokio::test]
async fn generate_records_its_answer() {
    let _alone = machine().await;
    let folder = TempDir::new();
    let model = TinyModel::default().write(&folder);
    let run = |args: &[&str]| {
        let mut command = vitrum(["generate"]);
        command.arg(&model).args(["--device", "cpu", "-p", "A", "--max-tokens", "9", "--ignore-eos"]).args(args);
        run_within(command, LIMIT)
    };
    let dir = folder.path().to_str().expect("UTF-8");
    let ended = run(&["--profile", "--profile-dir", dir]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = |end: &str| ended.stderr.lines().find(|line| line.ends_with(end)).map(str::to_owned).expect(end);
    assert!(Path::new(&file(".pt.trace.json.gz")).exists());
    assert_eq!(recorded_steps(&file(".vtr")), 9);
    let ended = run(&["--graph-trace", "graph"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("--profile only"), "{ended:?}");
    let ended = run(&["--profile", "--profile-dir", "/nowhere"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("/nowhere"), "{ended:?}");
}

/// Cargo builds examples beside the tests.
#[tokio::test]
async fn the_example_says_where_the_time_went() {
    let _alone = machine().await;
    let folder = TempDir::new();
    let model = TinyModel::default().write(&folder);
    let binary = Path::new(env!("CARGO_BIN_EXE_vitrum"));
    let example: PathBuf = binary.with_file_name("examples").join("simple_profiling");
    assert!(example.exists(), "build it: cargo build --features profiling --example simple_profiling");
    let mut command = Command::new(example);
    command.arg(model).current_dir(folder.path());
    let ended = run_within(command, LIMIT);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for words in ["The capital of France is", "attn.core", "% of node time", "the recording is complete"] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    assert!(ended.stdout.lines().any(|line| line.ends_with(".pt.trace.json.gz") && folder.path().join(line).exists()));
}
