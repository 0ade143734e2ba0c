//! What rendering a recording takes, by its length: time, and the most memory that `vitrum profile export` had.
//!
//! `cargo bench --bench render --features profiling [-- [--into FOLDER] NODES …]`; 1 and 3 million node times unless
//! others are given. 100 million are a recording of 2.5 GB. In a FOLDER that is given recordings stay, for other
//! builds to render.

#[path = "../tests/trace/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vitrum::trace::record::Recorder;
use vitrum::trace::session::{SessionOptions, SpoolSummary};

use self::synthetic::{Plan, header, options, play};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let into = arguments.iter().position(|argument| argument == "--into").and_then(|at| arguments.get(at + 1));
    let counts: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1_000_000, 3_000_000] } else { counts };
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("render-bench-{}", std::process::id()));
    let folder = into.map_or_else(|| own.clone(), PathBuf::from);
    std::fs::create_dir_all(&folder).expect("a folder for the bench");
    for nodes in counts {
        let (summary, stop) = record(&folder, nodes);
        let size = summary.bytes as f64 / 1e6;
        println!("{} node times, {size:.1} MB; on the disk {:.1} ms behind its end", summary.received, ms(stop));
        render(&summary.path, summary.received);
        if into.is_none() {
            std::fs::remove_file(&summary.path).expect("the recording");
        }
    }
    if into.is_none() {
        std::fs::remove_dir_all(own).expect("the folder");
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Steps of SmolLM2-135M's graphs, 153 nodes each.
fn record(folder: &Path, nodes: u64) -> (SpoolSummary, Duration) {
    let plan = Plan { layers: 30, rest: Duration::from_millis(2), ..Plan::default() };
    let plan = Plan { steps: nodes / plan.step_nodes(), ..plan };
    let options = SessionOptions { max_bytes: 64 << 30, ..options(folder) };
    let graphs = plan.graphs();
    let mut recorder = Recorder::start(&options, &header(), &graphs.each_ref()).expect("a recorder");
    let expected = play(&plan, &mut recorder);
    let stop = Instant::now();
    let summary = recorder.stop(expected).expect("a summary");
    assert!(summary.is_complete(), "{summary:?}");
    (summary, stop.elapsed())
}

fn render(recording: &Path, nodes: u64) {
    let out = recording.with_extension("pt.trace.json.gz");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.args(["profile", "export", "-o"]).arg(&out).arg(recording).stdout(Stdio::null());
    let begin = Instant::now();
    let mut process = command.spawn().expect("it starts");
    let status = format!("/proc/{}/status", process.id());
    let mut peak_kib = 0_u64;
    let ended = loop {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        if let Some(ended) = process.try_wait().expect("it is this process's") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success(), "{ended}");
    let (seconds, bytes) = (begin.elapsed().as_secs_f64(), out.metadata().expect("the trace").len());
    println!(
        "  rendered in {seconds:.2} s ({:.2} s for a million), {:.1} MB; {:.1} MB of memory at the most",
        seconds * 1e6 / nodes as f64,
        bytes as f64 / 1e6,
        peak_kib as f64 * 1024.0 / 1e6
    );
    std::fs::remove_file(out).expect("the trace");
}
