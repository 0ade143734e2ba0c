//! `cargo xtask profile-serve`: from a checkout to a profile of a server under load, in one command.
//!
//! build → serve → warm up → record under load → print tables, write a page → record again with recording switched on
//! and off at random, to know what recording costs. The server is ended however this ends.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::process::{self, Group, output};
use crate::served::{self, Served};
use crate::summary::{self, Summary};
use crate::{http, software_gpu, tree};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, as `vitrum serve` takes it
    #[arg(long, default_value = "smollm2")]
    model: String,
    /// Requests under the recording
    #[arg(long, default_value_t = 20)]
    num_prompts: usize,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128)]
    input_len: usize,
    /// Tokens of each answer
    #[arg(long, default_value_t = 64)]
    output_len: usize,
    /// Requests at once
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// The device of the server: auto, cpu, cuda or null, as `vitrum serve` takes it
    #[arg(long, default_value = "auto")]
    device: String,
    /// Serve on a GPU in software, which tests/softcuda is, in place of one: its times say nothing about a GPU
    #[arg(long, conflicts_with = "device")]
    software_gpu: bool,
    /// What times the nodes: stamps, cupti or both, as `vitrum serve` takes it [default: what it takes by itself]
    #[arg(long, value_name = "SOURCE")]
    trace_source: Option<String>,
    /// A server that runs already (built with feature `profiling`, on this machine) in place of a new one
    #[arg(long, conflicts_with_all = ["model", "server_args", "device", "software_gpu", "trace_source"])]
    url: Option<String>,
    /// More cargo features for the build
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// More flags for `vitrum serve`, e.g. --server-args="--threads 2"; with --server-args="--load-format dummy" the
    /// model is a config.json
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server_args: String,
    /// The folder for everything that this writes [default: target/vitrum-profile/TIME]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave out the second recording, which measures what recording costs
    #[arg(long)]
    no_perturbation: bool,
    /// Print one JSON object on standard output instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let out = args.out.clone().unwrap_or_else(|| tree::target().join("vitrum-profile").join(unix_seconds()));
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let out = out.canonicalize()?;
    let mut session = Session { args, out, server: None, url: String::new(), parts: Vec::new() };
    let summary = session.profile().map_err(|error| session.explain(&error))?;
    let json = format!("{:#}\n", summary.json());
    let path = session.out.join("summary.json");
    fs::write(&path, &json).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut stdout = io::stdout().lock();
    if args.json {
        stdout.write_all(json.as_bytes())?;
    } else {
        write!(stdout, "{}", summary.text())?;
    }
    Ok(summary.verdict()?)
}

fn unix_seconds() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string()
}

/// What is under way.
struct Session<'a> {
    args: &'a Args,
    out: PathBuf,
    server: Option<Group>,
    url: String,
    /// What each part took.
    parts: Vec<(&'static str, f64)>,
}

impl Session<'_> {
    fn profile(&mut self) -> Result<Summary, String> {
        self.timed("build", Self::build)?;
        self.timed("start", Self::start)?;
        self.timed("warm up", |session| session.load("warm-up.json", session.args.concurrency).map(drop))?;
        let (load, recording) = self.timed("record", |session| session.record("recording", "{}", "load.json"))?;
        let spool = spool(&recording)?;
        let tables = self.timed("tables", |session| session.tables(&spool))?;
        let page = self.timed("page", |_| page(&spool))?;
        let perturbation = match self.args.no_perturbation {
            true => None,
            false => Some(self.timed("perturbation", Self::perturbation)?),
        };
        if let Some(mut server) = self.server.take() {
            let status = self.timed("stop", |_| server.end().map_err(|error| error.to_string()))?;
            if !status.success() {
                return Err(format!("stop: the server ended with {status}:\n{}", server.tail()));
            }
        }
        Ok(Summary {
            model: self.args.url.clone().unwrap_or_else(|| self.args.model.clone()),
            out: self.out.clone(),
            software_gpu: self.args.software_gpu,
            load,
            recording,
            tables,
            page,
            perturbation,
            parts: self.parts.clone(),
        })
    }

    /// Runs a part, and says which one failed.
    fn timed<T>(&mut self, part: &'static str, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        eprintln!("[{part}]");
        let start = Instant::now();
        let result = work(self).map_err(|error| format!("{part}: {error}"))?;
        self.parts.push((part, start.elapsed().as_secs_f64()));
        Ok(result)
    }

    /// An error with what the server said last.
    fn explain(&mut self, error: &str) -> String {
        let Some(mut server) = self.server.take() else { return error.to_owned() };
        let state = match server.ended() {
            Ok(Some(status)) => format!("the server ended with {status}"),
            _ => "the server was running".to_owned(),
        };
        server.end().ok(); // so that its last lines are read; dropping it says if this failed
        let log = self.out.join("server.log");
        format!("{error}\n{state}; its last lines ({}):\n{}", log.display(), server.tail())
    }

    fn build(&mut self) -> Result<(), String> {
        let features = std::iter::once("profiling").chain(self.args.features.iter().map(String::as_str));
        let features = features.collect::<Vec<_>>().join(",");
        let build = tree::cargo(&["build", "--release", "-p", "vitrum", "--bin", "vitrum", "--features", &features]);
        process::run("cargo build", build, io::stderr())?;
        if self.args.software_gpu { software_gpu::build(io::stderr()) } else { Ok(()) }
    }

    fn start(&mut self) -> Result<(), String> {
        if let Some(url) = &self.args.url {
            self.url = url.trim_end_matches('/').to_owned();
            return http::get(&self.url, "/health").map(drop);
        }
        let mut command = Command::new(tree::vitrum());
        // A server that does not find the software GPU must not serve on the CPU instead.
        let device = if self.args.software_gpu { "cuda" } else { self.args.device.as_str() };
        command.args(["serve", &self.args.model, "--device", device, "--port", "0", "--profile-dir"]);
        command.arg(&self.out);
        if self.args.software_gpu {
            software_gpu::on(&mut command)?;
        }
        if let Some(source) = &self.args.trace_source {
            command.args(["--trace-source", source]);
        }
        command.args(self.args.server_args.split_whitespace());
        let Served { group, url } = Served::start(command, &self.out.join("server.log"))?;
        (self.server, self.url) = (Some(group), url);
        http::get(&self.url, "/health").map(drop)
    }

    /// Loads the server and returns the load generator's figures.
    fn load(&mut self, file: &str, num_prompts: usize) -> Result<Value, String> {
        let flags = [
            ("--num-prompts", num_prompts),
            ("--input-len", self.args.input_len),
            ("--output-len", self.args.output_len),
            ("--max-concurrency", self.args.concurrency),
        ];
        served::load(&self.url, &self.out.join(file), &flags)
    }

    /// Records a run of the load, with the server's own counts before and after.
    fn record(&mut self, prefix: &str, options: &str, file: &str) -> Result<(Value, Value), String> {
        let mut body: Value = serde_json::from_str(options).map_err(|error| error.to_string())?;
        body["profile_prefix"] = prefix.into();
        self.scrape(&format!("{prefix}.before.txt"))?;
        http::post(&self.url, "/start_profile", &body.to_string())?;
        let load = self.load(file, self.args.num_prompts);
        let stopped = http::post(&self.url, "/stop_profile", "");
        let load = load?; // after the stop: a failed load must not leave a recording behind
        self.scrape(&format!("{prefix}.after.txt"))?;
        let recording = serde_json::from_str(&stopped?).map_err(|error| format!("/stop_profile: {error}"))?;
        Ok((load, recording))
    }

    fn scrape(&self, file: &str) -> Result<(), String> {
        let path = self.out.join(file);
        fs::write(&path, http::get(&self.url, "/metrics")?).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn tables(&self, spool: &Path) -> Result<summary::Tables, String> {
        let text = stats(spool, &[])?;
        let path = self.out.join("stats.txt");
        fs::write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
        let all: Value = parse(&stats(spool, &["--format", "json"])?)?;
        let dominates = text.trim_end().lines().last().unwrap_or_default().to_owned();
        Ok(summary::Tables {
            kernels_text: stats(spool, &["--report", "cuda_gpu_kern_sum"])?,
            ops_text: stats(spool, &["--report", "op_sum"])?,
            account_text: stats(spool, &["--report", "account"])?,
            completeness_text: stats(spool, &["--report", "completeness"])?,
            dominates,
            all,
        })
    }

    /// The ratio of step times with and without node recording, from a recording that is switched at random.
    fn perturbation(&mut self) -> Result<Value, String> {
        let (_, recording) = self.record("toggled", r#"{"toggle": true}"#, "toggled-load.json")?;
        let table = parse(&stats(&spool(&recording)?, &["--report", "perturbation", "--format", "json"])?)?;
        Ok(table.get(0).cloned().unwrap_or(Value::Null))
    }
}

/// `vitrum profile stats` with these flags.
fn stats(spool: &Path, flags: &[&str]) -> Result<String, String> {
    let mut command = Command::new(tree::vitrum());
    output("vitrum profile stats", command.args(["profile", "stats"]).arg(spool).args(flags))
}

/// The page that shows the recording, beside it.
fn page(spool: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(tree::vitrum());
    let text = output("vitrum profile report", command.args(["profile", "report"]).arg(spool))?;
    Ok(PathBuf::from(text.trim_end()))
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("vitrum profile stats: {error}"))
}

/// The recording's file, out of the answer of /stop_profile.
fn spool(recording: &Value) -> Result<PathBuf, String> {
    let path = recording["path"].as_str().map(PathBuf::from).ok_or("/stop_profile names no `path`")?;
    if path.exists() { Ok(path) } else { Err(format!("{} is not on this machine", path.display())) }
}
