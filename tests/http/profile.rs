//! Starting and stopping a recording.

use serde_json::json;

use crate::client::post;
use crate::scripted::{Harness, ProfileScript, Script};

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
    let expected = json!({"id": "17", "dir": "profiles", "spool": "profiles/vitrum.17.vtr", "sources": sources});
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
        (" \n".to_owned(), 200, "profiles/vitrum.17.vtr"),
        // Older benchmark clients post their generation request here.
        (json!({"model": "m", "prompt": "1", "max_tokens": 5}).to_string(), 200, "profiles/vitrum.17.vtr"),
        (json!({"profile_prefix": "../x"}).to_string(), 400, "profile_prefix"),
        (json!({"profile_prefix": ".x"}).to_string(), 400, "profile_prefix"),
        (json!({"profile_prefix": ""}).to_string(), 400, "profile_prefix"),
        (json!({"toggle": "yes"}).to_string(), 400, "toggle"),
        (json!({"max_iterations": 5}).to_string(), 400, "max_iterations"),
        (json!({"colour": 1}).to_string(), 400, "colour"),
        ("nonsense".to_owned(), 400, "JSON"),
    ] {
        let reply = post(server.address, "/start_profile", &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(reply.text().contains(spool), "{body}: {}", reply.text());
        if status == 200 {
            // The parameters of a start are none of a stop.
            let is_start = body.contains("toggle") || body.contains("delay");
            let reply = post(server.address, "/stop_profile", &body).await;
            assert_eq!(reply.status, if is_start { 400 } else { 200 }, "{body}");
            post(server.address, "/stop_profile", "").await;
        }
    }
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
