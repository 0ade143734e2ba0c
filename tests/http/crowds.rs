//! More connections than there may be, connections that say nothing, and clients that close their side.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vitrum::http::ServeOptions;

use crate::client::{exchange, get, head, post, read_until, rest, sent, wait_until};
use crate::scripted::{Harness, Script, gate, options};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_profile_routes_have_places_of_their_own() {
    for (all, per_peer) in [(8, None), (100, Some(8))] {
        let limits = ServeOptions { connections_max: all, connections_per_peer_max: per_peer, ..options() };
        let server = Harness::with(Script::default(), limits).await;
        let mut crowd = Vec::new();
        for _ in 0..300 {
            crowd.push(TcpStream::connect(server.address).await.unwrap());
        }
        for path in ["/health", "/ping", "/version", "/load", "/metrics", "/profile/sessions"] {
            let start = Instant::now();
            assert_eq!(get(server.address, path).await.status, 200, "{path}");
            assert!(start.elapsed() < Duration::from_secs(5), "{path} took {:?}", start.elapsed());
        }
        assert_eq!(post(server.address, "/start_profile", "").await.status, 200);
        assert_eq!(post(server.address, "/stop_profile", "").await.status, 200);
        for path in ["/v1/models", "/v1/models/x"] {
            let reply = get(server.address, path).await;
            assert_eq!((reply.status, reply.header("connection")), (503, Some("close")), "{path}");
            assert!(reply.text().contains("too many connections"), "{}", reply.text());
        }
        assert_eq!(post(server.address, COMPLETIONS, json!({"prompt": [1]})).await.status, 503);
        drop(crowd);
        let is_served = async || get(server.address, "/v1/models").await.status == 200;
        wait_until("places are given back", is_served).await;
    }
}

/// Nor can they be held by requests whose bodies do not come.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_come_hold_no_place_of_probes() {
    let limits = ServeOptions { connections_max: 2, connections_per_peer_max: None, ..options() };
    let server = Harness::with(Script::default(), limits).await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = head("POST", "/profile/nodes/reset", Some(100), "");
        let _ = client.write_all(request.as_bytes()).await; // its place may have been taken by a later one
        crowd.push(client);
    }
    for _ in 0..5 {
        assert_eq!(get(server.address, "/health").await.status, 200);
        assert_eq!(get(server.address, "/metrics").await.status, 200);
    }
}

/// Whoever is served keeps its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_ends_nobodys_answer() {
    let (open, gate) = gate();
    let limits = ServeOptions { connections_max: 4, connections_per_peer_max: None, ..options() };
    let server = Harness::with(Script { gate, ..Script::default() }, limits).await;
    let body = json!({"prompt": [1], "max_tokens": 3, "stream": true});
    let mut served = sent(server.address, COMPLETIONS, body).await;
    open.send(()).unwrap();
    read_until(&mut served, "\n\n").await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(get(server.address, "/health").await.status, 200);
    open.send(()).unwrap();
    open.send(()).unwrap();
    read_until(&mut served, "[DONE]").await;
}

/// `printf … | nc -N`: the end of what a client sends is not its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_gets_its_answer() {
    let server = Harness::start().await;
    for (path, body) in [
        (COMPLETIONS, json!({"prompt": [1], "max_tokens": 3})),
        (COMPLETIONS, json!({"prompt": [1], "max_tokens": 3, "stream": true})),
        ("/tokenize", json!({"prompt": "1 2 3"})),
    ] {
        let mut client = sent(server.address, path, body).await;
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.ends_with('}') || answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

/// What cannot be told from a client that has left ends within seconds, and its request with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_side_without_an_answer_is_a_client_that_left() {
    let (_open, gate) = gate();
    let server = Harness::script(Script { gate, ..Script::default() }).await;
    let mut client = sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 3})).await;
    wait_until("it runs", async || get(server.address, "/load").await.json()["server_load"] == 1).await;
    client.shutdown().await.unwrap();
    assert!(server.ended().aborted);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let server = Harness::start().await;
    let body = json!({"prompt": [1], "max_tokens": 1}).to_string();
    let ask = async |headers: &str| {
        let request = head("POST", COMPLETIONS, Some(body.len()), headers) + &body;
        exchange(server.address, request.as_bytes()).await
    };
    let reply = ask("expect: nonsense\r\n").await;
    assert_eq!(reply.status, 417, "{}", reply.text());
    assert!(reply.text().contains("nonsense"), "{}", reply.text());
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = head("POST", COMPLETIONS, Some(body.len()), "expect: 100-Continue\r\nconnection: close\r\n");
    client.write_all((request + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");

    let request = head("POST", COMPLETIONS, None, "transfer-encoding: gzip, chunked\r\n");
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(format!("{request}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    let reply = rest(&mut client).await;
    assert_eq!(reply.status, 501, "{}", reply.text());
    assert!(reply.text().contains("gzip, chunked"), "{}", reply.text());

    for path in ["/v1/models/%ff", "/profile/sessions/%ff"] {
        let reply = get(server.address, path).await;
        assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/json")), "{path}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("UTF-8"), "{}", reply.text());
    }
}
