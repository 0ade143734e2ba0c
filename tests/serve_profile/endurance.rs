//! Many starts and stops, from many sides, under load: the server serves on, one recording runs at a time, and every
//! file is whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine;
use crate::support::client::{get, post};
use crate::support::server::{Server, wait_until};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;

const CYCLES: u64 = 1000;
const CLIENTS: usize = 3;

fn server() -> Server {
    let folder = TempDir::new();
    let profiles = folder.path().join("profiles");
    std::fs::create_dir(&profiles).expect("a folder");
    let model = TinyModel::default().write(&folder);
    Server::start_in(folder, &model, &["--profile-dir", profiles.to_str().expect("UTF-8")])
}

/// Clients that each send one request after the other, until they are told to end.
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<Duration>>>,
}

impl Load {
    fn start(server: &Server) -> Load {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let (is_over, answered, address) = (is_over.clone(), answered.clone(), server.address);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let prompt: Vec<usize> = (0..10 + number).collect();
                    let body = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": true});
                    let start = Instant::now();
                    let reply = post(address, "/v1/completions", body).await;
                    times.push(start.elapsed());
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    assert_eq!(reply.json()["usage"]["completion_tokens"], 12);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                times
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { is_over, answered, clients }
    }

    /// The median time of an answer.
    async fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for client in self.clients {
            times.extend(client.await.expect("every request was answered"));
        }
        times.sort_unstable();
        times[times.len() / 2]
    }
}

fn rss_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Files of recordings: each spool and its trace, nothing else.
fn assert_whole(profiles: &Path, recordings: u64) {
    let names: Vec<String> = std::fs::read_dir(profiles)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let count = |end: &str| names.iter().filter(|name| name.ends_with(end)).count() as u64;
    let found = (count(".vtr"), count(".pt.trace.json.gz"), names.len() as u64);
    assert_eq!(found, (recordings, recordings, 2 * recordings), "{:?}", &names[..names.len().min(10)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_recordings_under_load_leave_nothing_behind() {
    let _alone = machine().await;
    let server = server();
    let profiles = server.folder.path().join("profiles");
    // The first one measures the device.
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    assert_eq!(server.post("/stop_profile", "").await.status, 200);
    let load = Load::start(&server);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = load.end().await;
    let load = Load::start(&server);
    let mut rss_kib_early = 0;
    for cycle in 0..CYCLES {
        let reply = server.post("/start_profile", "").await;
        assert_eq!(reply.status, 200, "{cycle}: {}", reply.text());
        let stopped = server.post("/stop_profile", "").await;
        assert_eq!(stopped.status, 200, "{cycle}: {}", stopped.text());
        let stopped = stopped.json();
        assert_eq!(stopped["complete"], true, "{cycle}: {stopped}");
        if cycle == CYCLES / 5 {
            rss_kib_early = rss_kib(&server);
        }
    }
    let rss_kib_late = rss_kib(&server);
    let answered = load.answered.load(Ordering::Relaxed);
    let during = load.end().await;
    println!("{answered} answers of {during:?} (before: {before:?}), {rss_kib_early} KiB, then {rss_kib_late} KiB");
    assert!(rss_kib_late < rss_kib_early + (16 << 10), "{rss_kib_early} KiB, then {rss_kib_late} KiB");
    assert!(answered > CYCLES / 10, "{answered} answers beside {CYCLES} recordings");
    assert_whole(&profiles, CYCLES + 1);
    // Only the last ones are remembered.
    let sessions = get(server.address, "/profile/sessions").await.json();
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(64));
    server.assert_answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_have_one_recording_at_a_time() {
    let _alone = machine().await;
    let server = server();
    let load = Load::start(&server);
    let address = server.address;
    let client = |_: usize| {
        tokio::spawn(async move {
            let (mut started, mut stopped) = (Vec::new(), Vec::new());
            for _ in 0..30 {
                let reply = post(address, "/start_profile", "").await;
                match reply.status {
                    200 => started.push(reply.json()["id"].clone()),
                    409 => assert!(reply.json()["id"].is_string(), "who is in the way: {}", reply.text()),
                    _ => panic!("{}", reply.text()),
                }
                let reply = post(address, "/stop_profile", "").await;
                match reply.status {
                    200 => {
                        assert_eq!(reply.json()["complete"], true, "{}", reply.text());
                        stopped.push(reply.json()["id"].clone());
                    }
                    409 => assert!(reply.text().contains("no profile is running"), "{}", reply.text()),
                    _ => panic!("{}", reply.text()),
                }
            }
            (started, stopped)
        })
    };
    let (mut started, mut stopped): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for client in (0..8).map(client).collect::<Vec<_>>() {
        let (own_started, own_stopped) = client.await.expect("a client");
        started.extend(own_started);
        stopped.extend(own_stopped);
    }
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let (mut started, mut stopped): (Vec<String>, Vec<String>) =
        (started.iter().map(id).collect(), stopped.iter().map(id).collect());
    started.sort();
    stopped.sort();
    stopped.dedup(); // two clients may stop the same one, and both are told what it came to
    assert_eq!(started, stopped, "each that was started was stopped");
    let distinct = started.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct == started.len() && distinct > 8, "{distinct} recordings");
    load.end().await;
    assert_whole(&server.folder.path().join("profiles"), distinct as u64);
    server.assert_answers().await;
}

/// The folder goes away while a recording runs and while it is rendered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_removed_is_named_and_the_server_goes_on() {
    let _alone = machine().await;
    let server = server();
    let profiles = server.folder.path().join("profiles");
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    server.assert_answers().await;
    std::fs::remove_dir_all(&profiles).expect("it is ours");
    server.assert_answers().await;
    let reply = server.post("/stop_profile", "").await;
    let name = profiles.to_str().expect("UTF-8");
    assert!(
        reply.status == 500 && reply.text().contains(name) && reply.text().contains("No such file"),
        "{}",
        reply.text()
    );
    let sessions = get(server.address, "/profile/sessions").await.json();
    assert_eq!(sessions["sessions"][0]["state"], "failed", "{sessions}");
    server.assert_answers().await;
    std::fs::create_dir(&profiles).expect("a folder");
    assert_eq!(server.post("/start_profile", "").await.status, 200);
    server.assert_answers().await;
    assert_eq!(server.post("/stop_profile", "").await.json()["complete"], true);
    wait_until("nothing is under way", async || server.load().await == 0).await;
    assert_whole(&profiles, 1);
}
