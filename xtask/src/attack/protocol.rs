//! Signals, odd HTTP, and names that are made to break what they are written into.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crowd::{Crowd, Manner};
use super::gguf::Gguf;
use super::victim::{ANSWER_TIMEOUT, Ground, Victim, expect, files};
use super::{Attack, Finding, write};
use crate::http;

const DRAIN_MAX: Duration = Duration::from_secs(15);
const IN_FLIGHT: usize = 4;

pub(super) fn attacks() -> Vec<Attack> {
    const DRAINS: &str = "what is in flight is finished, the recording is complete, exit 0";
    vec![
        Attack::new("signal-hup", "SIGHUP while recording, four in flight", DRAINS, |ground| {
            signal(ground, "signal-hup", libc::SIGHUP)
        }),
        Attack::new("signal-quit", "SIGQUIT while recording, four in flight", DRAINS, |ground| {
            signal(ground, "signal-quit", libc::SIGQUIT)
        }),
        Attack::new("half-closed", "a client that sends no more after its request", "it gets its answer", half_closed),
        Attack::new("path-not-utf8", "paths that are no UTF-8", "an error in JSON", path_not_utf8),
        Attack::new("heads-odd", "lengths up to 2⁶⁴, codings, `Expect`, 1 MB of head", "the status of HTTP", odd_heads),
        Attack::new("name-with-nul", "a model's name of control characters", "none in the log", name_with_nul),
        Attack::new("csv-formulas", "request ids such as `=1+1`", "no cell of CSV begins so", csv_formulas),
    ]
}

fn completion(victim: &Victim, tokens: usize) -> Vec<u8> {
    let body = json!({"prompt": [3, 4], "max_tokens": tokens, "ignore_eos": true}).to_string();
    http::request("POST", "/v1/completions", &format!("Host: {}\r\n", victim.address()), body.as_bytes())
}

/// A server of the tiny model, and the folder of its recordings.
fn recording_server(ground: &Ground, name: &str) -> Result<Victim, String> {
    let folder = ground.folder(name)?;
    let profiles = folder.to_string_lossy().into_owned();
    Victim::start(ground.serve_tiny(0, &["--profile-dir", &profiles]), folder)
}

fn signal(ground: &Ground, name: &str, signal: i32) -> Finding {
    let mut victim = recording_server(ground, name)?;
    expect(&victim.post("/start_profile", "")?, &[200])?;
    let request = Arc::new(completion(&victim, 3000));
    let running = Crowd::come(victim.address(), &request, IN_FLIGHT, Manner::Waits(ANSWER_TIMEOUT));
    let start = Instant::now();
    while victim.load()? < IN_FLIGHT as u64 && start.elapsed() < DRAIN_MAX {
        thread::sleep(Duration::from_millis(1));
    }
    victim.served.group.signal(signal);
    let status = victim.served.group.wait_within(DRAIN_MAX).map_err(|error| error.to_string())?;
    let got = running.go();
    let ended = status.map_or("no exit".to_owned(), |status| status.to_string());
    let words = format!("in flight: {got}; {ended}");
    if got != format!("{IN_FLIGHT} × 200") || !status.is_some_and(|status| status.success()) {
        return Err(words);
    }
    let recording = files(&victim.folder, ".vtr").pop().ok_or("no recording")?;
    let output = ground.vitrum(["profile", "stats"]).arg(recording).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(words) } else { Err(format!("{words}; the recording is not complete")) }
}

fn half_closed(ground: &Ground) -> Finding {
    let victim = ground.tiny_server("half-closed", &[])?;
    let mut found = Vec::new();
    let requests = [completion(&victim, 100), b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()];
    for request in requests {
        let send = || -> std::io::Result<TcpStream> {
            let mut stream = TcpStream::connect(victim.address())?;
            stream.write_all(&request)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(stream)
        };
        let mut stream = send().map_err(|error| error.to_string())?;
        found.push(
            http::read(&mut stream, Instant::now() + ANSWER_TIMEOUT)
                .map_or_else(|error| error, |answer| answer.status.to_string()),
        );
    }
    if found == ["200", "200"] { Ok(found.join(", ")) } else { Err(found.join(", ")) }
}

fn path_not_utf8(ground: &Ground) -> Finding {
    let victim = ground.tiny_server("path-not-utf8", &[])?;
    let paths = ["/v1/models/%ff%fe", "/%ff", "/v1/%c3%28", "/profile/sessions/%80"];
    for path in paths {
        let answer = victim.get(path)?;
        let body: Result<Value, _> = serde_json::from_str(&answer.body);
        if !(400..500).contains(&answer.status) || !body.is_ok_and(|body| body["error"]["message"].is_string()) {
            return Err(format!("{path}: HTTP {}: {}", answer.status, answer.body.trim()));
        }
    }
    victim.serves()?;
    Ok(format!("{} paths", paths.len()))
}

fn odd_heads(ground: &Ground) -> Finding {
    let victim = ground.tiny_server("heads-odd", &[])?;
    let cases: [(&str, &str, &[u16]); 9] = [
        ("Expect: nonsense", "Expect: nonsense\r\nContent-Length: 2\r\n\r\n{}", &[417]),
        ("Content-Length 2⁶⁴−1", "Content-Length: 18446744073709551615\r\n\r\n", &[400, 413, 431]), // the library's
        ("Content-Length 2⁶³", "Content-Length: 9223372036854775808\r\n\r\n", &[400, 413]),
        ("Content-Length −1", "Content-Length: -1\r\n\r\n", &[400]),
        ("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", &[400]),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", &[400, 501]),
        ("gzip alone", "Transfer-Encoding: gzip\r\n\r\n{}", &[400, 501]),
        ("a chunk of 2⁶⁴", "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}", &[400, 413]),
        ("a head of 1 MB", "@LONG", &[400, 431]),
    ];
    let address = victim.address();
    let ask = |(what, rest, wanted): (&str, &str, &[u16])| {
        let rest = rest.replace("@LONG", &format!("X: {}\r\n\r\n", "x".repeat(1_000_000)));
        let request = format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}");
        match http::send(address, request.as_bytes(), ANSWER_TIMEOUT) {
            Ok(answer) if wanted.contains(&answer.status) => None,
            Ok(answer) => Some(format!("{what}: HTTP {}", answer.status)),
            Err(error) => Some(format!("{what}: {error}")),
        }
    };
    // A body that is refused is read on for 10 s: all at once.
    let wrong: Vec<String> = thread::scope(|scope| {
        let asking = cases.map(|case| scope.spawn(move || ask(case)));
        asking.into_iter().filter_map(|asked| asked.join().expect("it does not panic")).collect()
    });
    victim.serves()?;
    let words = format!("{} of {} right", cases.len() - wrong.len(), cases.len());
    if wrong.is_empty() { Ok(words) } else { Err(format!("{words}; {}", wrong.join("; "))) }
}

fn name_with_nul(ground: &Ground) -> Finding {
    let folder = ground.folder("name-with-nul")?;
    let path = folder.join("model.gguf");
    let name = "ti\0ny\u{1b}[2J\u{7}\r\u{9b}31m".to_owned();
    write(&path, Gguf { name, ..Gguf::new() }.bytes())?;
    let mut command = ground.vitrum(["serve", "--device", "cpu", "--threads", "1", "--port", "0"]);
    command.arg(&path);
    let victim = Victim::start(command, folder)?;
    victim.serves()?;
    let log = victim.log_with(&["ready after"]);
    let raw: Vec<char> = log.chars().filter(|c| c.is_control() && *c != '\n').collect();
    let line = log.lines().find(|line| line.contains("ready after")).unwrap_or_default();
    if raw.is_empty() && !line.is_empty() {
        Ok("escaped".into())
    } else {
        Err(format!("the log has {raw:?}: {line:?}"))
    }
}

fn csv_formulas(ground: &Ground) -> Finding {
    let victim = recording_server(ground, "csv-formulas")?;
    expect(&victim.post("/start_profile", "")?, &[200])?;
    let ids = ["=1+1", "+1", "-1+2", "@SUM(A1)", "=HYPERLINK(\"http://x\",\"y\")"];
    for id in ids {
        let body = json!({"prompt": [3, 4], "max_tokens": 2}).to_string();
        let answer = victim.send("POST", "/v1/completions", &format!("X-Request-Id: {id}\r\n"), body.as_bytes())?;
        expect(&answer, &[200])?;
    }
    expect(&victim.post("/stop_profile", "")?, &[200])?;
    let recording = files(&victim.folder, ".vtr").pop().ok_or("no recording")?;
    let mut stats = ground.vitrum(["profile", "stats", "--format", "csv"]);
    let output = stats.arg(&recording).output().map_err(|error| error.to_string())?;
    let csv = String::from_utf8_lossy(&output.stdout).into_owned();
    let known = ids.iter().filter(|id| csv.contains(&id.replace('"', "\"\""))).count();
    let cells = csv.lines().flat_map(|line| line.split(',')).map(|cell| cell.trim_start_matches('"'));
    let is_number = |cell: &str| cell.trim_end_matches('"').parse::<f64>().is_ok();
    let formulas: Vec<&str> = cells.filter(|cell| cell.starts_with(['=', '+', '-', '@']) && !is_number(cell)).collect();
    if known < ids.len() {
        return Err(format!("only {known} of {} ids are in the tables", ids.len()));
    }
    if formulas.is_empty() { Ok(format!("{known} ids escaped")) } else { Err(format!("formulas: {formulas:?}")) }
}
