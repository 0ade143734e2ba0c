//! A server that a task started, and the load that it puts on one.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{self, Group};
use crate::tree;

/// Fetching a model may be part of the start.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// What the server prints when it is ready.
const LISTENING: &str = "listening on ";

/// A server, ended when dropped.
pub(crate) struct Served {
    pub(crate) group: Group,
    pub(crate) url: String,
}

impl Served {
    /// Runs the command of a server, its output into `log`, and waits until it listens.
    pub(crate) fn start(command: Command, log: &Path) -> Result<Served, String> {
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let program = command.get_program().to_owned();
        let mut group = Group::spawn(command, file).map_err(|error| format!("{}: {error}", program.display()))?;
        let url = |line: &str| {
            let url = line.split_once(LISTENING)?.1.split_whitespace().next()?;
            Some(url.trim_end_matches('/').to_owned())
        };
        let waiting = |time: Duration| eprintln!("  waiting for the server, {} s", time.as_secs());
        match group.line(START_TIMEOUT, url, waiting) {
            Some(url) => Ok(Served { group, url }),
            None => {
                let what = match group.ended() {
                    Ok(Some(status)) => format!("the server ended with {status}"),
                    _ => format!("no line with `{LISTENING}URL` within {} s", START_TIMEOUT.as_secs()),
                };
                group.end().ok(); // so that its last lines are read
                Err(format!("{what}; its last lines ({}):\n{}", log.display(), group.tail()))
            }
        }
    }
}

/// Loads a server with `vitrum bench serve` and gives its figures, which stay in `file`. No request may fail.
pub(crate) fn load(url: &str, file: &Path, flags: &[(&str, usize)]) -> Result<Value, String> {
    let mut command = Command::new(tree::vitrum());
    command.args(["bench", "serve", "--base-url", url, "--disable-tqdm", "--save-result", "--result-filename"]);
    command.arg(file.file_name().unwrap_or_default());
    command.arg("--result-dir").arg(file.parent().unwrap_or(Path::new(".")));
    for (flag, value) in flags {
        command.args([flag, value.to_string().as_str()]);
    }
    let log = file.with_extension("log");
    let log_file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    process::run("vitrum bench serve", command, log_file)?;
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let figures: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    match figures["failed"].as_u64() {
        Some(0) => Ok(figures),
        failed => Err(format!("{failed:?} requests failed: see {}", log.display())),
    }
}
