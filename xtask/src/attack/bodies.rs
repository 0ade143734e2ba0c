//! Large bodies from strangers while another user's answer streams: memory, processor time and `/health`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::crowd::{Crowd, Manner, Watch, median, stream};
use super::victim::{Ground, Victim};
use super::{Attack, Finding};
use crate::http;

pub(super) const BODY_BYTES: usize = 8_000_000;
pub(super) const STRANGERS: usize = 16;
/// Of a server of SmolLM2-135M, whose own memory is less than a sixth of that.
pub(super) const MEMORY_MB_MAX: u64 = 1000;
/// The goal is 100 ms; more is allowed since the attackers share the cores with the server, and others may too.
pub(super) const HEALTH_P99_MAX: Duration = Duration::from_millis(250);
/// How many times as long another user's stream may take as it does alone. The goal is 1.2; more is allowed for the
/// same reason.
const STREAM_RATIO_GOAL: f64 = 1.2;
const STREAM_RATIO_MAX: f64 = 1.5;
/// How long strangers wait for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
const RATIO_BEYOND_DOUBT: f64 = 4.0;
const STREAM_TOKENS: usize = 192;
/// Streams alone and beside strangers, in turns. As many again where the first say too much: others use the machine.
const ROUNDS: usize = 3;
const ROUNDS_MAX: usize = 9;
/// Strangers come this long before the stream begins.
const AHEAD: Duration = Duration::from_millis(50);

pub(super) const HOLDS: &str = "below 1 GB, the stream at most 1.5 times as long, `/health` 99 % within 250 ms";

/// A body's name, what it is, where it goes, and its bytes.
type Body = (&'static str, &'static str, &'static str, fn() -> Vec<u8>);

pub(super) fn attacks() -> Vec<Attack> {
    let kinds: [Body; 9] = [
        ("tokenize-spaces", "8 MB of spaces to `/tokenize`", "/tokenize", || prompt(&" ".repeat(BODY_BYTES))),
        ("tokenize-words", "8 MB of words to `/tokenize`", "/tokenize", || prompt(&words(BODY_BYTES))),
        ("tokenize-half-mb", "500 kB of words to `/tokenize`", "/tokenize", || prompt(&words(BODY_BYTES / 16))),
        ("detokenize", "4 million tokens to `/detokenize`", "/detokenize", || ids("tokens")),
        ("completion-long", "a prompt of 8 MB", "/v1/completions", || prompt(&words(BODY_BYTES))),
        ("completion-token-ids", "a prompt of 4 million token ids", "/v1/completions", || ids("prompt")),
        ("chat-long", "a message of 8 MB", "/v1/chat/completions", || {
            json!({"messages": [{"role": "user", "content": words(BODY_BYTES)}]}).to_string().into()
        }),
        ("json-deep", "8 million open brackets", "/v1/completions", || "[".repeat(BODY_BYTES).into()),
        ("json-wide", "an unknown field of 2.6 million objects", "/v1/completions", || {
            format!("{{\"x\":[{}{{}}]}}", "{},".repeat(BODY_BYTES / 3)).into()
        }),
    ];
    let attack = |(name, tries, path, body): Body| {
        Attack::new(name, tries, HOLDS, move |ground| flood(ground, name, path, &body()))
    };
    kinds.map(attack).into()
}

fn ids(field: &str) -> Vec<u8> {
    format!("{{\"{field}\":[{}3]}}", "3,".repeat(BODY_BYTES / 2)).into()
}

fn prompt(text: &str) -> Vec<u8> {
    json!({"prompt": text}).to_string().into()
}

/// English-like words, no two alike in a row.
pub(super) fn words(bytes: usize) -> String {
    const WORDS: [&str; 7] = ["the ", "glass ", "unfathomable ", "of ", "a ", "colonnade, ", "x9Qz "];
    let mut text = String::with_capacity(bytes + 16);
    let mut state = 1u32;
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(WORDS[(state >> 16) as usize % WORDS.len()]);
    }
    text
}

/// Sixteen strangers send the body at once, each once in each round.
fn flood(ground: &Ground, name: &str, path: &str, body: &[u8]) -> Finding {
    let mut victim = ground.real_server(name, &[])?;
    let headers = format!("Host: {}\r\nContent-Type: application/json\r\n", victim.address());
    let request = Arc::new(http::request("POST", path, &headers, body));
    beside(&mut victim, AHEAD, |victim| Crowd::come(victim.address(), &request, STRANGERS, Manner::Waits(PATIENCE)))
}

/// Measures a stream alone and beside a crowd, which comes so long before it, in turns; with the server's memory and
/// `/health`.
pub(super) fn beside(victim: &mut Victim, ahead: Duration, crowd: impl Fn(&Victim) -> Crowd) -> Finding {
    stream(victim, STREAM_TOKENS)?; // captures the graphs
    let watch = Watch::begin(victim.address());
    let streams = in_turns(victim, ahead, crowd);
    let health = watch.end(HEALTH_P99_MAX);
    victim.is_running()?;
    let memory = victim.peak_mb();
    let streams = streams.map_err(|why| format!("{memory} MB; {why}"))?;
    let words = |health: &str| {
        let [alone, beside] = [&streams.alone, &streams.beside].map(|times| median(times).as_secs_f64());
        let ratio = streams.ratio();
        format!("{memory} MB; stream {ratio:.2} times ({alone:.2} s, {beside:.2} s); {health}; {}", streams.got)
    };
    let health = health.map_err(|why| words(&why))?;
    let is_good = memory <= MEMORY_MB_MAX && streams.ratio() <= STREAM_RATIO_MAX;
    if is_good { Ok(words(&health)) } else { Err(words(&health)) }
}

/// What streams took alone and beside a crowd, and what the crowd got.
struct Streams {
    alone: Vec<Duration>,
    beside: Vec<Duration>,
    got: String,
}

impl Streams {
    fn ratio(&self) -> f64 {
        median(&self.beside).as_secs_f64() / median(&self.alone).as_secs_f64()
    }

    /// No more rounds are needed: the ratio is within its limit, or beyond doubt.
    fn is_enough(&self) -> bool {
        let (rounds, ratio) = (self.alone.len(), self.ratio());
        rounds == ROUNDS_MAX || ratio > RATIO_BEYOND_DOUBT || (rounds >= ROUNDS && ratio <= STREAM_RATIO_GOAL)
    }
}

fn in_turns(victim: &Victim, ahead: Duration, crowd: impl Fn(&Victim) -> Crowd) -> Result<Streams, String> {
    let mut streams = Streams { alone: Vec::new(), beside: Vec::new(), got: String::new() };
    loop {
        streams.alone.push(stream(victim, STREAM_TOKENS)?);
        let crowd = crowd(victim);
        thread::sleep(ahead);
        let took = stream(victim, STREAM_TOKENS);
        streams.got = crowd.go();
        streams.beside.push(took.map_err(|why| format!("{why}; the crowd: {}", streams.got))?);
        if streams.is_enough() {
            return Ok(streams);
        }
    }
}
