//! Many clients at once, the watch on a server's health meanwhile, and another user's stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::victim::{ANSWER_TIMEOUT, Victim, expect};
use crate::{http, process};

/// What a client does with its request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Sends it and reads the answer, which may take so long to begin.
    Waits(Duration),
    /// Sends it and leaves at once.
    Leaves,
    /// Sends all but the last byte, and then nothing until the crowd is told to go.
    Stalls,
    /// Sends it and reads nothing until the crowd is told to go.
    ReadsNothing,
}

/// Clients that all do the same at once.
pub(super) struct Crowd {
    threads: Vec<JoinHandle<String>>,
    go_home: Arc<AtomicBool>,
}

impl Crowd {
    pub(super) fn come(address: &str, request: &Arc<Vec<u8>>, count: usize, manner: Manner) -> Crowd {
        let go_home = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let (address, request, go_home) = (address.to_owned(), Arc::clone(request), Arc::clone(&go_home));
            thread::spawn(move || {
                process::give_way();
                visit(&address, &request, manner, &go_home).unwrap_or_else(|error| error.kind().to_string())
            })
        });
        Crowd { threads: threads.collect(), go_home }
    }

    /// Ends what has no end of its own, and counts what the clients got: `12 × 400, 4 × 503`.
    pub(super) fn go(self) -> String {
        self.go_home.store(true, Ordering::Relaxed);
        let results = self.threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| "panic".into()));
        tally(results.collect())
    }
}

/// Equal words, counted.
pub(super) fn tally(mut words: Vec<String>) -> String {
    words.sort();
    let groups = words.chunk_by(|a, b| a == b).map(|group| format!("{} × {}", group.len(), group[0]));
    groups.collect::<Vec<_>>().join(", ")
}

/// What one client got: a status, or how its visit ended.
fn visit(address: &str, request: &[u8], manner: Manner, go_home: &AtomicBool) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(match manner {
        Manner::Waits(timeout) => timeout,
        _ => ANSWER_TIMEOUT,
    }))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let request = if manner == Manner::Stalls { &request[..request.len() - 1] } else { request };
    // A server that refuses may close before it has read all: its answer counts.
    let sent = stream.write_all(request);
    match manner {
        Manner::Leaves => {
            stream.shutdown(Shutdown::Both)?;
            return Ok("left".into());
        }
        Manner::Stalls | Manner::ReadsNothing => {
            let start = Instant::now();
            while !go_home.load(Ordering::Relaxed) && start.elapsed() < ANSWER_TIMEOUT {
                thread::sleep(Duration::from_millis(20));
            }
            return Ok("stayed".into());
        }
        Manner::Waits(_) => {}
    }
    const STATUS_BYTES: usize = 12; // HTTP/1.1 200
    let mut head = [0; STATUS_BYTES];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok("no answer".into()),
        Err(error) => return Err(sent.err().unwrap_or(error)),
    }
    io::copy(&mut stream, &mut io::sink()).ok(); // the status was read
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}

/// Asks `/health` and measures the server's memory, over and over.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
    failed: Arc<AtomicU64>,
}

impl Watch {
    pub(super) fn begin(address: &str) -> Watch {
        let (is_over, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, fails, address) = (Arc::clone(&is_over), Arc::clone(&failed), address.to_owned());
        let request = http::request("GET", "/health", &format!("Host: {address}\r\n"), b"");
        let thread = thread::spawn(move || {
            let mut times_ms = Vec::new();
            while times_ms.is_empty() || !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answer = http::send(&address, &request, ANSWER_TIMEOUT);
                times_ms.push(start.elapsed().as_secs_f64() * 1e3);
                if !answer.is_ok_and(|answer| answer.status == 200) {
                    fails.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
            times_ms
        });
        Watch { is_over, thread, failed }
    }

    /// Figures of what `/health` took, in ms; an error if the 99th percentile is over the limit or one was not 200.
    pub(super) fn end(self, p99_max: Duration) -> Result<String, String> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut times_ms = self.thread.join().map_err(|_| "the watch on /health panicked")?;
        times_ms.sort_by(f64::total_cmp);
        let at = |share: f64| times_ms[((times_ms.len() - 1) as f64 * share) as usize];
        let failed = self.failed.load(Ordering::Relaxed);
        let words = format!("health {:.0}/{:.0}/{:.0} ms", at(0.5), at(0.99), at(1.0));
        if failed > 0 {
            return Err(format!("{words}, {failed} of {} not answered", times_ms.len()));
        }
        if at(0.99) > p99_max.as_secs_f64() * 1e3 { Err(format!("{words}, p99 over the limit")) } else { Ok(words) }
    }
}

/// Another user's stream of so many tokens: how long it takes. All of it has to come.
pub(super) fn stream(victim: &Victim, tokens: usize) -> Result<Duration, String> {
    let body = json!({
        "prompt": [3, 4, 5, 6, 7, 8, 9, 10], "max_tokens": tokens, "ignore_eos": true, "temperature": 0, "stream": true
    });
    let start = Instant::now();
    let answer = victim.post("/v1/completions", &body.to_string()).map_err(|error| format!("a stream: {error}"))?;
    let took = start.elapsed();
    expect(&answer, &[200]).map_err(|why| format!("a stream: {why}"))?;
    if answer.body.trim_end().ends_with("data: [DONE]") { Ok(took) } else { Err("a stream was cut off".into()) }
}

/// The one in the middle.
pub(super) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words_are_counted() {
        assert_eq!(tally(["503", "200", "503"].map(str::to_owned).into()), "1 × 200, 2 × 503");
        assert_eq!(tally(Vec::new()), "");
    }

    #[test]
    fn the_median_is_one_of_the_times() {
        let times = [9, 1, 3, 2, 100].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_millis(3));
    }
}
