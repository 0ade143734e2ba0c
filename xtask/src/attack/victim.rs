//! The server under attack, and what is measured of it from outside.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::gguf::Gguf;
use super::write;
use crate::http::{self, Answer};
use crate::served::Served;
use crate::tree;

/// How long anything that is answered at all may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a line may take to the log.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Shape without a vocabulary: a step has 802 nodes, so that recordings grow fast.
const DEEP_CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 200, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 16384, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// What all attacks use: the program, and a folder for everything that is written.
pub(super) struct Ground {
    pub(super) binary: PathBuf,
    folder: PathBuf,
    /// A model of some kilobytes, with a tokenizer.
    pub(super) tiny: PathBuf,
    /// A config.json for random weights.
    pub(super) deep: PathBuf,
}

impl Ground {
    pub(super) fn new(binary: PathBuf) -> Result<Ground, String> {
        let folder = tree::target().join("xtask-attack").join(std::process::id().to_string());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        let (tiny, deep) = (folder.join("tiny.gguf"), folder.join("config.json"));
        write(&tiny, Gguf::new().bytes())?;
        write(&deep, DEEP_CONFIG)?;
        Ok(Ground { binary, folder, tiny, deep })
    }

    /// An empty folder of an attack.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    /// Removes all files.
    pub(super) fn clear(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }

    pub(super) fn vitrum<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env_remove("VITRUM_PROFILE_DIR").env("RUST_BACKTRACE", "0");
        command
    }

    /// The command of a server of the tiny model on a port.
    pub(super) fn serve_tiny(&self, port: u16, flags: &[&str]) -> Command {
        let mut command = self.vitrum(["serve", "--device", "cpu", "--threads", "1", "--port", &port.to_string()]);
        command.arg(&self.tiny).args(flags);
        command
    }

    /// A server of the tiny model.
    pub(super) fn tiny_server(&self, name: &str, flags: &[&str]) -> Result<Victim, String> {
        Victim::start(self.serve_tiny(0, flags), self.folder(name)?)
    }

    /// A server of SmolLM2-135M, on all cores.
    pub(super) fn real_server(&self, name: &str, flags: &[&str]) -> Result<Victim, String> {
        let mut command = self.vitrum(["serve", "smollm2", "--device", "cpu", "--port", "0"]);
        command.args(flags);
        Victim::start(command, self.folder(name)?)
    }
}

/// A port that was free a moment ago, for servers whose output cannot say which they took.
pub(super) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// A server under attack, ended when dropped.
pub(super) struct Victim {
    pub(super) served: Served,
    pub(super) folder: PathBuf,
}

impl Victim {
    pub(super) fn start(command: Command, folder: PathBuf) -> Result<Victim, String> {
        let served = Served::start(command, &folder.join("server.log"))?;
        Ok(Victim { served, folder })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        http::authority(&self.served.url).expect("a server prints a URL that begins with http://")
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send("GET", path, "", b"")
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Result<Answer, String> {
        self.send("POST", path, "", body.as_bytes())
    }

    /// `headers` are whole lines beside Host.
    pub(super) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer, String> {
        let headers = format!("Host: {}\r\n{headers}", self.address());
        let request = http::request(method, path, &headers, body);
        http::send(self.address(), &request, ANSWER_TIMEOUT).map_err(|error| format!("{method} {path}: {error}"))
    }

    /// How long `GET /health` takes; it has to be 200.
    pub(super) fn health(&self) -> Result<Duration, String> {
        let start = Instant::now();
        expect(&self.get("/health")?, &[200]).map(|_| start.elapsed())
    }

    /// A short request is answered; the server serves on.
    pub(super) fn serves(&self) -> Result<(), String> {
        let body = json!({"prompt": [3, 4], "max_tokens": 2, "ignore_eos": true}).to_string();
        expect(&self.post("/v1/completions", &body)?, &[200]).map(|_| ()).map_err(|why| format!("afterwards: {why}"))
    }

    /// Answers under way.
    pub(super) fn load(&self) -> Result<u64, String> {
        let answer = self.get("/load")?;
        let load: serde_json::Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        load["server_load"].as_u64().ok_or(format!("/load: {}", answer.body))
    }

    /// The log, once a line of it has all these words: a thread of its own writes it, so a line may come after the
    /// answer that it is about. After [`LOG_TIMEOUT`] what there is.
    pub(super) fn log_with(&self, words: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            let is_there = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if is_there || start.elapsed() > LOG_TIMEOUT {
                return log;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        fs::read(self.folder.join("server.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The most memory that the server has had, in MB.
    pub(super) fn peak_mb(&self) -> u64 {
        status(self.served.group.id(), "VmHWM:") / 1000
    }

    /// Sockets that the server has open, the one that listens among them.
    pub(super) fn connections(&self) -> Result<usize, String> {
        let path = format!("/proc/{}/fd", self.served.group.id());
        let entries = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?.flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    }

    /// Seconds of processor time that the server has used.
    pub(super) fn cpu_seconds(&self) -> f64 {
        /// Of /proc: fixed on Linux, whatever the kernel's own tick.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.served.group.id())).unwrap_or_default();
        // The command's name may have spaces: fields are counted after its closing bracket, from the third.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
    }

    /// What the server ended with, if it has.
    pub(super) fn is_running(&mut self) -> Result<(), String> {
        match self.served.group.ended() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the server ended with {status}: {}", last_line(&self.log()))),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Memory of a process's children now, in MB.
pub(super) fn children_mb(id: u32) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|child| status(*child, "PPid:") == u64::from(id)).map(|child| status(child, "VmRSS:") / 1000).sum()
}

/// A number of /proc/ID/status; 0 where there is none.
fn status(id: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// The answer has one of these statuses.
pub(super) fn expect<'a>(answer: &'a Answer, statuses: &[u16]) -> Result<&'a Answer, String> {
    if statuses.contains(&answer.status) {
        return Ok(answer);
    }
    let shown: String = answer.body.trim().chars().take(160).collect();
    Err(format!("HTTP {} in place of {statuses:?}: {shown}", answer.status))
}

pub(super) fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

/// Files of a folder whose names end so.
pub(super) fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}
