//! `vitrum bench latency`: how long one batch of equal requests takes, from submission to its last token.
//!
//! What is measured is a [`Workload`], so that this file knows the statistics and not how requests are run. Beside
//! vLLM's figures there are those of the decode steps in the batches: their time, the least that they move, and the
//! share of the device's read peak that this makes.

mod steps;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use thiserror::Error;

use self::steps::DecodeSteps;
use super::stats::Sample;
use crate::engine::StepDone;

/// The percentiles that are printed and saved.
const PERCENTS: [u32; 6] = [10, 25, 50, 75, 90, 99];

/// Measures the latency of one batch, in this process.
#[derive(Args, Clone, Debug)]
pub struct LatencyArgs {
    /// Tokens of each prompt
    #[arg(long, default_value_t = 32)]
    pub input_len: usize,
    /// Tokens to generate for each prompt
    #[arg(long, default_value_t = 128)]
    pub output_len: u32,
    /// Prompts in the batch
    #[arg(long, default_value_t = 8)]
    pub batch_size: usize,
    /// Answers to each prompt
    #[arg(long, default_value_t = 1)]
    pub n: usize,
    /// Batches before the measured ones
    #[arg(long, default_value_t = 10)]
    pub num_iters_warmup: usize,
    /// Measured batches
    #[arg(long, default_value_t = 30)]
    pub num_iters: usize,
    /// Record one batch instead of measuring
    #[arg(long, conflicts_with_all = ["node_table", "output_json"])]
    pub profile: bool,
    /// After the measured batches record one more, and print the time of each layer and op
    #[arg(long)]
    pub node_table: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub output_json: Option<PathBuf>,
    /// As vLLM's flag; here token ids are never turned into text, with or without it
    #[arg(long)]
    pub disable_detokenize: bool,
}

impl LatencyArgs {
    /// Requests of a batch; at the largest number it stops.
    pub fn requests(&self) -> u64 {
        (self.batch_size as u64).saturating_mul(self.n as u64)
    }
}

/// What is measured.
pub trait Workload {
    /// Why it could not go on.
    type Error: std::error::Error;

    /// Runs one batch.
    fn iterate(&mut self) -> Result<Iteration, Self::Error>;

    /// What the device reads at most, GB/s (10⁹ bytes), by a measurement; `None` if it has none.
    fn read_peak_gb_s(&mut self) -> Result<Option<f64>, Self::Error>;

    /// Begins to record.
    fn start_profile(&mut self) -> Result<(), Self::Error>;

    /// Stops recording and says where the recording is.
    fn stop_profile(&mut self) -> Result<PathBuf, Self::Error>;

    /// The times of each layer and op in a recording.
    fn node_table(&mut self, recording: &Path) -> Result<NodeTable, Self::Error>;
}

/// A batch that was run.
#[derive(Clone, Debug, PartialEq)]
pub struct Iteration {
    /// From its submission to its last token.
    pub elapsed: Duration,
    /// Its steps, in order.
    pub steps: Vec<StepDone>,
}

/// What a recording says about nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTable {
    /// To be printed.
    pub text: String,
    /// A list of rows.
    pub rows: Value,
    /// What is missing in the recording, if something is.
    pub shortfall: Option<String>,
}

/// Why a benchmark gave no figures.
#[derive(Debug, Error)]
pub enum LatencyBenchError<E: std::error::Error> {
    /// A flag's value that does not fit.
    #[error("{flag} is 0, and has to be at least 1")]
    Zero {
        /// The flag.
        flag: &'static str,
    },
    /// The batch failed.
    #[error("the batch failed: {0}")]
    Workload(E),
    /// The recording of the node table lacks something.
    #[error("the node table is not complete: {0}")]
    Incomplete(String),
    /// The result could not be printed.
    #[error("could not print the result: {0}")]
    Print(#[from] io::Error),
    /// The result could not be saved.
    #[error("could not write {}: {source}", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// Warms up, measures (or records) and prints.
pub fn run<W: Workload>(
    args: &LatencyArgs,
    workload: &mut W,
    out: &mut dyn Write,
) -> Result<(), LatencyBenchError<W::Error>> {
    check::<W::Error>(args)?;
    writeln!(out, "Warming up...")?;
    for _ in 0..args.num_iters_warmup {
        workload.iterate().map_err(LatencyBenchError::Workload)?;
    }
    if args.profile {
        workload.start_profile().map_err(LatencyBenchError::Workload)?;
        workload.iterate().map_err(LatencyBenchError::Workload)?;
        let path = workload.stop_profile().map_err(LatencyBenchError::Workload)?;
        writeln!(out, "Recorded one batch: {}", path.display())?;
        return Ok(());
    }
    let mut batches = Vec::new();
    for _ in 0..args.num_iters {
        batches.push(workload.iterate().map_err(LatencyBenchError::Workload)?);
    }
    let result = Measured {
        latencies_s: batches.iter().map(|batch| batch.elapsed.as_secs_f64()).collect(),
        decode: DecodeSteps::of(batches.iter().map(|batch| &batch.steps[..])),
        peak_gb_s: workload.read_peak_gb_s().map_err(LatencyBenchError::Workload)?,
    };
    result.print(out)?;
    let recorded = args.node_table.then(|| record(&result, workload)).transpose()?;
    if let Some(recorded) = &recorded {
        recorded.print(out)?;
    }
    if let Some(path) = &args.output_json {
        let mut json = result.json();
        if let (Some(json), Some(recorded)) = (json.as_object_mut(), &recorded) {
            json.extend(recorded.json());
        }
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|source| LatencyBenchError::Save { path: path.clone(), source })?;
    }
    match recorded.and_then(|recorded| recorded.table.shortfall) {
        Some(shortfall) => Err(LatencyBenchError::Incomplete(shortfall)),
        None => Ok(()),
    }
}

fn check<E: std::error::Error>(args: &LatencyArgs) -> Result<(), LatencyBenchError<E>> {
    let lengths = [
        ("--input-len", args.input_len),
        ("--output-len", args.output_len as usize),
        ("--batch-size", args.batch_size),
        ("--n", args.n),
        ("--num-iters", args.num_iters),
    ];
    match lengths.into_iter().find(|(_, value)| *value == 0) {
        Some((flag, _)) => Err(LatencyBenchError::Zero { flag }),
        None => Ok(()),
    }
}

/// What the measured batches came to.
struct Measured {
    latencies_s: Vec<f64>,
    decode: Option<DecodeSteps>,
    peak_gb_s: Option<f64>,
}

impl Measured {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let sample = Sample::new(self.latencies_s.clone());
        writeln!(out, "Avg latency: {} seconds", sample.mean())?;
        writeln!(out, "Std latency: {} seconds", sample.std_dev())?;
        for percent in PERCENTS {
            writeln!(out, "{percent}% percentile latency: {} seconds", sample.percentile(percent.into()))?;
        }
        match &self.decode {
            Some(decode) => decode.print(self.peak_gb_s, out),
            None => writeln!(out, "Median decode step: there was no decode step"),
        }
    }

    fn json(&self) -> Value {
        let sample = Sample::new(self.latencies_s.clone());
        let percentiles: Map<_, _> =
            PERCENTS.iter().map(|&percent| (percent.to_string(), json!(sample.percentile(percent.into())))).collect();
        json!({
            "avg_latency": sample.mean(),
            "std_latency": sample.std_dev(),
            "latencies": self.latencies_s,
            "percentiles": percentiles,
            "decode": self.decode.as_ref().map(|decode| decode.json(self.peak_gb_s)),
        })
    }
}

/// What one more batch came to, that was recorded.
struct Recorded {
    file: PathBuf,
    table: NodeTable,
    decode: Option<DecodeSteps>,
    /// Its median decode step beside that of the measured batches.
    cost_percent: Option<f64>,
}

fn record<W: Workload>(measured: &Measured, workload: &mut W) -> Result<Recorded, LatencyBenchError<W::Error>> {
    workload.start_profile().map_err(LatencyBenchError::Workload)?;
    let batch = workload.iterate().map_err(LatencyBenchError::Workload)?;
    let file = workload.stop_profile().map_err(LatencyBenchError::Workload)?;
    let table = workload.node_table(&file).map_err(LatencyBenchError::Workload)?;
    let decode = DecodeSteps::of([&batch.steps[..]]);
    let medians = decode.as_ref().zip(measured.decode.as_ref()).map(|(a, b)| (a.median_ms(), b.median_ms()));
    let cost_percent = medians.filter(|(_, ms)| *ms > 0.0).map(|(recorded_ms, ms)| 100.0 * (recorded_ms / ms - 1.0));
    Ok(Recorded { file, table, decode, cost_percent })
}

impl Recorded {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.table.text.trim_end())?;
        writeln!(out, "Of one more batch, its prompts too: {}", self.file.display())?;
        match (&self.decode, self.cost_percent) {
            (Some(decode), Some(percent)) => {
                let ms = decode.median_ms();
                writeln!(out, "Recorded, the median decode step took {ms:.4} ms: {percent:+.1} %")
            }
            _ => writeln!(out, "What recording cost is not known: there was no decode step"),
        }
    }

    fn json(&self) -> Map<String, Value> {
        let recording = json!({
            "file": self.file.to_string_lossy(),
            "step_ms_median": self.decode.as_ref().map(DecodeSteps::median_ms),
            "cost_percent": self.cost_percent,
        });
        Map::from_iter([("node_table".to_owned(), self.table.rows.clone()), ("recording".to_owned(), recording)])
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::request::StepId;
    use crate::trace::schema::StepSizes;

    /// Takes 1 s, 2 s, 3 s…; a decode step takes as many milliseconds and moves 6 MB.
    #[derive(Default)]
    struct Counter {
        iterations: u64,
        profiled: Vec<u64>,
        shortfall: Option<String>,
    }

    impl Workload for Counter {
        type Error = Infallible;

        fn iterate(&mut self) -> Result<Iteration, Infallible> {
            self.iterations += 1;
            let step = |index: u64| StepDone {
                id: StepId(index),
                done_ns: index * self.iterations * 1_000_000,
                sizes: StepSizes { seqs: 8, ..StepSizes::default() },
                is_decode: index > 0,
                bytes: 6e6,
            };
            Ok(Iteration { elapsed: Duration::from_secs(self.iterations), steps: (0..3).map(step).collect() })
        }

        fn read_peak_gb_s(&mut self) -> Result<Option<f64>, Infallible> {
            Ok(Some(6.0))
        }

        fn start_profile(&mut self) -> Result<(), Infallible> {
            self.profiled.push(self.iterations);
            Ok(())
        }

        fn stop_profile(&mut self) -> Result<PathBuf, Infallible> {
            self.profiled.push(self.iterations);
            Ok("a.vtr".into())
        }

        fn node_table(&mut self, recording: &Path) -> Result<NodeTable, Infallible> {
            let text = format!("the table of {}\n", recording.display());
            Ok(NodeTable { text, rows: json!([{"Op": "embed"}]), shortfall: self.shortfall.clone() })
        }
    }

    fn args() -> LatencyArgs {
        LatencyArgs {
            input_len: 32,
            output_len: 128,
            batch_size: 8,
            n: 1,
            num_iters_warmup: 2,
            num_iters: 3,
            profile: false,
            node_table: false,
            output_json: None,
            disable_detokenize: false,
        }
    }

    #[test]
    fn warm_up_is_not_measured() {
        let (mut counter, mut out) = (Counter::default(), Vec::new());
        run(&args(), &mut counter, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "Warming up...\nAvg latency: 4 seconds\nStd latency: 0.816496580927726 seconds\n\
                        10% percentile latency: 3.2 seconds\n25% percentile latency: 3.5 seconds\n\
                        50% percentile latency: 4 seconds\n75% percentile latency: 4.5 seconds\n\
                        90% percentile latency: 4.8 seconds\n99% percentile latency: 4.98 seconds\n\
                        Median decode step: 4.0000 ms (batch of 8, 6 measured)\n\
                        Bytes a decode step moves at least: 6000000\nDecode bandwidth: 1.50 GB/s\n\
                        Share of the read peak: 25.0 % (measured on this device: 6.0 GB/s)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_json_file_has_the_keys() {
        let path = std::env::temp_dir().join(format!("vitrum-latency-{}.json", std::process::id()));
        let saved = |node_table: bool| -> Value {
            let args = LatencyArgs { node_table, output_json: Some(path.clone()), ..args() };
            run(&args, &mut Counter::default(), &mut Vec::new()).unwrap();
            let text = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let json = saved(false);
        assert_eq!((&json["avg_latency"], &json["percentiles"]["50"]), (&json!(4.0), &json!(4.0)));
        assert_eq!(json["latencies"], json!([3.0, 4.0, 5.0]));
        assert_eq!((&json["decode"]["step_ms_median"], &json["decode"]["gb_s"]), (&json!(4.0), &json!(1.5)));
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["avg_latency", "std_latency", "latencies", "percentiles", "decode"]);
        // The recorded batch is the sixth: its steps take 6 ms, not 4.
        let json = saved(true);
        assert_eq!(json["node_table"], json!([{"Op": "embed"}]));
        assert_eq!(json["recording"], json!({"file": "a.vtr", "step_ms_median": 6.0, "cost_percent": 50.0}));
    }

    #[test]
    fn the_node_table_is_of_one_more_batch() {
        let (mut counter, mut out) = (Counter::default(), Vec::new());
        let args = LatencyArgs { node_table: true, ..args() };
        run(&args, &mut counter, &mut out).unwrap();
        assert_eq!(counter.profiled, [5, 6]);
        let expected = "\n\nthe table of a.vtr\nOf one more batch, its prompts too: a.vtr\n\
                        Recorded, the median decode step took 6.0000 ms: +50.0 %\n";
        assert!(String::from_utf8(out).unwrap().ends_with(expected));
        // What is missing is an error, after what there is has been printed.
        let (mut counter, mut out) = (Counter { shortfall: Some("2 of 9".into()), ..Counter::default() }, Vec::new());
        let error = run(&args, &mut counter, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "the node table is not complete: 2 of 9");
        assert!(String::from_utf8(out).unwrap().ends_with("+50.0 %\n"));
    }

    #[test]
    fn profile_records_one_batch_after_the_warm_up() {
        let (mut counter, mut out) = (Counter::default(), Vec::new());
        run(&LatencyArgs { profile: true, ..args() }, &mut counter, &mut out).unwrap();
        assert_eq!(counter.profiled, [2, 3]);
        assert!(String::from_utf8(out).unwrap().ends_with("Recorded one batch: a.vtr\n"));
    }

    #[test]
    fn zero_is_refused_by_name() {
        let zero = LatencyArgs { batch_size: 0, ..args() };
        let error = run(&zero, &mut Counter::default(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "--batch-size is 0, and has to be at least 1");
    }
}
