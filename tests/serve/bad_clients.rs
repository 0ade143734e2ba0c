//! Clients that do not read, do not finish, leave, or speak no HTTP: others are answered meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::{head, read_until, sent, wait_until};
use crate::support::server::{Server, TINY_MODEL_LEN};

const COMPLETIONS: &str = "/v1/completions";

/// An answer of many tokens: some megabytes with the log probabilities of each, more than sockets hold.
fn long_answer(tokens: usize) -> Value {
    json!({"prompt": [65], "max_tokens": tokens, "ignore_eos": true, "stream": true, "logprobs": 20})
}

async fn finished(server: &Server) -> f64 {
    server.metric("vllm:request_success_total", "finished_reason=\"length\"").await
}

#[tokio::test]
async fn a_client_that_never_reads_holds_nobody_up_and_its_request_ends() {
    const TOKENS: usize = 8000;
    let server = Server::tiny(&["--write-timeout-sec", "3600"]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.address).await.unwrap();
    let body = long_answer(TOKENS).to_string();
    deaf.write_all((head("POST", COMPLETIONS, Some(body.len()), "") + &body).as_bytes()).await.unwrap();
    wait_until("its request runs", async || server.running().await == 1.0).await;
    server.assert_answers().await;
    // The engine waits for no client: it draws all tokens, and is free for others.
    wait_until("both requests have ended", async || finished(&server).await == 2.0).await;
    assert_eq!(server.metric("vllm:generation_tokens_total", "").await, (TOKENS + 2) as f64);
    wait_until("none runs", async || server.running().await == 0.0).await;
    server.assert_answers().await;
    wait_until("its answer is all that is left", async || server.load().await == 1).await;
    drop(deaf);
    wait_until("its answer ends with the connection", async || server.load().await == 0).await;
    server.assert_answers().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    const TOKENS: usize = TINY_MODEL_LEN - 1;
    let server = Server::tiny(&[]);
    let mut leaving = sent(server.address, COMPLETIONS, long_answer(TOKENS)).await;
    read_until(&mut leaving, "\"choices\":[{").await;
    drop(leaving);
    wait_until("its request ends", async || server.running().await == 0.0 && server.load().await == 0).await;
    assert!(server.metric("vllm:generation_tokens_total", "").await < TOKENS as f64);
    assert_eq!(finished(&server).await, 0.0);
    server.assert_answers().await;
}

#[tokio::test]
async fn half_requests_hold_nobody_up() {
    let server = Server::tiny(&[]);
    let whole = head("POST", COMPLETIONS, Some(100), "") + "{\"prompt\": [65], ";
    let mut hanging = Vec::new();
    for count in 0..200 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        // Nothing, half a line, half a head, half a body.
        let part = [0, 7, 30, whole.len()][count % 4];
        client.write_all(&whole.as_bytes()[..part]).await.unwrap();
        hanging.push(client);
    }
    server.assert_answers().await;
    // None of them was taken for a request, and none whose head had come was cut off: bodies may be slow.
    assert_eq!(server.load().await, 0);
    for client in hanging.iter_mut().skip(3).step_by(4) {
        let read = tokio::time::timeout(Duration::ZERO, client.read(&mut [0; 1])).await;
        assert!(read.is_err(), "{read:?}");
    }
    // A slow one that goes on is served.
    let rest = "\"max_tokens\": 2}";
    let blanks = " ".repeat(100 - "{\"prompt\": [65], ".len() - rest.len());
    hanging[3].write_all((rest.to_owned() + &blanks).as_bytes()).await.unwrap();
    assert!(read_until(&mut hanging[3], "\"finish_reason\"").await.starts_with("HTTP/1.1 200"));
    drop(hanging);
    server.assert_answers().await;
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_an_error_or_closed() {
    let server = Server::tiny(&[]);
    let tls_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 512][..]].concat();
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    let cases: &[(&str, Vec<u8>, &[u16])] = &[
        ("noise", noise, &[400]),
        ("zeros", vec![0; 4096], &[400]),
        ("TLS", tls_hello, &[400]),
        ("no method", b"/v1/completions\r\n\r\n".to_vec(), &[400]),
        ("another protocol", b"EHLO example.org\r\n\r\n".to_vec(), &[400]),
        ("another version", b"GET /health HTTP/9.9\r\n\r\n".to_vec(), &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]), // closed without a word
        ("a header without a colon", b"GET /health HTTP/1.1\r\nhost\r\n\r\n".to_vec(), &[400]),
        ("a negative length", b"POST /ping HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(), &[400]),
        ("two lengths", b"POST /ping HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na".to_vec(), &[400]),
        ("a long target", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).into_bytes(), &[400, 414, 431]),
        ("a long header", format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes(), &[400, 431]),
        ("1000 headers", format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)).into_bytes(), &[400, 431]),
    ];
    for (name, bytes, statuses) in cases {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let _ = client.write_all(bytes).await; // the server may close before it has read all
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
        let closed = reading.unwrap_or_else(|_| panic!("{name}: the connection stays open"));
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        // A reset may overtake the answer to something long that was not read to its end.
        let is_silent = answer.is_empty() && (statuses.is_empty() || closed.is_err());
        let is_known = status.is_some_and(|status| statuses.contains(&status));
        assert!(is_silent || is_known, "{name}: {answer:?}, {closed:?}");
        server.assert_answers().await;
    }
}
