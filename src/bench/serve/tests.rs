//! The load generator against a server made for it, over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ServeArgs,
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<(String, Value)>>,
}

impl Seen {
    fn bodies(&self, path: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(seen, _)| seen == path).map(|(_, body)| body.clone()).collect()
    }
}

/// Serves until the test process ends; returns its URL.
fn serve() -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.as_ref().unwrap().set_nodelay(true).unwrap();
            let seen = Arc::clone(&shared);
            seen.connections.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || while answer(&mut stream.as_ref().unwrap(), &seen).is_some() {});
        }
    });
    (url, seen)
}

/// Answers one request; `None` at the end of the connection.
fn answer(stream: &mut &TcpStream, seen: &Seen) -> Option<()> {
    let mut reader = BufReader::new(*stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    seen.requests.lock().unwrap().push((path.clone(), body.clone()));
    let reply = match path.as_str() {
        "/v1/models" => json!({"data": [{"id": "m", "root": "m"}]}),
        "/tokenize" => json!({"tokens": tokens(body["prompt"].as_str()?)}),
        "/detokenize" => json!({"prompt": text(body["tokens"].as_array()?)}),
        "/v1/completions" | "/v1/chat/completions" => return complete(stream, &body),
        "/start_profile" | "/stop_profile" => Value::Null,
        _ => return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope!").ok(),
    };
    let reply = reply.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len()).ok()
}

/// A token per word: `w17` is 17. Every seventh id has no text, so that text does not give its tokens back.
fn tokens(text: &str) -> Vec<usize> {
    let hash = |word: &str| word.bytes().fold(0, |id, byte| id * 31 + usize::from(byte)) % 5000;
    let id = |word: &str| word.strip_prefix('w').and_then(|id| id.parse().ok()).unwrap_or(hash(word));
    text.split_whitespace().map(id).collect()
}

fn text(tokens: &[Value]) -> String {
    let words = tokens.iter().filter_map(Value::as_u64).filter(|id| id % 7 != 0).map(|id| format!("w{id}"));
    words.collect::<Vec<_>>().join(" ")
}

/// One chunk per token, cut in the middle, then the counts.
fn complete(stream: &mut &TcpStream, body: &Value) -> Option<()> {
    let count = body["max_tokens"].as_u64().or(body["max_completion_tokens"].as_u64())?;
    if count == 13 {
        return write!(stream, "HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nunlucky").ok();
    }
    write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
    let mut send = |piece: &str| write!(stream, "{:x}\r\n{piece}\r\n", piece.len());
    for _ in 0..count {
        send("data: {\"choices\":[{\"te").ok()?;
        send("xt\":\"x\"}]}\n\n").ok()?;
    }
    let input = body["prompt"].as_array().map(Vec::len);
    let input = input.or(body["prompt"].as_str().map(|text| tokens(text).len()));
    send(&format!(
        "data: {}\n\n",
        json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": count}})
    ))
    .ok()?;
    send("data: [DONE]\n\n").ok()?;
    write!(stream, "0\r\n\r\n").ok()
}

/// Runs with these flags and returns the JSON file.
fn bench(url: &str, name: &str, flags: &[&str]) -> (Result<(), ServeBenchError>, Value) {
    let dir = std::env::temp_dir().join(format!("vitrum-bench-{}-{name}", std::process::id()));
    let dir_flag = dir.to_str().unwrap();
    let fixed =
        ["bench", "--base-url", url, "--save-result", "--save-detailed", "--disable-tqdm", "--result-dir", dir_flag];
    let fixed = fixed.iter().chain(&["--result-filename", "r.json"]).chain(flags);
    let result = run(&Flags::try_parse_from(fixed).unwrap_or_else(|error| panic!("{error}")).args);
    let json = std::fs::read(dir.join("r.json")).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    std::fs::remove_dir_all(&dir).ok();
    (result, json)
}

#[test]
fn text_prompts_have_exact_lengths_and_connections_are_reused() {
    let (url, seen) = serve();
    let flags = ["--num-prompts", "12", "--max-concurrency", "3", "--input-len", "20", "--output-len", "5"];
    let (result, json) =
        bench(&url, "text", &[&flags[..], &["--random-prefix-len", "4", "--num-warmups", "2", "--profile"]].concat());
    result.unwrap();
    assert_eq!((&json["completed"], &json["failed"]), (&json!(12), &json!(0)));
    assert_eq!((&json["total_input_tokens"], &json["total_output_tokens"]), (&json!(12 * 24), &json!(12 * 5)));
    assert_eq!(json["itls"][3].as_array().unwrap().len(), 4);
    assert_eq!((&json["model_id"], &json["max_concurrent_requests"]), (&json!("m"), &json!(3)));
    assert_eq!((seen.bodies("/start_profile").len(), seen.bodies("/stop_profile").len()), (1, 1));
    let bodies = seen.bodies("/v1/completions");
    assert_eq!(bodies.len(), 12 + 2);
    assert_eq!(bodies[0]["ignore_eos"], json!(true));
    assert_eq!(bodies[0]["stream_options"], json!({"include_usage": true}));
    assert!(seen.connections.load(Ordering::SeqCst) <= 3, "{:?} connections", seen.connections);
}

#[test]
fn token_ids_and_chat() {
    let (url, seen) = serve();
    let flags = ["--num-prompts", "3", "--input-len", "9", "--output-len", "2", "--model", "m"];
    bench(&url, "ids", &[&flags[..], &["--prompt-token-ids", "--temperature", "0"]].concat()).0.unwrap();
    let body = &seen.bodies("/v1/completions")[0];
    assert_eq!((body["prompt"].as_array().unwrap().len(), &body["temperature"]), (9, &json!(0.0)));
    assert!(seen.bodies("/detokenize").is_empty() && seen.bodies("/v1/models").is_empty());

    bench(&url, "chat", &[&flags[..], &["--backend", "openai-chat"]].concat()).0.unwrap();
    let body = &seen.bodies("/v1/chat/completions")[0];
    assert_eq!(body["messages"][0]["content"][0]["type"], json!("text"));
    assert_eq!((&body["max_completion_tokens"], body.get("max_tokens")), (&json!(2), None));
}

#[test]
fn failures_are_counted_with_their_reason() {
    let (url, _) = serve();
    let (result, json) = bench(&url, "fail", &["--num-prompts", "2", "--input-len", "4", "--output-len", "13"]);
    assert_eq!(result.unwrap_err().to_string(), "all 2 requests failed");
    assert_eq!(json["errors"][0], json!("POST /v1/completions: HTTP 400 Bad Request: unlucky"));
}

#[test]
fn a_server_that_is_not_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (result, _) = bench(&format!("http://127.0.0.1:{port}"), "absent", &["--num-prompts", "1"]);
    assert!(result.unwrap_err().to_string().starts_with("could not connect to 127.0.0.1:"));
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let cases = [
        (vec!["--request-rate", "0"], "--request-rate is 0, and has to be above 0"),
        (vec!["--max-concurrency", "0"], "--max-concurrency is 0, and has to be at least 1"),
        (vec!["--random-range-ratio", "1"], "--random-range-ratio is 1, and has to be from 0 to below 1"),
        (vec!["--backend", "openai-chat", "--prompt-token-ids"], "--prompt-token-ids is true"),
        (vec!["--backend", "openai-chat", "--endpoint", "/v1/completions"], "--endpoint is /v1/completions"),
    ];
    for (flags, words) in cases {
        let error = bench("http://127.0.0.1:1", "flags", &flags).0.unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}
