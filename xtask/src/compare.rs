//! `cargo xtask compare`: vitrum and llama-bench on the same file, in turns, so that both see the same machine.
//!
//! Prefill: one prompt of P tokens. Decode: N tokens, one at a time, from an empty context. Both programs load the file
//! outside of what they time.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::output;
use crate::{process, tree};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The llama-bench program
    #[arg(long)]
    llama_bench: PathBuf,
    /// The .gguf file
    #[arg(long)]
    model: PathBuf,
    /// Threads of both [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate
    #[arg(long, default_value_t = 128)]
    generate: usize,
    /// Turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Tokens per second in each round.
#[derive(Default)]
struct Rates {
    vitrum: Vec<f64>,
    llama: Vec<f64>,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if args.rounds == 0 {
        return Err("--rounds is 0, and has to be at least 1".into());
    }
    let threads = match args.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let build = tree::cargo(&["build", "--release", "-p", "vitrum", "--bin", "vitrum"]);
    process::run("cargo build", build, std::io::stderr())?;
    let (mut prefill, mut decode) = (Rates::default(), Rates::default());
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        prefill.vitrum.push(args.prompt as f64 / vitrum_seconds(args, threads, args.prompt, 1)?);
        prefill.llama.push(llama_rate(args, threads, args.prompt, 0)?);
        decode.vitrum.push(args.generate as f64 / vitrum_seconds(args, threads, 1, args.generate)?);
        decode.llama.push(llama_rate(args, threads, 0, args.generate)?);
    }
    println!(
        "{}, {threads} threads, median (lowest to highest) of {} rounds in turns",
        args.model.display(),
        args.rounds
    );
    println!("{}", line(&format!("prefill {}", args.prompt), &mut prefill));
    println!("{}", line(&format!("decode {}", args.generate), &mut decode));
    Ok(())
}

fn line(what: &str, rates: &mut Rates) -> String {
    let (vitrum, llama) = (median(&mut rates.vitrum), median(&mut rates.llama));
    let range = |sorted: &[f64]| format!("({:.1} to {:.1})", sorted[0], sorted[sorted.len() - 1]);
    format!(
        "{what:<14} vitrum {vitrum:>8.1} tok/s {:<20} llama-bench {llama:>8.1} tok/s {:<20} ratio {:.3}",
        range(&rates.vitrum),
        range(&rates.llama),
        vitrum / llama
    )
}

/// The median; leaves the values sorted.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (values[last / 2] + values[last.div_ceil(2)]) / 2.0
}

/// How long one request takes vitrum, after a warm-up.
fn vitrum_seconds(args: &Args, threads: usize, input_len: usize, output_len: usize) -> Result<f64, Box<dyn Error>> {
    let file = tree::target().join("compare.json");
    let mut command = Command::new(tree::vitrum());
    command.args(["bench", "latency"]).arg(&args.model).arg("--output-json").arg(&file);
    for (flag, value) in [
        ("--threads", threads),
        ("--batch-size", 1),
        ("--input-len", input_len),
        ("--output-len", output_len),
        // A prompt is then one step, as it is in llama-bench.
        ("--max-num-batched-tokens", 512),
        ("--num-iters-warmup", 1),
        ("--num-iters", 1),
    ] {
        command.args([flag, &value.to_string()]);
    }
    output("vitrum bench latency", &mut command)?;
    let result: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    Ok(result["avg_latency"].as_f64().ok_or("vitrum bench latency gave no avg_latency")?)
}

/// Tokens per second by llama-bench's own count; it warms up by itself.
fn llama_rate(args: &Args, threads: usize, prompt: usize, generate: usize) -> Result<f64, Box<dyn Error>> {
    let mut command = Command::new(&args.llama_bench);
    command.arg("-m").arg(&args.model).args(["-o", "json", "-r", "1"]);
    for (flag, value) in [("-t", threads), ("-p", prompt), ("-n", generate)] {
        command.args([flag, &value.to_string()]);
    }
    let result: Value = serde_json::from_str(&output("llama-bench", &mut command)?)?;
    Ok(result[0]["avg_ts"].as_f64().ok_or("llama-bench gave no avg_ts")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_medians_ranges_and_the_ratio() {
        let mut rates = Rates { vitrum: vec![30.0, 10.0, 20.0], llama: vec![8.0, 12.0] };
        let line = line("decode 128", &mut rates);
        assert!(line.contains("20.0 tok/s (10.0 to 30.0)") && line.contains("10.0 tok/s (8.0 to 12.0)"), "{line}");
        assert!(line.ends_with("ratio 2.000"), "{line}");
    }
}
