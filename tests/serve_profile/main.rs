//! Recording a server as users do: over HTTP, into files, read with `vitrum profile stats` and as a trace.

mod changed;
mod commands;
mod endurance;
mod known_truth;
mod limits;
mod load;
mod merged;
mod names;
mod routes;
mod sampling;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use self::support::server::Server;
use self::support::temp::TempDir;
use self::support::tiny_model::TinyModel;

/// Node times are of use only where one server works at a time.
static MACHINE: Mutex<()> = Mutex::const_new(());

async fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// A server on the tiny model that records into `profiles` of its folder.
fn recording_server(flags: &[&str]) -> Server {
    let folder = TempDir::new();
    let profiles = folder.path().join("profiles");
    std::fs::create_dir(&profiles).expect("a folder");
    let model = TinyModel::default().write(&folder);
    let profiles = profiles.to_str().expect("UTF-8");
    Server::start_in(folder, &model, &[&["--profile-dir", profiles], flags].concat())
}

/// An answer of so many tokens: a step for each.
async fn generate(server: &Server, tokens: usize) {
    let body = json!({"prompt": [65, 66, 67], "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
    let reply = server.post("/v1/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Stops a recording that runs: every node time is there, and the files are.
async fn stop(server: &Server) -> Value {
    let reply = server.post("/stop_profile", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let stopped = reply.json();
    assert_eq!(stopped["complete"], true, "{stopped}");
    assert_eq!(stopped["expected"], stopped["received"], "{stopped}");
    assert!(stopped["expected"].as_u64().is_some_and(|nodes| nodes > 0), "{stopped}");
    for end in [".vtr", ".pt.trace.json.gz"] {
        let file = file(&stopped, end);
        assert!(Path::new(file).metadata().is_ok_and(|file| file.len() > 0), "{file} is not there: {stopped}");
    }
    stopped
}

/// The file of a recording whose name ends so.
fn file<'a>(stopped: &'a Value, end: &str) -> &'a str {
    let mut files = stopped["files"].as_array().expect("a list").iter().map(|file| file.as_str().expect("a path"));
    files.find(|file| file.ends_with(end)).unwrap_or_else(|| panic!("no {end}: {stopped}"))
}
