//! Recordings that are large, replaced, or have no room: the server still ends when it is asked to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crowd::Watch;
use super::victim::{Ground, Victim, expect, files, last_line};
use super::{Attack, Finding, within};
use crate::{http, process};

/// Grace of the drains, and what exiting may take beside it on a machine that is shared.
const DRAIN_SEC: &str = "2";
const EXIT_MAX: Duration = Duration::from_secs(5);
/// While 100 MB are rendered.
const HEALTH_MAX: Duration = Duration::from_secs(1);
const DRAINED_BYTES: u64 = 200_000_000;
const RENDERED_BYTES: u64 = 100_000_000;
const RECORDING_MAX: Duration = Duration::from_secs(40);
const RENDER_MAX: Duration = Duration::from_secs(60);
/// What rendering may take of memory, beside what recording took, in MB.
const RENDER_MB_MAX: u64 = 200;

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "drain-large-recording",
            "SIGTERM with `--drain-timeout-sec 2` and a recording of 200 MB",
            "exit 0 within 5 s, the recording readable",
            drain_large,
        ),
        Attack::new(
            "render-large-recording",
            "`/stop_profile` renders 100 MB",
            "200 within 60 s, at most 200 MB more memory, `/health` 99 % within 1 s",
            render_large,
        ),
        Attack::new(
            "recording-is-a-fifo",
            "a FIFO in the recording's place",
            "`/stop_profile` answers within 10 s, exit 0 within 5 s of SIGTERM",
            fifo,
        ),
        Attack::new(
            "recording-has-no-room",
            "a limit of 1 MB on files (`ulimit -f`) while recording",
            "the server serves on, `/stop_profile` names the error",
            no_room,
        ),
    ]
}

/// A server whose steps have hundreds of nodes and compute nothing.
fn deep_server(ground: &Ground, name: &str) -> Result<(Victim, PathBuf), String> {
    let folder = ground.folder(name)?;
    let profiles = folder.join("profiles");
    fs::create_dir(&profiles).map_err(|error| error.to_string())?;
    let mut command = ground.vitrum(["serve", "--load-format", "dummy", "--device", "null", "--port", "0"]);
    command.arg(&ground.deep).args(["--drain-timeout-sec", DRAIN_SEC, "--profile-dir"]).arg(&profiles);
    Ok((Victim::start(command, folder)?, profiles))
}

/// Records until the file has so many bytes.
fn record_large(victim: &Victim, profiles: &Path, wanted: u64) -> Result<u64, String> {
    expect(&victim.post("/start_profile", "")?, &[200])?;
    let body = json!({"prompt": [3, 4], "max_tokens": 100, "ignore_eos": true}).to_string();
    let start = Instant::now();
    loop {
        expect(&victim.post("/v1/completions", &body)?, &[200])?;
        let bytes = files(profiles, ".vtr").first().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        if bytes >= wanted {
            return Ok(bytes);
        }
        if start.elapsed() > RECORDING_MAX {
            return Err(format!("the recording has {bytes} bytes only after {} s", RECORDING_MAX.as_secs()));
        }
    }
}

/// Sends SIGTERM; how long the server then takes to exit with 0.
fn terminate(victim: &mut Victim) -> Finding {
    let start = Instant::now();
    victim.served.group.signal(libc::SIGTERM);
    let status = victim.served.group.wait_within(12 * EXIT_MAX).map_err(|error| error.to_string())?;
    let Some(status) = status else {
        return Err(format!("no exit within {} s of SIGTERM", start.elapsed().as_secs()));
    };
    let words = within("exit after", start.elapsed(), EXIT_MAX)?;
    if status.success() { Ok(words) } else { Err(format!("{words}: {status}")) }
}

fn drain_large(ground: &Ground) -> Finding {
    let (mut victim, profiles) = deep_server(ground, "drain-large-recording")?;
    let bytes = record_large(&victim, &profiles, DRAINED_BYTES)?;
    let words = terminate(&mut victim).map_err(|why| format!("{} MB: {why}", bytes / 1_000_000))?;
    let recording = files(&profiles, ".vtr").pop().ok_or("the recording is gone")?;
    let mut stats = ground.vitrum(["profile", "stats", "--report", "completeness"]);
    let output = stats.arg(&recording).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.stdout.is_empty() || said.contains("cut off") {
        return Err(format!("{words}; the recording: {}", last_line(&said)));
    }
    Ok(format!("{} MB; {words}", bytes / 1_000_000))
}

fn render_large(ground: &Ground) -> Finding {
    let (mut victim, profiles) = deep_server(ground, "render-large-recording")?;
    let bytes = record_large(&victim, &profiles, RENDERED_BYTES)?;
    let before = victim.peak_mb();
    let start = Instant::now();
    let watch = Watch::begin(victim.address());
    let headers = format!("Host: {}\r\n", victim.address());
    let stop = http::request("POST", "/stop_profile", &headers, b"");
    let stopped = http::send(victim.address(), &stop, RENDER_MAX);
    let took = start.elapsed();
    let health = watch.end(HEALTH_MAX);
    victim.is_running()?;
    let is_rendered = stopped.as_ref().is_ok_and(|answer| answer.status == 200);
    let status = stopped.map_or_else(|error| error, |answer| format!("HTTP {}", answer.status));
    let more = victim.peak_mb().saturating_sub(before);
    let words = format!(
        "{} MB in {:.1} s: {status}; {more} MB more memory than the {before} MB of recording",
        bytes / 1_000_000,
        took.as_secs_f64(),
    );
    let health = health.map_err(|why| format!("{words}; {why}"))?;
    let words = format!("{words}; {health}");
    if is_rendered && more <= RENDER_MB_MAX { Ok(words) } else { Err(words) }
}

fn fifo(ground: &Ground) -> Finding {
    let (mut victim, profiles) = deep_server(ground, "recording-is-a-fifo")?;
    expect(&victim.post("/start_profile", "")?, &[200])?;
    victim.serves()?;
    let recording = files(&profiles, ".vtr").pop().ok_or("no recording was made")?;
    fs::remove_file(&recording).map_err(|error| error.to_string())?;
    process::output("mkfifo", Command::new("mkfifo").arg(&recording))?;
    let start = Instant::now();
    let stopped = victim.post("/stop_profile", "");
    let stopped = stopped.map_or_else(|error| error, |answer| format!("HTTP {}", answer.status));
    let took = within(&format!("stop: {stopped},"), start.elapsed(), Duration::from_secs(10));
    victim.is_running()?;
    let health = victim.health();
    let ended = terminate(&mut victim);
    health?;
    match (took, ended) {
        (Ok(took), Ok(ended)) if stopped.starts_with("HTTP") => Ok(format!("{took}; {ended}")),
        (took, ended) => Err([took, ended].map(|found| found.unwrap_or_else(|why| why)).join("; ")),
    }
}

fn no_room(ground: &Ground) -> Finding {
    let folder = ground.folder("recording-has-no-room")?;
    let profiles = folder.join("profiles");
    fs::create_dir(&profiles).map_err(|error| error.to_string())?;
    let mut command = Command::new("sh");
    // In blocks of 512 bytes or of 1 KiB, as the shell has it.
    command.args(["-c", "ulimit -f 1024; exec \"$0\" \"$@\""]).arg(&ground.binary).args(["serve", "--load-format"]);
    command.args(["dummy", "--device", "null", "--port", "0"]).arg(&ground.deep);
    command.args(["--drain-timeout-sec", DRAIN_SEC, "--profile-dir"]).arg(&profiles);
    let mut victim = Victim::start(command, folder)?;
    expect(&victim.post("/start_profile", "")?, &[200])?;
    let body = json!({"prompt": [3, 4], "max_tokens": 100, "ignore_eos": true}).to_string();
    for _ in 0..20 {
        let answer = victim.post("/v1/completions", &body);
        victim.is_running()?;
        expect(&answer?, &[200])?;
    }
    let stopped = victim.post("/stop_profile", "")?;
    victim.is_running()?;
    let answer: Value = serde_json::from_str(&stopped.body).map_err(|error| format!("/stop_profile: {error}"))?;
    victim.serves()?;
    let error = answer["write_error"].as_str().or(answer["error"]["message"].as_str()).unwrap_or_default().to_owned();
    let ended = terminate(&mut victim)?;
    if error.is_empty() { Err(format!("no error named: {answer}")) } else { Ok(format!("{error}; {ended}")) }
}
