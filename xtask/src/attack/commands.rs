//! Every other command with an output that cannot be written.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::logs::Sink;
use super::victim::{Ground, Victim, expect, files};
use super::{Attack, Finding};
use crate::process::Group;

const COMMAND_MAX: Duration = Duration::from_secs(60);

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "output-closed-pipe",
            "standard output, then standard error, of every other command is a closed pipe",
            "exit 0, the work done",
            |ground| every_command(ground, Sink::Closed),
        ),
        Attack::new(
            "output-full-disk",
            "standard output, then standard error, of every other command is `/dev/full`",
            "exit 1 and a word on standard error; with standard error so, exit 0",
            |ground| every_command(ground, Sink::Full),
        ),
    ]
}

/// A command's arguments.
struct Line {
    args: Vec<OsString>,
}

impl Line {
    /// Words, with `@M` for the tiny model, `@C` for the config, `@V` and `@W` for recordings, `@U` for a server's URL
    /// and `@F/merged.json.gz` for a file to write.
    fn new(words: &str, paths: &[(&str, &Path)]) -> Line {
        let word = |word: &str| match paths.iter().find(|(name, _)| *name == word) {
            Some((_, path)) => path.as_os_str().to_owned(),
            None => word.into(),
        };
        Line { args: words.split(' ').map(word).collect() }
    }

    fn name(&self) -> String {
        let words = self.args.iter().map(|word| word.to_string_lossy().into_owned());
        words
            .take_while(|word| !word.starts_with(['-', '/']) && !word.starts_with("http"))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

const LINES: [&str; 22] = [
    "--help",
    "--version",
    "generate @M -p hello --max-tokens 8 --ignore-eos",
    "graph @M --bucket 1",
    "graph @M --json",
    "doctor --questions",
    "doctor --questions --json",
    "bench latency @C --load-format dummy --device null --batch-size 1 --input-len 4 --output-len 2 --num-iters 1 \
     --num-iters-warmup 1",
    "bench serve --base-url @U --prompt-token-ids --num-prompts 2 --input-len 4 --output-len 2",
    "profile start --url @U",
    "profile status --url @U",
    "profile sessions --url @U",
    "profile stop --url @U",
    "profile top --url @U",
    "profile stats @V",
    "profile stats @V --format json",
    "profile export @V",
    "profile export @V --format speedscope",
    "profile export @V --format sqlite",
    "profile report @V",
    "profile diff @V @V",
    "profile merge @V @W --output @F/merged.json.gz",
];

fn every_command(ground: &Ground, sink: Sink) -> Finding {
    let name = if sink == Sink::Closed { "output-closed-pipe" } else { "output-full-disk" };
    let folder = ground.folder(name)?;
    let profiles = folder.to_string_lossy().into_owned();
    let flags = ["--profile-dir", &profiles, "--profile-sample", "1"];
    let victim = Victim::start(ground.serve_tiny(0, &flags), folder.clone())?;
    let (recording, other) = (record(&victim)?, record(&victim)?);
    let url = PathBuf::from(&victim.served.url);
    let merged = folder.join("merged.json.gz");
    let paths: [(&str, &Path); 6] = [
        ("@M", &ground.tiny),
        ("@C", &ground.deep),
        ("@V", &recording),
        ("@W", &other),
        ("@U", &url),
        ("@F/merged.json.gz", &merged),
    ];
    let lines = LINES.map(|words| Line::new(words, &paths));
    // As they are: which print on standard output, and that each has nothing to fail of.
    let prints = lines.iter().map(|line| plain(ground, line)).collect::<Result<Vec<bool>, String>>()?;
    let (mut wrong, mut count) = (Vec::new(), 0);
    for broken in ["stdout", "stderr"] {
        for (line, prints) in lines.iter().zip(&prints) {
            let wanted = i32::from(sink == Sink::Full && broken == "stdout" && *prints);
            count += 1;
            if let Err(why) = broken_run(ground, line, sink, broken, wanted) {
                wrong.push(format!("{} ({broken}): {why}", line.name()));
            }
        }
    }
    victim.serves()?;
    let words = format!("{} of {count} right", count - wrong.len());
    if wrong.is_empty() { Ok(words) } else { Err(format!("{words}; {}", wrong.join("; "))) }
}

/// A small recording.
fn record(victim: &Victim) -> Result<PathBuf, String> {
    expect(&victim.post("/start_profile", "")?, &[200])?;
    victim.serves()?;
    expect(&victim.post("/stop_profile", "")?, &[200])?;
    files(&victim.folder, ".vtr").pop().ok_or("no recording was made".into())
}

/// Runs a command as it is; whether it prints on standard output.
fn plain(ground: &Ground, line: &Line) -> Result<bool, String> {
    let output = ground.vitrum(&line.args).output().map_err(|error| error.to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(!output.stdout.is_empty())
    } else {
        Err(format!("{} as it is: {}: {}", line.name(), output.status, errors.trim_end()))
    }
}

/// Runs a command with one of its outputs broken.
fn broken_run(ground: &Ground, line: &Line, sink: Sink, broken: &str, wanted: i32) -> Result<(), String> {
    let mut command = ground.vitrum(&line.args);
    let (output, _held) = sink.open().map_err(|error| error.to_string())?;
    if broken == "stdout" {
        command.stdout(output).stderr(Stdio::piped());
    } else {
        command.stderr(output).stdout(Stdio::piped());
    }
    let mut group = Group::spawn_as_is(command, io::sink()).map_err(|error| error.to_string())?;
    let Some(status) = group.wait_within(COMMAND_MAX).map_err(|error| error.to_string())? else {
        return Err(format!("not over in {} s", COMMAND_MAX.as_secs()));
    };
    group.wait().map_err(|error| error.to_string())?; // its output is read
    let said = group.tail();
    match status.code() {
        Some(code) if code == wanted && (wanted == 0 || !said.trim().is_empty()) => Ok(()),
        Some(code) if code == wanted => Err(format!("exit {code} without a word")),
        _ => Err(status.to_string()),
    }
}
