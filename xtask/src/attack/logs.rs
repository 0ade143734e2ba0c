//! A server whose standard output and error cannot be written: from its start to its drain, while it records.

use std::fs::File;
use std::io::{self, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{Crowd, Manner};
use super::victim::{ANSWER_TIMEOUT, Ground, Victim, free_port};
use super::{Attack, Finding};
use crate::http;
use crate::process::Group;
use crate::served::Served;

const BURST: usize = 96;
/// As many as wait at most, so that none is refused however late the first begins.
const IN_FLIGHT: usize = 8;
const START_MAX: Duration = Duration::from_secs(15);
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Where output may go that takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// A pipe that nobody will read: a write fails with EPIPE.
    Closed,
    /// A disk without room: a write fails with ENOSPC.
    Full,
    /// A pipe that is full and held open: a write waits for ever.
    Unread,
}

impl Sink {
    /// An output of this kind, and what holds it open.
    pub(super) fn open(self) -> io::Result<(Stdio, Option<io::PipeReader>)> {
        /// What a pipe of Linux holds.
        const PIPE_BYTES: usize = 65536;
        if self == Sink::Full {
            return Ok((File::options().write(true).open("/dev/full")?.into(), None));
        }
        let (reader, mut writer) = io::pipe()?;
        if self == Sink::Closed {
            return Ok((writer.into(), None));
        }
        writer.write_all(&[b'\n'; PIPE_BYTES])?;
        Ok((writer.into(), Some(reader)))
    }
}

pub(super) fn attacks() -> Vec<Attack> {
    const HOLDS: &str =
        "recording, a burst against a full queue answered whole, SIGTERM finishes all in flight, exit 0";
    let kinds = [
        ("log-closed-pipe", "a server's standard output and error are closed pipes", Sink::Closed),
        ("log-full-disk", "a server's standard output and error are `/dev/full`", Sink::Full),
        ("log-unread-pipe", "a server's standard output and error are full pipes that nobody reads", Sink::Unread),
    ];
    kinds.map(|(name, tries, sink)| Attack::new(name, tries, HOLDS, move |ground| serve(ground, name, sink))).into()
}

/// A server that can say nothing starts, records, refuses, drains.
fn serve(ground: &Ground, name: &str, sink: Sink) -> Finding {
    let folder = ground.folder(name)?;
    let (out, held_out) = sink.open().map_err(|error| error.to_string())?;
    let (err, held_err) = sink.open().map_err(|error| error.to_string())?;
    let port = free_port()?;
    let mut command = ground.serve_tiny(port, &["--max-waiting", "8", "--max-num-seqs", "4", "--profile-dir"]);
    command.arg(&folder).stdout(out).stderr(err);
    let group = Group::spawn_as_is(command, io::sink()).map_err(|error| error.to_string())?;
    let mut victim = Victim { served: Served { group, url: format!("http://127.0.0.1:{port}") }, folder };
    let start = Instant::now();
    while victim.health().is_err() {
        victim.is_running().map_err(|why| format!("in start: {why}"))?;
        if start.elapsed() > START_MAX {
            return Err(format!("does not answer within {} s of its start", START_MAX.as_secs()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let found = live_and_drain(&mut victim);
    drop((held_out, held_err));
    found
}

fn live_and_drain(victim: &mut Victim) -> Finding {
    victim.post("/start_profile", "").map_err(|why| format!("in the recording's start: {why}"))?;
    let request = |tokens: usize| {
        let body = json!({"prompt": [3, 4], "max_tokens": tokens, "ignore_eos": true}).to_string();
        let headers = format!("Host: {}\r\n", victim.address());
        Arc::new(http::request("POST", "/v1/completions", &headers, body.as_bytes()))
    };
    let burst = Crowd::come(victim.address(), &request(200), BURST, Manner::Waits(ANSWER_TIMEOUT)).go();
    let running = Crowd::come(victim.address(), &request(3000), IN_FLIGHT, Manner::Waits(ANSWER_TIMEOUT));
    victim.is_running().map_err(|why| format!("in the burst ({burst}): {why}"))?;
    let start = Instant::now();
    while victim.load()? < IN_FLIGHT as u64 && start.elapsed() < START_MAX {
        thread::sleep(Duration::from_millis(1));
    }
    let in_flight = victim.load()?;
    victim.served.group.signal(libc::SIGTERM);
    let status = victim.served.group.wait_within(DRAIN_MAX).map_err(|error| error.to_string())?;
    let drained = running.go();
    let ended = status.map_or("no exit".to_owned(), |status| status.to_string());
    let words = format!("burst: {burst}; drain with {in_flight} in flight: {drained}; {ended}");
    let is_answered =
        |tally: &str| tally.split(", ").all(|group| [" 200", " 429", " 503"].iter().any(|s| group.ends_with(s)));
    if !is_answered(&burst) || !drained.ends_with(" 200") || !drained.starts_with(&IN_FLIGHT.to_string()) {
        return Err(words);
    }
    if !status.is_some_and(|status| status.success()) {
        return Err(words);
    }
    Ok(words)
}
