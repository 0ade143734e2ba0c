//! `vitrum serve` as users run it: a process of its own on a free port, killed when dropped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Reply, get, post};
use super::temp::TempDir;
use super::tiny_model::TinyModel;

/// Long, since machines are shared: only what hangs takes as long.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A server that answers.
pub struct Server {
    child: Child,
    /// It was asked to end.
    is_ended: bool,
    pub address: SocketAddr,
    /// Holds the log, and whatever a test puts there.
    pub folder: TempDir,
}

impl Server {
    /// Serves a model file.
    pub fn start(model: &Path, flags: &[&str]) -> Server {
        Server::start_in(TempDir::new(), model, flags)
    }

    /// Serves a model of some kilobytes, whose context has room for long answers.
    pub fn tiny(flags: &[&str]) -> Server {
        let folder = TempDir::new();
        let model = TinyModel { max_position: TINY_MODEL_LEN, ..TinyModel::default() }.write(&folder);
        // One worker: there is no work for more, and tests run beside each other.
        Server::start_in(folder, &model, &[&["--threads", "1"], flags].concat())
    }

    pub fn start_in(folder: TempDir, model: &Path, flags: &[&str]) -> Server {
        // The CPU, also where there is a GPU.
        let is_chosen = flags.iter().any(|flag| flag.starts_with("--device"));
        let device: &[&str] = if is_chosen { &[] } else { &["--device", "cpu"] };
        let mut command = vitrum(["serve", "--port", "0"].map(OsStr::new));
        command.arg(model).args(device).args(flags);
        Server::spawn(folder, command)
    }

    /// Runs the command of a server.
    pub fn spawn(folder: TempDir, mut command: Command) -> Server {
        let log = std::fs::File::create(log_path(&folder)).expect("a log file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, address) = mpsc::channel();
        // Reads to the end, so that the server never writes into a closed pipe.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    let _ = sender.send(address.parse().expect("an address"));
                }
            }
        });
        let address = address.recv_timeout(TIMEOUT);
        let mut server = Server { child, is_ended: false, address: ([0, 0, 0, 0], 0).into(), folder };
        server.address = address.unwrap_or_else(|_| panic!("the server did not start"));
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The log, which has to get these words: a thread of its own writes it, so a line may come after the answer that
    /// it is about.
    pub fn log_with(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if log.contains(words) {
                return log;
            }
            assert!(start.elapsed() < TIMEOUT, "{words:?} is not in\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.folder)).expect("the log")
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> Reply {
        post(self.address, path, body).await
    }

    /// A good request is answered.
    pub async fn assert_answers(&self) {
        let body = json!({"prompt": [65, 66], "max_tokens": 2, "temperature": 0, "ignore_eos": true});
        let reply = self.post("/v1/completions", body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["usage"]["completion_tokens"], 2);
    }

    /// Answers under way.
    pub async fn load(&self) -> u64 {
        get(self.address, "/load").await.json()["server_load"].as_u64().expect("a number")
    }

    /// The sum of a metric's lines that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let reply = get(self.address, "/metrics").await;
        let start = format!("{name}{{");
        let lines = reply.text().lines().filter(|line| line.starts_with(&start) && line.contains(labels));
        let values: Vec<f64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name} with {labels}: {}", reply.text());
        values.iter().sum()
    }

    /// Sequences that the engine has in its steps.
    pub async fn running(&self) -> f64 {
        self.metric("vllm:num_requests_running", "").await
    }
}

impl Server {
    /// Asks it to end, which it does; gives its log.
    pub fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(sent.success());
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }

    /// Waits for its end, by itself.
    pub fn end(mut self) -> (ExitStatus, String) {
        (self.wait(), self.log())
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("it was started") {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(start.elapsed() < TIMEOUT, "it does not end");
        };
        self.is_ended = true;
        status
    }
}

/// Room of the model of [`Server::tiny`], in tokens.
pub const TINY_MODEL_LEN: usize = 16384;

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{log}");
        } else {
            assert_eq!(ended.is_some(), self.is_ended, "the server ended by itself:\n{log}");
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

fn log_path(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

/// The binary with arguments, in an environment without the variables that it reads.
pub fn vitrum<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.args(args).stdin(Stdio::null());
    ["VITRUM_CACHE_DIR", "VITRUM_LOG", "VITRUM_PROFILE_DIR"].iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// How a command ended that was to end by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub after: Duration,
}

/// Runs a command to its end, or kills it after `limit`: then there is no code.
pub fn run_within(mut command: Command, limit: Duration) -> Ended {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let err = std::thread::spawn(move || read(&mut stderr));
    let (sender, output) = mpsc::channel();
    std::thread::spawn(move || sender.send(read(&mut stdout)));
    // A process that ends closes its pipes.
    let stdout = output.recv_timeout(limit);
    let after = start.elapsed();
    if stdout.is_err() {
        let _ = child.kill();
    }
    let code = child.wait().expect("it was started").code();
    let stdout = stdout.unwrap_or_default();
    Ended { code, stdout, stderr: err.join().expect("it only reads"), after }
}

fn read(pipe: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("a readable pipe");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The message of an error, after a look at its status and at the parameter that it names.
pub fn error_message(reply: &Reply, status: u16, param: &Value, request: &str) -> String {
    let shown: String = request.chars().take(200).collect();
    assert_eq!(reply.status, status, "{shown} → {}", reply.text());
    let answer = reply.json();
    assert_eq!(answer["error"]["param"], *param, "{shown} → {answer}");
    answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{shown} → {answer}")).to_owned()
}
