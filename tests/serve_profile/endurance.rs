//! Many starts and stops, from many sides, under load: the server serves on, one recording runs at a time, and every
//! file is whole.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::load::Load;
use crate::support::client::{get, post, wait_until};
use crate::support::server::Server;
use crate::{machine, recording_server};

const CYCLES: u64 = 1000;
/// Of the load.
const CLIENTS: usize = 3;
/// Of an answer.
const TOKENS: u64 = 12;

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
    let server = recording_server(&["--profile-max-files", "10000"]);
    let profiles = server.folder.path().join("profiles");
    let load = Load::start(&server, CLIENTS, TOKENS);
    let mut rss_kib = Vec::new();
    for cycle in 0..CYCLES {
        start_and_stop(&server).await.unwrap_or_else(|error| panic!("{cycle}: {error}"));
        if cycle % (CYCLES / 5) == 0 {
            rss_kib.push(server.rss_kib());
        }
    }
    rss_kib.push(server.rss_kib());
    let answered = load.answered();
    load.end().await;
    println!("{answered} answers beside {CYCLES} recordings; {rss_kib:?} KiB");
    let (early, late) = (rss_kib[1], rss_kib[rss_kib.len() - 1]);
    assert!(late < early + (16 << 10), "{early} KiB, then {late} KiB");
    assert!(answered > CYCLES / 10, "{answered} answers beside {CYCLES} recordings");
    assert_whole(&profiles, CYCLES);
    // Only the last ones are remembered.
    let sessions = get(server.address, "/profile/sessions").await.json();
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(64));
    server.assert_answers().await;
}

/// With five recordings a second the median answer takes as long as without. Those answers that a start or a stop
/// comes between take longer: on two cores, which the workers need for themselves, by some milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_now_and_then_do_not_move_the_median_answer() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    let (mut without, mut beside) = (Vec::new(), Vec::new());
    // In turns, so that both have the machine's good and bad moments.
    for _ in 0..10 {
        let load = Load::start(&server, CLIENTS, TOKENS);
        tokio::time::sleep(Duration::from_secs(1)).await;
        without.push(load.end().await);
        let load = Load::start(&server, CLIENTS, TOKENS);
        for _ in 0..5 {
            start_and_stop(&server).await.expect("a recording");
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        beside.push(load.end().await);
    }
    let quantiles = |mut times: Vec<Duration>| {
        times.sort_unstable();
        [50, 90, 99].map(|percent| times[times.len() * percent / 100])
    };
    let all = [&without, &beside].map(|turns| quantiles(turns.concat()));
    println!("answers at p50, p90, p99: {:?} beside recordings, {:?} without", all[1], all[0]);
    // Of each the turn that the machine did least besides.
    let medians = [without, beside].map(|turns| turns.into_iter().map(|times| quantiles(times)[0]).min());
    assert!(medians[1] < medians[0].map(|without| 2 * without), "{medians:?} without and beside recordings");
}

async fn start_and_stop(server: &Server) -> Result<(), String> {
    let reply = server.post("/start_profile", "").await;
    if reply.status != 200 {
        return Err(reply.text().to_owned());
    }
    let stopped = server.post("/stop_profile", "").await;
    match stopped.status {
        200 if stopped.json()["complete"] == true => Ok(()),
        _ => Err(stopped.text().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_have_one_recording_at_a_time() {
    let _alone = machine().await;
    let server = recording_server(&[]);
    let load = Load::start(&server, CLIENTS, TOKENS);
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
    let server = recording_server(&[]);
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
