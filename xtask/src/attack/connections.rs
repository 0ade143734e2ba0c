//! Thousands of connections that ask nothing, and heads that never end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::victim::{Ground, Victim};
use super::{Attack, Finding};

/// More than the server's default limit of all connections, from one peer.
const IDLE: usize = 4096 + 32;
const HALF: usize = 1000;
const HEALTH_MAX: Duration = Duration::from_secs(1);
/// The server gives a head 10 s.
const HEAD_MAX: Duration = Duration::from_secs(15);

pub(super) fn attacks() -> Vec<Attack> {
    const HOLDS: &str = "`/health` within 1 s, a request answered or refused with 503 within 1 s, one or two log lines";
    vec![
        Attack::new("connections-idle", "4,128 connections that say nothing", HOLDS, |ground| {
            idle(ground, "connections-idle", &[])
        }),
        Attack::new("connections-no-peer-limit", "the same with `--max-connections-per-peer 0`", HOLDS, |ground| {
            idle(ground, "connections-no-peer-limit", &["--max-connections-per-peer", "0"])
        }),
        Attack::new(
            "heads-half-sent",
            "500 heads without an end, and 500 that come a byte a second",
            "closed within 15 s, `/health` within 1 s",
            half_heads,
        ),
    ]
}

fn open(victim: &Victim, count: usize) -> Result<Vec<TcpStream>, String> {
    /// What the kernel keeps until the server accepts them is more: one beyond would be tried again after a second.
    const AT_ONCE: usize = 64;
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let stream = TcpStream::connect(victim.address()).map_err(|error| format!("a connection: {error}"))?;
        streams.push(stream);
        if streams.len().is_multiple_of(AT_ONCE) {
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(streams)
}

fn idle(ground: &Ground, name: &str, flags: &[&str]) -> Finding {
    let mut victim = ground.tiny_server(name, flags)?;
    let start = Instant::now();
    let streams = open(&victim, IDLE)?;
    let opened = start.elapsed();
    let health = victim.health();
    let start = Instant::now();
    let body = json!({"prompt": [3, 4], "max_tokens": 2, "ignore_eos": true}).to_string();
    let request = victim.post("/v1/completions", &body);
    let took = start.elapsed();
    victim.is_running()?;
    let said = ["WARN", "connections"];
    let log = victim.log_with(&said);
    let lines = log.lines().filter(|line| said.iter().all(|word| line.contains(word))).count();
    drop(streams);
    let shown = |health: &Result<Duration, String>| match health {
        Ok(took) => format!("{:.3} s", took.as_secs_f64()),
        Err(error) => error.clone(),
    };
    let status = request.as_ref().map_or_else(String::clone, |answer| format!("HTTP {}", answer.status));
    let words = format!(
        "opened in {:.1} s; health {}; request {status} in {:.3} s; {lines} log lines",
        opened.as_secs_f64(),
        shown(&health),
        took.as_secs_f64()
    );
    let is_served = request.is_ok_and(|answer| [200, 503].contains(&answer.status)) && took <= HEALTH_MAX;
    let is_healthy = health.is_ok_and(|took| took <= HEALTH_MAX);
    wait_for_recovery(&victim).map_err(|why| format!("{words}; {why}"))?;
    if is_served && is_healthy && (1..=2).contains(&lines) { Ok(words) } else { Err(words) }
}

/// When the connections have gone, requests are served again.
fn wait_for_recovery(victim: &Victim) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match victim.serves() {
            Err(_) if start.elapsed() < Duration::from_secs(5) => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

fn half_heads(ground: &Ground) -> Finding {
    let mut victim = ground.tiny_server("heads-half-sent", &[])?;
    let idle = victim.connections()?;
    let mut streams = open(&victim, HALF)?;
    for stream in &mut streams {
        write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Long: ").map_err(|error| error.to_string())?;
    }
    let (start, mut worst) = (Instant::now(), Duration::ZERO);
    let mut left = HALF;
    while left > 0 && start.elapsed() < HEAD_MAX {
        worst = worst.max(victim.health()?);
        streams.iter_mut().skip(HALF / 2).for_each(|stream| drop(stream.write_all(b"x"))); // closed: looked at below
        thread::sleep(Duration::from_millis(900));
        left = victim.connections()?.saturating_sub(idle);
    }
    let took = start.elapsed();
    let mut answer = String::new();
    if let Some(stream) = streams.first_mut() {
        stream.set_read_timeout(Some(Duration::from_millis(100))).map_err(|error| error.to_string())?;
        stream.read_to_string(&mut answer).ok(); // what came before it closed, if anything
    }
    victim.is_running()?;
    let words = format!(
        "{left} of {HALF} left after {:.1} s; health at most {:.3} s; closed with {:?}",
        took.as_secs_f64(),
        worst.as_secs_f64(),
        answer.lines().next().unwrap_or("nothing")
    );
    victim.serves()?;
    if left == 0 && worst <= HEALTH_MAX { Ok(words) } else { Err(words) }
}
