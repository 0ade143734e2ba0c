//! Starting and stopping a recording.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use vitrum::http::{ProfileOptions, RenderError, ServeOptions};

use crate::client::{get, post};
use crate::scripted::{Harness, ProfileScript, Script, options};

async fn with(profile: ProfileScript) -> Harness {
    Harness::script(Script { profile, ..Script::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_starts_once_and_stops_once() {
    let server = with(ProfileScript::Works).await;
    let reply = post(server.address, "/stop_profile", "").await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    // `vllm bench serve --profile` sends nothing.
    let reply = post(server.address, "/start_profile", "").await;
    assert_eq!(reply.status, 200);
    let sources = json!({"asked": "stamps", "used": "stamps", "library": null, "absent": null});
    let window = json!({
        "delay_ns": 0, "skip_steps": 0, "warmup_steps": 0, "first_step": null, "duration_ns": null, "steps_max": null,
        "stages": [], "graphs": [], "request": null,
    });
    let expected = json!({
        "id": "17", "dir": "profiles", "spool": "profiles/vitrum.17.vtr", "sources": sources, "window": window,
        "max_bytes": 1 << 20, "keep": "first",
    });
    assert_eq!(reply.json(), expected);
    let reply = post(server.address, "/start_profile", "").await;
    assert_eq!((reply.status, &reply.json()["id"]), (409, &json!("17")));
    let reply = post(server.address, "/stop_profile", "").await;
    assert_eq!(reply.status, 200);
    let mut answer = reply.json();
    assert!(answer["render_ms"].take().as_f64().unwrap() >= 0.0 && answer["stop_ms"].take().as_f64().unwrap() >= 0.0);
    assert_eq!(
        answer,
        json!({
            "id": "17", "path": "profiles/vitrum.17.vtr", "steps": 2, "expected": 10, "received": 10, "dropped": 0,
            "invalid": 0, "bytes": 4096, "complete": true, "replays": 4, "limit_reached": false, "write_error": null,
            "keep": "first", "overwritten": null,
            "dropped_records": {
                "steps": 0, "members": 0, "spans": 0, "requests": 0, "replays": 0, "nodes": 0, "activity": 0,
            },
            "sources": {"asked": "stamps", "used": "stamps", "library": null, "absent": null},
            "activity_expected": 0, "activity": null,
            "stop_ms": null, "render_ms": null,
            "files": ["profiles/vitrum.17.vtr", "profiles/vitrum.17.pt.trace.json.gz", "profiles/vitrum.17.html"],
        })
    );
    assert_eq!(post(server.address, "/stop_profile", "").await.status, 409);
}

/// Renders that ended because they were told to.
static CANCELLED: AtomicUsize = AtomicUsize::new(0);

/// A render that goes on until it is told to end.
fn endless(_: &Path, cancel: &AtomicBool) -> Result<Vec<PathBuf>, RenderError> {
    while !cancel.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(2));
    }
    CANCELLED.fetch_add(1, Ordering::Relaxed);
    Err("it was told to end".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_waits_for_renders_no_longer_than_it_may() {
    let profile = ProfileOptions { render: endless, ..options().profile.expect("they record") };
    let drain_timeout = Duration::from_millis(100);
    let script = Script { profile: ProfileScript::Works, ..Script::default() };
    let mut server = Harness::with(script, ServeOptions { profile: Some(profile), drain_timeout, ..options() }).await;
    assert_eq!(post(server.address, "/start_profile", "").await.status, 200);
    assert_eq!(post(server.address, "/stop_profile", r#"{"no_wait": true}"#).await.status, 202);
    let begin = Instant::now();
    server.ask_to_end();
    server.wait().await;
    assert!((drain_timeout..Duration::from_secs(4)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(CANCELLED.load(Ordering::Relaxed), 1);
}

fn failing(_: &Path, _: &AtomicBool) -> Result<Vec<PathBuf>, RenderError> {
    Err("no room".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_any_more_is_not_said_to_be_renderable() {
    let profile = ProfileOptions { render: failing, ..options().profile.expect("they record") };
    let script = Script { profile: ProfileScript::Works, ..Script::default() };
    let server = Harness::with(script, ServeOptions { profile: Some(profile), ..options() }).await;
    assert_eq!(post(server.address, "/start_profile", "").await.status, 200);
    let reply = post(server.address, "/stop_profile", "").await;
    assert_eq!(reply.status, 500);
    // The scripted recorder writes no file.
    assert!(reply.text().contains("could not be rendered: no room; the recording cannot be read"), "{}", reply.text());
    assert!(!reply.text().contains("profile export"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_lost_something_says_so() {
    let server = with(ProfileScript::LosesRecords).await;
    assert_eq!(post(server.address, "/start_profile", "").await.status, 200);
    let answer = post(server.address, "/stop_profile", "").await.json();
    assert_eq!((&answer["complete"], &answer["received"], &answer["dropped"]), (&json!(false), &json!(9), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_empty_or_about_profiling() {
    let server = with(ProfileScript::Works).await;
    for (body, status, spool) in [
        (json!({"profile_prefix": "run-1.a", "toggle": true}).to_string(), 200, "profiles/run-1.a.17.vtr"),
        (json!({"delay_iterations": 0, "max_iterations": null}).to_string(), 200, "profiles/vitrum.17.vtr"),
        // What SGLang's clients send.
        (
            json!({
                "output_dir": null, "start_step": null, "num_steps": 5, "activities": ["CPU", "GPU"],
                "profile_by_stage": false, "with_stack": false, "record_shapes": true,
            })
            .to_string(),
            200,
            "profiles/vitrum.17.vtr",
        ),
        (" \n".to_owned(), 200, "profiles/vitrum.17.vtr"),
        // Older benchmark clients post their generation request here.
        (json!({"model": "m", "prompt": "1", "max_tokens": 5}).to_string(), 200, "profiles/vitrum.17.vtr"),
        (json!({"profile_prefix": "../x"}).to_string(), 400, "profile_prefix"),
        (json!({"profile_prefix": ".x"}).to_string(), 400, "profile_prefix"),
        (json!({"profile_prefix": ""}).to_string(), 400, "profile_prefix"),
        (json!({"toggle": "yes"}).to_string(), 400, "toggle"),
        (json!({"max_iterations": -5}).to_string(), 400, "max_iterations"),
        (json!({"max_iterations": 5, "num_steps": 6}).to_string(), 400, "num_steps and max_iterations say different"),
        (json!({"num_steps": 1.5}).to_string(), 400, "num_steps"),
        (json!({"delay_seconds": -1}).to_string(), 400, "delay_seconds"),
        (json!({"duration_seconds": "1 s"}).to_string(), 400, "duration_seconds"),
        (json!({"duration_seconds": 0}).to_string(), 400, "duration_seconds"),
        (json!({"activities": ["GPU"]}).to_string(), 400, "activities"),
        (json!({"profile_stages": ["prefill", "decoding"]}).to_string(), 400, "profile_stages"),
        (json!({"profile_stages": []}).to_string(), 400, "profile_stages"),
        (json!({"profile_stages": ["decode"], "profile_by_stage": false}).to_string(), 400, "profile_by_stage"),
        (json!({"graphs": ["decode.8"]}).to_string(), 400, "forward.decode.8"),
        (json!({"graphs": "forward.decode.8"}).to_string(), 400, "graphs"),
        (json!({"graphs": vec!["forward.decode.8"; 257]}).to_string(), 400, "1 to 256 names"),
        (json!({"request_id": ""}).to_string(), 400, "request_id"),
        (json!({"graph_trace": "kernel"}).to_string(), 400, "graph_trace"),
        (json!({"max_bytes": 2 << 20}).to_string(), 400, "max_bytes"),
        (json!({"max_bytes": 1 << 19, "keep": "last"}).to_string(), 200, "\"max_bytes\":524288,\"keep\":\"last\""),
        (json!({"keep": "newest"}).to_string(), 400, "keep"),
        (json!({"keep": ["last"]}).to_string(), 400, "keep"),
        (json!({"output_dir": "/etc"}).to_string(), 400, "output_dir"),
        (json!({"with_stack": true}).to_string(), 400, "with_stack"),
        (json!({"colour": 1}).to_string(), 400, "colour"),
        ("nonsense".to_owned(), 400, "JSON"),
    ] {
        let reply = post(server.address, "/start_profile", &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(reply.text().contains(spool), "{body}: {}", reply.text());
        if status == 200 {
            // The parameters of a start are none of a stop.
            let is_start = ["toggle", "delay", "num_steps", "keep"].iter().any(|field| body.contains(field));
            let reply = post(server.address, "/stop_profile", &body).await;
            assert_eq!(reply.status, if is_start { 400 } else { 200 }, "{body}");
            post(server.address, "/stop_profile", "").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_others_become_a_window() {
    let server = with(ProfileScript::Works).await;
    for (body, window) in [
        (json!({"delay_iterations": 3, "max_iterations": 7}), json!({"skip_steps": 3, "steps_max": 7})),
        // Where iterations are waited for, vLLM's configuration records five.
        (
            json!({"wait_iterations": 2, "warmup_iterations": 1}),
            json!({"skip_steps": 2, "warmup_steps": 1, "steps_max": 5}),
        ),
        (json!({"warmup_iterations": 1, "active_iterations": 9}), json!({"warmup_steps": 1, "steps_max": 9})),
        (json!({"start_step": 0, "num_steps": 2}), json!({"first_step": 0, "steps_max": 2})),
        (json!({"profile_by_stage": true, "num_steps": 5}), json!({"stages": ["prefill", "decode"], "steps_max": 5})),
        (json!({"profile_stages": ["mixed", "prefill", "mixed"]}), json!({"stages": ["prefill", "mixed"]})),
        (
            json!({"delay_seconds": 1.5, "duration_seconds": 2}),
            json!({"delay_ns": 1_500_000_000_u64, "duration_ns": 2_000_000_000_u64}),
        ),
        (json!({"delay_seconds": 0, "max_iterations": 0}), json!({"delay_ns": 0, "steps_max": null})),
        (json!({"request_id": "mine"}), json!({"request": "mine"})),
        (json!({"graphs": vec!["sample.full.4"; 256]}), json!({"graphs": [{"kind": "sample.full", "bucket": 4}]})),
    ] {
        let reply = post(server.address, "/start_profile", &body.to_string()).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        let found = reply.json()["window"].clone();
        for (field, value) in window.as_object().unwrap() {
            assert_eq!(found[field], *value, "{body}: {found}");
        }
        assert_eq!(post(server.address, "/stop_profile", "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_a_stop_need_not_wait() {
    let server = with(ProfileScript::Works).await;
    assert_eq!(get(server.address, "/profile/sessions").await.json(), json!({"sessions": []}));
    let reply = get(server.address, "/profile/sessions/17").await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (404, &json!("id")));
    post(server.address, "/start_profile", &json!({"max_iterations": 3}).to_string()).await;
    let session = get(server.address, "/profile/sessions/17").await.json();
    assert_eq!(
        (&session["state"], &session["steps_left"], &session["steps"]),
        (&json!("waiting"), &json!(3), &json!(0))
    );
    let reply = post(server.address, "/stop_profile", &json!({"id": "16"}).to_string()).await;
    assert_eq!(reply.status, 404, "{}", reply.text());
    let reply = post(server.address, "/stop_profile", &json!({"id": "17", "no_wait": true}).to_string()).await;
    assert_eq!((reply.status, &reply.json()["id"]), (202, &json!("17")));
    // A later stop of the same one says what it came to.
    let reply = post(server.address, "/stop_profile", &json!({"id": "17"}).to_string()).await;
    assert_eq!((reply.status, &reply.json()["received"]), (200, &json!(10)));
    let sessions = get(server.address, "/profile/sessions").await.json();
    let session = &sessions["sessions"][0];
    assert_eq!((&session["state"], &session["complete"]), (&json!("ready"), &json!(true)));
    assert_eq!(session["files"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_said() {
    let server = with(ProfileScript::Absent).await;
    let reply = post(server.address, "/start_profile", "").await;
    assert_eq!(reply.status, 501);
    assert!(reply.text().contains("cargo build --release --features profiling"));
    let server = with(ProfileScript::Unwritable).await;
    let reply = post(server.address, "/start_profile", "").await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("profiles/vitrum.17.vtr"), "{}", reply.text());
}
