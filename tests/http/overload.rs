//! More bytes than there may be: refused before anything is done with them, and the short requests of others are
//! answered meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use vitrum::http::ServeOptions;

use crate::client::{get, head, post, read_until, rest, wait_until};
use crate::scripted::{Harness, MAX_MODEL_LEN, Script, options};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_a_budget_and_short_ones_pass() {
    let limits = ServeOptions { body_bytes_max: 1 << 20, bodies_bytes_max: 2 << 20, ..options() };
    let server = Harness::with(Script::default(), limits).await;
    // What is announced costs nobody anything until it comes.
    let mut announced = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(head("POST", COMPLETIONS, Some(1 << 20), "").as_bytes()).await.unwrap();
        announced.push(client);
    }
    let long = json!({"prompt": "1 ".repeat(200_000)}).to_string();
    assert_eq!(post(server.address, COMPLETIONS, &long).await.status, 400);
    // Two have all but their last bytes; one that finds no room, since others are read meanwhile, is sent anew.
    let is_full = async || {
        for _ in 0..2 {
            let mut client = TcpStream::connect(server.address).await.unwrap();
            client.write_all(head("POST", COMPLETIONS, Some(1 << 20), "").as_bytes()).await.unwrap();
            let _ = client.write_all(&vec![b' '; (1 << 20) - 10]).await; // refused ones may be closed
            announced.push(client);
        }
        let reply = post(server.address, COMPLETIONS, &long).await;
        if reply.status == 503 {
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert!(reply.text().contains("--max-bodies-bytes"), "{}", reply.text());
        }
        reply.status == 503
    };
    wait_until("the budget is spent", is_full).await;
    let short = post(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 1})).await;
    assert_eq!(short.status, 200, "{}", short.text());
    // Neither is one that comes in pieces of an unknown number.
    let pieces = [vec![b' '; 5000], vec![b' '; 5000], br#"{"prompt": [1], "max_tokens": 1}"#.to_vec()];
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = head("POST", COMPLETIONS, None, "connection: close\r\ntransfer-encoding: chunked\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    for piece in pieces {
        client.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        client.write_all(&[&piece[..], b"\r\n"].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    let reply = rest(&mut client).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    drop(announced);
    let is_read = async || post(server.address, COMPLETIONS, &long).await.status == 400;
    wait_until("they left, and their bytes with them", is_read).await;
}

/// A byte-level vocabulary whose longest token has eight bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_refused_by_its_bytes() {
    let server = Harness::of_bytes().await;
    let long = "©".repeat(100 * MAX_MODEL_LEN);
    let reply = post(server.address, COMPLETIONS, json!({"prompt": long})).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("at least") && message.contains(&MAX_MODEL_LEN.to_string()), "{message}");
    assert_eq!(reply.json()["error"]["param"], "prompt");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_much_text_are_refused_before_they_are_spelled() {
    let limits = ServeOptions { body_bytes_max: 4096, ..options() };
    let server = Harness::with(Script::default(), limits).await;
    // ` 999` is four bytes, and two bytes of the body.
    let spelled = |count: usize| format!(r#"{{"tokens":[{}]}}"#, vec!["999"; count].join(","));
    assert_eq!(post(server.address, "/detokenize", spelled(1000)).await.status, 200);
    let spelled = |count: usize| format!(r#"{{"tokens":[{}]}}"#, vec!["9"; count].join(","));
    assert_eq!(post(server.address, "/detokenize", spelled(2000)).await.status, 200);
    let limits = ServeOptions { body_bytes_max: 16, ..options() };
    let server = Harness::with(Script::default(), limits).await;
    let reply = post(server.address, "/detokenize", r#"{"tokens":[1]}"#).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_ended() {
    let limits = ServeOptions { write_timeout: Duration::from_millis(300), ..options() };
    let server = Harness::with(Script::default(), limits).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.address).await.unwrap();
    // Megabytes: more than sockets hold.
    let prompt: Vec<Value> = vec![json!([1]); 3];
    let body =
        json!({"prompt": prompt, "max_tokens": 200, "logprobs": 20, "stream": true, "ignore_eos": true}).to_string();
    for _ in 0..40 {
        deaf.write_all((head("POST", COMPLETIONS, Some(body.len()), "") + &body).as_bytes()).await.unwrap();
    }
    wait_until("it is under way", async || load(&server).await == 1).await;
    wait_until("it is given up", async || load(&server).await == 0).await;
    drop(deaf);

    // One that reads slowly is not.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let body = json!({"prompt": [1], "max_tokens": 3, "stream": true}).to_string();
    slow.write_all((head("POST", COMPLETIONS, Some(body.len()), "") + &body).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    read_until(&mut slow, "[DONE]").await;
}

/// 8 MB each, of which the sockets hold a part: the rest stays counted until it is read, or given up.
#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_counted_until_they_are_read() {
    const BODY_BYTES: usize = 8 << 20;
    let limits = ServeOptions { bodies_bytes_max: 22 << 20, write_timeout: Duration::from_secs(15), ..options() };
    let server = Harness::with(Script::default(), limits).await;
    let body = format!(r#"{{"tokens":[{}]}}"#, vec!["999"; BODY_BYTES / 4 - 10].join(","));
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(server.address).await.unwrap();
        let request = head("POST", "/detokenize", Some(body.len()), "") + &body;
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut client, "200 OK").await;
        deaf.push(client);
    }
    let reply = post(server.address, "/detokenize", &body).await;
    assert_eq!(reply.status, 503);
    let is_answered = async || post(server.address, "/detokenize", &body).await.status == 200;
    wait_until("nobody reads them, and they are given up", is_answered).await;
}

async fn load(server: &Harness) -> u64 {
    get(server.address, "/load").await.json()["server_load"].as_u64().expect("a number")
}
