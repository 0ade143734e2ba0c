//! `vitrum bench latency`: how long one batch of equal requests takes, from submission to its last token.
//!
//! What is measured is a [`Workload`], so that this file knows the statistics and not the engine.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, json};
use thiserror::Error;

use super::stats::Sample;

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
    #[arg(long)]
    pub profile: bool,
    /// Write the result as JSON
    #[arg(long)]
    pub output_json: Option<PathBuf>,
    /// As vLLM's flag; here token ids are never turned into text, with or without it
    #[arg(long)]
    pub disable_detokenize: bool,
}

/// What is measured.
pub trait Workload {
    /// Why it could not go on.
    type Error: std::error::Error;

    /// Runs one batch and says how long it took.
    fn iterate(&mut self) -> Result<Duration, Self::Error>;

    /// Begins to record.
    fn start_profile(&mut self) -> Result<(), Self::Error>;

    /// Stops recording and says where the recording is.
    fn stop_profile(&mut self) -> Result<PathBuf, Self::Error>;
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
    let lengths = [
        ("--input-len", args.input_len),
        ("--output-len", args.output_len as usize),
        ("--batch-size", args.batch_size),
        ("--n", args.n),
        ("--num-iters", args.num_iters),
    ];
    if let Some((flag, _)) = lengths.into_iter().find(|(_, value)| *value == 0) {
        return Err(LatencyBenchError::Zero { flag });
    }
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
    let mut latencies_s = Vec::with_capacity(args.num_iters);
    for _ in 0..args.num_iters {
        latencies_s.push(workload.iterate().map_err(LatencyBenchError::Workload)?.as_secs_f64());
    }
    let sample = Sample::new(latencies_s.clone());
    print(out, &sample)?;
    match &args.output_json {
        Some(path) => std::fs::write(path, json(&latencies_s, &sample))
            .map_err(|source| LatencyBenchError::Save { path: path.clone(), source }),
        None => Ok(()),
    }
}

fn print(out: &mut dyn Write, sample: &Sample) -> io::Result<()> {
    writeln!(out, "Avg latency: {} seconds", sample.mean())?;
    writeln!(out, "Std latency: {} seconds", sample.std_dev())?;
    for percent in PERCENTS {
        writeln!(out, "{percent}% percentile latency: {} seconds", sample.percentile(percent.into()))?;
    }
    Ok(())
}

fn json(latencies_s: &[f64], sample: &Sample) -> String {
    let percentiles: Map<_, _> =
        PERCENTS.iter().map(|&percent| (percent.to_string(), json!(sample.percentile(percent.into())))).collect();
    let result = json!({
        "avg_latency": sample.mean(),
        "std_latency": sample.std_dev(),
        "latencies": latencies_s,
        "percentiles": percentiles,
    });
    format!("{result:#}\n")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Takes 1 s, 2 s, 3 s…
    #[derive(Default)]
    struct Counter {
        iterations: u64,
        profiled: Vec<u64>,
    }

    impl Workload for Counter {
        type Error = Infallible;

        fn iterate(&mut self) -> Result<Duration, Infallible> {
            self.iterations += 1;
            Ok(Duration::from_secs(self.iterations))
        }

        fn start_profile(&mut self) -> Result<(), Infallible> {
            self.profiled.push(self.iterations);
            Ok(())
        }

        fn stop_profile(&mut self) -> Result<PathBuf, Infallible> {
            self.profiled.push(self.iterations);
            Ok("a.vtr".into())
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
                        90% percentile latency: 4.8 seconds\n99% percentile latency: 4.98 seconds\n";
        assert_eq!(text, expected);
        let json: serde_json::Value = serde_json::from_str(&json(&[3.0, 4.0], &Sample::new(vec![3.0, 4.0]))).unwrap();
        assert_eq!((&json["avg_latency"], &json["percentiles"]["50"]), (&json!(3.5), &json!(3.5)));
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
