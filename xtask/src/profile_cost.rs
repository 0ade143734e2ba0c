//! `cargo xtask profile-cost`: what recording a server costs: throughput, time to stop, bytes, memory.
//!
//! One server; each load is run with and without a recording in turns, so that both see the same machine. The result is
//! a table in Markdown, for docs/profiling.md.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::compare::median;
use crate::process;
use crate::served::{self, Served};
use crate::{http, tree};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, as `vitrum serve` takes it
    #[arg(long, default_value = "smollm2")]
    model: String,
    /// Requests of each load, all sent at once
    #[arg(long, value_delimiter = ',', default_values_t = [2, 20, 100])]
    num_prompts: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128)]
    input_len: usize,
    /// Tokens of each answer
    #[arg(long, default_value_t = 64)]
    output_len: usize,
    /// Runs of each load with and without a recording
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// More flags for `vitrum serve`
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server_args: String,
}

/// What the runs of one load gave.
#[derive(Default)]
struct Figures {
    /// Output tokens per second.
    off: Vec<f64>,
    on: Vec<f64>,
    /// Milliseconds from the wish to stop to complete files.
    stop_ms: Vec<f64>,
    node_times: Vec<f64>,
    spool_bytes: Vec<f64>,
    trace_bytes: Vec<f64>,
    /// Of the server, so far.
    rss_peak_kib: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if args.rounds == 0 {
        return Err("--rounds is 0, and has to be at least 1".into());
    }
    let build = tree::cargo(&["build", "--release", "-p", "vitrum", "--bin", "vitrum", "--features", "profiling"]);
    process::run("cargo build", build, io::stderr())?;
    let out = tree::target().join("vitrum-profile-cost");
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut server = Server::start(args, &out)?;
    server.load(args, 4)?;
    server.record(args, 2)?; // the first recording measures the device
    println!(
        "| requests | tok/s without | tok/s recorded | ratio | stop and files, ms | node times | recording, MB | \
         trace, MB | peak RSS of the server, MB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for num_prompts in &args.num_prompts {
        let figures = server.compare(args, *num_prompts)?;
        println!("{}", row(*num_prompts, figures));
    }
    let status = server.served.group.end()?;
    if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
}

fn row(num_prompts: usize, mut figures: Figures) -> String {
    let ratios: Vec<f64> = figures.on.iter().zip(&figures.off).map(|(on, off)| on / off).collect();
    let low = ratios.iter().copied().fold(f64::MAX, f64::min);
    let high = ratios.iter().copied().fold(f64::MIN, f64::max);
    format!(
        "| {num_prompts} | {:.0} | {:.0} | {:.3} ({low:.2} to {high:.2}) | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} |",
        median(&mut figures.off),
        median(&mut figures.on),
        median(&mut ratios.clone()),
        median(&mut figures.stop_ms),
        median(&mut figures.node_times),
        median(&mut figures.spool_bytes) / 1e6,
        median(&mut figures.trace_bytes) / 1e6,
        figures.rss_peak_kib as f64 * 1024.0 / 1e6,
    )
}

struct Server {
    served: Served,
    out: PathBuf,
}

impl Server {
    fn start(args: &Args, out: &Path) -> Result<Server, String> {
        let mut command = Command::new(tree::vitrum());
        command.args(["serve", &args.model, "--port", "0", "--profile-dir"]).arg(out);
        command.args(args.server_args.split_whitespace());
        Ok(Server { served: Served::start(command, &out.join("server.log"))?, out: out.to_owned() })
    }

    /// Both ways in turns, the first way changing.
    fn compare(&mut self, args: &Args, num_prompts: usize) -> Result<Figures, String> {
        let mut figures = Figures::default();
        for round in 0..args.rounds {
            eprintln!("{num_prompts} requests, round {} of {}", round + 1, args.rounds);
            for is_recorded in if round % 2 == 0 { [false, true] } else { [true, false] } {
                if !is_recorded {
                    figures.off.push(self.load(args, num_prompts)?);
                    continue;
                }
                let (rate, stop_ms, stopped) = self.record(args, num_prompts)?;
                figures.on.push(rate);
                figures.stop_ms.push(stop_ms);
                figures.node_times.push(stopped["received"].as_f64().unwrap_or(0.0));
                for file in stopped["files"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let bytes = fs::metadata(file).map_err(|error| format!("{file}: {error}"))?.len() as f64;
                    let sizes =
                        if file.ends_with(".vtr") { &mut figures.spool_bytes } else { &mut figures.trace_bytes };
                    sizes.push(bytes);
                    fs::remove_file(file).ok(); // the next one takes its place
                }
            }
        }
        figures.rss_peak_kib = self.rss_peak_kib()?;
        Ok(figures)
    }

    /// Loads the server: output tokens per second.
    fn load(&self, args: &Args, num_prompts: usize) -> Result<f64, String> {
        let flags =
            [("--num-prompts", num_prompts), ("--input-len", args.input_len), ("--output-len", args.output_len)];
        let figures = served::load(&self.served.url, &self.out.join("load.json"), &flags)?;
        figures["output_throughput"].as_f64().ok_or_else(|| format!("no output_throughput: {figures}"))
    }

    /// The same while recording: output tokens per second, milliseconds to complete files, the answer of the stop.
    fn record(&self, args: &Args, num_prompts: usize) -> Result<(f64, f64, Value), String> {
        http::post(&self.served.url, "/start_profile", "")?;
        let rate = self.load(args, num_prompts);
        let stop = Instant::now();
        let stopped = http::post(&self.served.url, "/stop_profile", "")?;
        let stop_ms = stop.elapsed().as_secs_f64() * 1e3;
        let stopped: Value = serde_json::from_str(&stopped).map_err(|error| format!("/stop_profile: {error}"))?;
        if stopped["complete"] != true {
            return Err(format!("the recording is not complete: {stopped}"));
        }
        Ok((rate?, stop_ms, stopped))
    }

    fn rss_peak_kib(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.served.group.id());
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        number.ok_or_else(|| format!("{path} has no VmHWM"))
    }
}
