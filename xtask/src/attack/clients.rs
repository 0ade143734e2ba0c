//! Clients that leave at once, that never finish a body, and that never read an answer.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bodies::{BODY_BYTES, HEALTH_P99_MAX, MEMORY_MB_MAX, beside, words};
use super::crowd::{Crowd, Manner, Watch};
use super::victim::{Ground, Victim};
use super::{Attack, Finding, bodies};
use crate::http;

const LEAVING: usize = 30;
/// Bodies of 8 MB that are never finished: more than `--max-bodies-bytes` has room for.
const UNFINISHED: usize = 100;
/// Sending 800 MB is work on the same cores: it is over when the stream begins.
const SENDING: Duration = Duration::from_secs(1);
const UNREAD: usize = 64;
/// Answers of 4 MB, of which no byte is read either.
const UNREAD_LONG: usize = 3;
/// A client that has closed its side may wait for an answer for 2 s; the machine may be shared.
const GIVEN_BACK_MAX: Duration = Duration::from_secs(6);
/// What a server may still compute for clients that have left, in seconds of processor time.
/// Receiving their bytes is a part of it.
const FOR_NOBODY_MAX: f64 = 4.0;
/// The server's time-out is 2 s, and the machine may be shared.
const UNREAD_MAX: Duration = Duration::from_secs(8);

pub(super) fn attacks() -> Vec<Attack> {
    const FOR_NOBODY: &str = "at most 4 s of processor time for them, below 1 GB, `/health` 99 % within 250 ms";
    vec![
        Attack::new("leaving", "thirty clients send 8 MB to `/tokenize` and leave", FOR_NOBODY, |ground| {
            leaving(ground, "leaving", "/tokenize", &words(BODY_BYTES))
        }),
        Attack::new("leaving-half-mb", "the same with 500 kB", FOR_NOBODY, |ground| {
            leaving(ground, "leaving-half-mb", "/tokenize", &words(BODY_BYTES / 16))
        }),
        Attack::new("bodies-unfinished", "a hundred bodies of 8 MB without their last byte", bodies::HOLDS, unfinished),
        Attack::new(
            "bodies-beyond",
            "bodies of 8 MB and of 10 kB beside twenty unfinished ones of 8 MB",
            "503 with `Retry-After`; 10 kB are taken; within 6 s of their leaving, 8 MB are read again",
            beyond,
        ),
        Attack::new(
            "answers-unread",
            "64 × 2,000 answers of `/metrics` and three of 4 MB of which no byte is read, `--write-timeout-sec 2`",
            "all are gone within 8 s, `/health` 99 % within 250 ms",
            unread,
        ),
    ]
}

fn post(victim: &Victim, path: &str, body: &[u8]) -> Arc<Vec<u8>> {
    let headers = format!("Host: {}\r\nContent-Type: application/json\r\n", victim.address());
    Arc::new(http::request("POST", path, &headers, body))
}

fn leaving(ground: &Ground, name: &str, path: &str, text: &str) -> Finding {
    let mut victim = ground.real_server(name, &[])?;
    let request = post(&victim, path, json!({"prompt": text}).to_string().as_bytes());
    let watch = Watch::begin(victim.address());
    let before = victim.cpu_seconds();
    Crowd::come(victim.address(), &request, LEAVING, Manner::Leaves).go();
    settle(&victim, Duration::from_secs(20));
    let spent = victim.cpu_seconds() - before;
    let health = watch.end(HEALTH_P99_MAX);
    victim.is_running()?;
    let memory = victim.peak_mb();
    let words = |health: &str| format!("{spent:.1} s of processor time, {memory} MB; {health}");
    let health = health.map_err(|why| words(&why))?;
    let is_good = spent <= FOR_NOBODY_MAX && memory <= MEMORY_MB_MAX;
    if is_good { Ok(words(&health)) } else { Err(words(&health)) }
}

/// Waits until the server does next to nothing: a tenth of a core.
fn settle(victim: &Victim, limit: Duration) {
    const LOOK: Duration = Duration::from_millis(500);
    let start = Instant::now();
    let mut before = victim.cpu_seconds();
    while start.elapsed() < limit {
        thread::sleep(LOOK);
        let now = victim.cpu_seconds();
        if now - before < LOOK.as_secs_f64() / 10.0 {
            return;
        }
        before = now;
    }
}

fn unfinished(ground: &Ground) -> Finding {
    let mut victim = ground.real_server("bodies-unfinished", &[])?;
    let request = post(&victim, "/tokenize", &vec![b' '; BODY_BYTES]);
    beside(&mut victim, SENDING, |victim| Crowd::come(victim.address(), &request, UNFINISHED, Manner::Stalls))
}

fn beyond(ground: &Ground) -> Finding {
    let victim = ground.tiny_server("bodies-beyond", &[])?;
    let big = json!({"prompt": "x".repeat(BODY_BYTES)}).to_string();
    let small = json!({"prompt": "x".repeat(10_000)}).to_string();
    let crowd = Crowd::come(victim.address(), &post(&victim, "/tokenize", big.as_bytes()), 20, Manner::Stalls);
    thread::sleep(Duration::from_secs(1)); // all have sent what the server takes
    let beside = victim.post("/tokenize", &big)?;
    let small = victim.post("/tokenize", &small)?;
    crowd.go();
    let start = Instant::now();
    let after = loop {
        let after = victim.post("/tokenize", &big)?;
        if after.status != 503 || start.elapsed() > GIVEN_BACK_MAX {
            break after;
        }
        thread::sleep(Duration::from_millis(100));
    };
    victim.serves()?;
    let says_when = beside.head.lines().any(|line| line.to_ascii_lowercase().starts_with("retry-after:"));
    let when = if says_when { "with Retry-After" } else { "without Retry-After" };
    let words = format!("8 MB: {} {when}; 10 kB: {}; afterwards 8 MB: {}", beside.status, small.status, after.status);
    let is_good = beside.status == 503 && says_when && small.status == 200 && [200, 400].contains(&after.status);
    if is_good { Ok(words) } else { Err(words) }
}

fn unread(ground: &Ground) -> Finding {
    let mut victim = ground.tiny_server("answers-unread", &["--write-timeout-sec", "2"])?;
    let idle = victim.connections()?;
    let long =
        post(&victim, "/detokenize", format!("{{\"tokens\":[{}3]}}", "3,".repeat(BODY_BYTES / 2 - 20)).as_bytes());
    let asks = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", victim.address()).repeat(2000).into_bytes();
    let watch = Watch::begin(victim.address());
    let crowd = Crowd::come(victim.address(), &long, UNREAD_LONG, Manner::ReadsNothing);
    let mut pipes = Vec::new();
    for _ in 0..UNREAD {
        let mut stream = TcpStream::connect(victim.address()).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(Duration::from_millis(50))).map_err(|error| error.to_string())?;
        stream.write_all(&asks).ok(); // as much as the server takes
        pipes.push(stream);
    }
    let (start, mut most) = (Instant::now(), 0);
    let (left, over) = loop {
        let left = victim.connections()?.saturating_sub(idle);
        most = most.max(left);
        let has_come = most >= UNREAD + UNREAD_LONG;
        // One more is the watch's own.
        if (has_come && left <= 1) || start.elapsed() > 4 * UNREAD_MAX {
            break (left, start.elapsed());
        }
        thread::sleep(Duration::from_millis(20));
    };
    let health = watch.end(HEALTH_P99_MAX);
    crowd.go();
    victim.is_running()?;
    let words = format!("{left} of {most} connections left after {:.1} s", over.as_secs_f64());
    let health = health.map_err(|why| format!("{words}; {why}"))?;
    victim.serves()?;
    let words = format!("{words}, {} MB; {health}", victim.peak_mb());
    if most >= UNREAD + UNREAD_LONG && left <= 1 && over <= UNREAD_MAX { Ok(words) } else { Err(words) }
}
