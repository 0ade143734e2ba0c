//! /start_profile and /stop_profile in the wrong order, with wrong bodies, and with a folder that cannot be written.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Reply;
use crate::support::server::{Ended, Server, error_message, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::{file, machine, recording_server, stop};

/// A server whose folder for recordings is not there: a test has to make it.
fn server() -> Server {
    let server = recording_server(&[]);
    std::fs::remove_dir(server.folder.path().join("profiles")).expect("it is empty");
    server
}

fn assert_refused(reply: &Reply, status: u16, words: &[&str]) {
    let message = error_message(reply, status, &Value::Null, "profile");
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

/// A recording of some steps works.
async fn assert_records(server: &Server) {
    let reply = server.post("/start_profile", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    server.assert_answers().await;
    let stopped = stop(server).await;
    assert_eq!(stopped["id"], reply.json()["id"]);
    assert!(stopped["steps"].as_u64().is_some_and(|steps| steps >= 2), "{stopped}");
    server.assert_answers().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named_and_the_server_goes_on() {
    let _alone = machine().await;
    let server = server();
    let profiles = server.folder.path().join("profiles");
    let name = profiles.to_str().expect("UTF-8");
    // It is not there.
    assert_refused(&server.post("/start_profile", "").await, 500, &[name, "No such file"]);
    server.assert_answers().await;
    // It is a file: that stops even those whom permissions do not.
    std::fs::write(&profiles, "a file").unwrap();
    assert_refused(&server.post("/start_profile", "").await, 500, &[name, "Not a directory"]);
    server.assert_answers().await;
    // No recording was left half started.
    assert_refused(&server.post("/stop_profile", "").await, 409, &["no profile is running"]);
    std::fs::remove_file(&profiles).unwrap();
    std::fs::create_dir(&profiles).unwrap();
    assert_records(&server).await;
    let files = std::fs::read_dir(&profiles).unwrap().count();
    assert_eq!(files, 2, "the recording and its trace, and nothing of those that failed");
}

#[tokio::test]
async fn a_stop_without_a_start_and_a_second_start_are_refused_and_the_server_goes_on() {
    let _alone = machine().await;
    let server = server();
    std::fs::create_dir(server.folder.path().join("profiles")).unwrap();
    assert_refused(&server.post("/stop_profile", "").await, 409, &["no profile is running"]);
    assert_records(&server).await;
    assert_refused(&server.post("/stop_profile", "").await, 409, &["no profile is running"]);

    let first = server.post("/start_profile", json!({"profile_prefix": "first"})).await.json();
    server.assert_answers().await;
    let second = server.post("/start_profile", json!({"profile_prefix": "second"})).await;
    assert_refused(&second, 409, &[first["id"].as_str().unwrap()]);
    // The first one goes on, and holds what came before and after.
    server.assert_answers().await;
    let stopped = stop(&server).await;
    assert_eq!((&stopped["id"], &stopped["path"]), (&first["id"], &first["spool"]));
    assert!(stopped["steps"].as_u64().is_some_and(|steps| steps >= 4), "{stopped}");
    assert_records(&server).await;
}

/// The end of the server is the end of a recording: whole and rendered.
#[tokio::test]
async fn a_server_that_ends_saves_its_recording() {
    let _alone = machine().await;
    let server = server();
    let profiles = TempDir::new();
    std::os::unix::fs::symlink(profiles.path(), server.folder.path().join("profiles")).unwrap();
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    server.assert_answers().await;
    let log = server.terminate();
    assert!(log.contains("recorded"), "{log}");
    let paths: Vec<_> = std::fs::read_dir(profiles.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let of = |end: &str| paths.iter().find(|path| path.to_string_lossy().ends_with(end)).expect(end);
    assert!(of(".pt.trace.json.gz").metadata().unwrap().len() > 0);
    let ended = stats(of(".vtr"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Cut off, it is an error, after what there is.
    let spool = std::fs::read(of(".vtr")).unwrap();
    let cut = profiles.path().join("cut.vtr");
    std::fs::write(&cut, &spool[..spool.len() - 100]).unwrap();
    let ended = stats(&cut);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("TRUNCATED") && ended.stderr.contains("the recording was cut off"), "{ended:?}");
}

fn stats(recording: &Path) -> Ended {
    let args = ["profile".as_ref(), "stats".as_ref(), recording.as_os_str()];
    run_within(vitrum(args), Duration::from_secs(10))
}

/// `| head` closes the pipe before all is written.
#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let _alone = machine().await;
    let server = server();
    std::fs::create_dir(server.folder.path().join("profiles")).unwrap();
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    server.assert_answers().await;
    let stopped = stop(&server).await;
    let mut command = vitrum(["profile", "stats", file(&stopped, ".vtr")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn a_wrong_body_of_a_start_is_refused_by_name_and_the_server_goes_on() {
    let _alone = machine().await;
    let server = server();
    std::fs::create_dir(server.folder.path().join("profiles")).unwrap();
    for (body, param) in [
        (json!({"profile_prefix": "../outside"}), "profile_prefix"),
        (json!({"toggle": "yes"}), "toggle"),
        (json!({"colour": 1}), "colour"),
        // A generation request's parameters are passed over, but not its own.
        (json!({"prompt": "x", "max_tokens": 4, "profile_prefix": "../outside"}), "profile_prefix"),
        (json!({"messages": [], "toggle": "yes"}), "toggle"),
    ] {
        let reply = server.post("/start_profile", &body).await;
        let message = error_message(&reply, 400, &json!(param), &body.to_string());
        assert!(message.contains(param), "{message}");
    }
    assert_records(&server).await;
}
