//! Connections and the server's end: clients that leave, that do not read, that send too much; a full queue, a dead
//! engine; draining.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vitrum::http::{HttpError, ServeOptions, Server};
use vitrum::text::Tokenizer;

use crate::client::{get, head, post, read_until, rest, sent, wait_until};
use crate::scripted::{Harness, Script, gate, options};

const COMPLETIONS: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_ends_its_request() {
    for stream in [true, false] {
        let (open, gate) = gate();
        let server = Harness::script(Script { gate, ..Script::default() }).await;
        let mut client =
            sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 99, "stream": stream})).await;
        open.send(()).unwrap();
        match stream {
            true => drop(read_until(&mut client, "\n\n").await),
            false => wait_for_load(&server, 1).await,
        }
        drop(client);
        wait_for_load(&server, 0).await;
        let ended = server.ended();
        assert!(ended.aborted && ended.tokens <= 1, "{ended:?}");
    }
}

async fn wait_for_load(server: &Harness, load: u64) {
    let is_so = async || get(server.address, "/load").await.json()["server_load"] == load;
    wait_until(&format!("the load is {load}"), is_so).await;
}

/// The engine does not wait for a client that does not read; the client gets everything when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_nobody_up() {
    let server = Harness::start().await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 255, "stream": true})).await);
    }
    for _ in 0..3 {
        let ended = server.ended();
        assert!(!ended.aborted && ended.tokens == 255);
    }
    for mut client in slow {
        let text = read_until(&mut client, "data: [DONE]\n\n").await;
        assert_eq!(text.matches("\"choices\":[{").count(), 255);
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Harness::start().await;
    let mut client = sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 1, "stream": true})).await;
    read_until(&mut client, "0\r\n\r\n").await;
    client.write_all(head("GET", "/version", None, "connection: close\r\n").as_bytes()).await.unwrap();
    assert_eq!(rest(&mut client).await.status, 200);
}

/// 24 MB, with and without a length: the answer arrives though the client writes everything first. That is more than
/// the limit and what sockets hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_refused_and_the_client_hears_of_it() {
    let server = Harness::start().await;
    let block = vec![b' '; 1 << 20];
    for chunked in [false, true] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = match chunked {
            false => head("POST", COMPLETIONS, Some(24 << 20), "connection: close\r\n"),
            true => head("POST", COMPLETIONS, None, "connection: close\r\ntransfer-encoding: chunked\r\n"),
        };
        client.write_all(request.as_bytes()).await.unwrap();
        for _ in 0..24 {
            if chunked {
                client.write_all(b"100000\r\n").await.unwrap();
            }
            client.write_all(&block).await.unwrap();
            if chunked {
                client.write_all(b"\r\n").await.unwrap();
            }
        }
        if chunked {
            client.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let reply = rest(&mut client).await;
        assert_eq!(reply.status, 413);
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("8388608"));
    }
    // Under the limit all is read; what is in it is another matter.
    assert_eq!(post(server.address, COMPLETIONS, " ".repeat(8 << 20)).await.status, 400);
    assert_eq!(post(server.address, COMPLETIONS, " ".repeat((8 << 20) + 1)).await.status, 413);
}

/// curl asks before it sends more than a megabyte.
#[tokio::test]
async fn a_client_that_asks_first_is_spared_the_sending() {
    let server = Harness::start().await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let request = head("POST", COMPLETIONS, Some(100 << 20), "expect: 100-continue\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut client).await.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let options = ServeOptions { body_timeout: Duration::from_millis(100), ..options() };
    let server = Harness::with(Script::default(), options).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all((head("POST", COMPLETIONS, Some(50), "") + "{").as_bytes()).await.unwrap();
    assert_eq!(rest(&mut client).await.status, 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_at_once() {
    let server = Harness::script(Script { stuck: true, ..Script::default() }).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut stream = sent(server.address, COMPLETIONS, json!({"prompt": [1], "stream": true})).await;
        read_until(&mut stream, "\r\n\r\n").await; // it has its place in the queue
        waiting.push(stream);
    }
    for body in [json!({"prompt": [1]}), json!({"prompt": [1], "stream": true})] {
        let reply = post(server.address, COMPLETIONS, body).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(reply.json()["error"]["type"], "ServiceUnavailableError");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_is_no_secret() {
    let server = Harness::start().await;
    assert_eq!(get(server.address, "/health").await.status, 200);
    let engine = server.engine.clone();
    tokio::task::spawn_blocking(move || engine.shutdown()).await.unwrap();
    assert_eq!(post(server.address, COMPLETIONS, json!({"prompt": [1]})).await.status, 503, "it was asked to end");
    wait_until("the engine ends", async || !server.engine.is_alive()).await;
    assert_eq!(get(server.address, "/health").await.status, 503);
    assert_eq!(post(server.address, "/start_profile", "").await.status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_runs_and_takes_no_more() {
    let (open, gate) = gate();
    let mut server = Harness::script(Script { gate, ..Script::default() }).await;
    let mut running = sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 3, "stream": true})).await;
    open.send(()).unwrap();
    read_until(&mut running, "\n\n").await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(head("GET", "/version", None, "").as_bytes()).await.unwrap();
    read_until(&mut idle, "}").await;
    // A request of which the last byte is missing.
    let body = json!({"prompt": [1]}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let mut late = TcpStream::connect(server.address).await.unwrap();
    late.write_all(head("POST", COMPLETIONS, Some(body.len()), "expect: 100-continue\r\n").as_bytes()).await.unwrap();
    read_until(&mut late, "100 Continue\r\n\r\n").await; // its body is waited for
    late.write_all(most.as_bytes()).await.unwrap();

    server.ask_to_end();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "idle connections are closed");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    late.write_all(last.as_bytes()).await.unwrap();
    let reply = rest(&mut late).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    open.send(()).unwrap();
    open.send(()).unwrap();
    let tail = read_until(&mut running, "0\r\n\r\n").await;
    assert_eq!(tail.matches("\"choices\":[{").count(), 2);
    assert!(!server.ended().aborted);
    server.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_has_an_end() {
    let (open, gate) = gate();
    let options = ServeOptions { drain_timeout: Duration::from_millis(100), ..options() };
    let mut server = Harness::with(Script { gate, ..Script::default() }, options).await;
    let mut running = sent(server.address, COMPLETIONS, json!({"prompt": [1], "max_tokens": 9, "stream": true})).await;
    open.send(()).unwrap();
    read_until(&mut running, "\n\n").await;
    server.ask_to_end();
    let mut tail = Vec::new();
    let _ = running.read_to_end(&mut tail).await; // closed or reset: it ends
    assert!(!String::from_utf8_lossy(&tail).contains("[DONE]"));
    assert!(server.ended().aborted);
    server.wait().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Harness::start().await;
    let taken = ServeOptions { port: server.address.port(), ..options() };
    let tokenizer = Tokenizer::numeric(10).into();
    let error = Server::bind(taken, server.engine.clone(), tokenizer, None).await.expect_err("the port is taken");
    let HttpError::Listen { port, .. } = &error else { panic!("{error}") };
    assert_eq!(*port, server.address.port());
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

/// Not a test: the process that the tests below send signals to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the tests of signals"]
async fn process() {
    let engine = Harness::script(Script { stuck: true, ..Script::default() }).await.engine;
    let ended = vitrum::http::termination().unwrap();
    let tokenizer = Tokenizer::numeric(10).into();
    vitrum::http::serve(options(), engine, tokenizer, None, ended).await.unwrap();
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
    _stdout: BufReader<ChildStdout>, // closed, it would fail the test harness that runs in the process
}

impl Process {
    fn start() -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "lifecycle::process"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it says where it listens");
            if let Some((_, address)) = line.trim_end().split_once("listening on http://") {
                break address.parse().unwrap();
            }
        };
        Process { child, address, _stdout: stdout }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_in_order() {
    let mut process = Process::start();
    process.signal("-TERM");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let mut process = Process::start();
    let mut client = sent(process.address, COMPLETIONS, json!({"prompt": [1], "stream": true})).await;
    read_until(&mut client, "\r\n\r\n").await;
    process.signal("-INT");
    wait_until("nobody listens", async || TcpStream::connect(process.address).await.is_err()).await; // it has the first
    assert!(process.child.try_wait().unwrap().is_none(), "a request is still running");
    process.signal("-INT");
    assert_eq!(process.child.wait().unwrap().code(), Some(130));
}
