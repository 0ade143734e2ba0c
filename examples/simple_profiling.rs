//! Profiling in a program of your own: what vLLM's examples/offline_inference/simple_profiling.py does.
//!
//! ```sh
//! cargo run --release --features profiling --example simple_profiling -- model.gguf
//! ```
//!
//! It answers four prompts while it records, and prints where the time went. Without an argument the model is one with
//! random weights.

use std::error::Error;
use std::path::{Path, PathBuf};

use vitrum::device::{Activations, DeviceChoice, DeviceOptions};
use vitrum::engine::{self, Engine, EngineOptions};
use vitrum::formats::WeightFormat;
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::report::{self, Format, Report, Table};
use vitrum::request::{SamplingParams, TokenEvent};
use vitrum::step::{Precision, StepLimits};
use vitrum::text::{Detokenizer, Tokenizer};
use vitrum::trace::session::SessionOptions;

const PROMPTS: [&str; 4] =
    ["Hello, my name is", "The president of the United States is", "The capital of France is", "The future of AI is"];

fn main() -> Result<(), Box<dyn Error>> {
    let weights = match std::env::args_os().nth(1) {
        Some(file) => Checkpoint::open(Path::new(&file))?,
        None => Checkpoint::random(Path::new("benches/configs/smollm2-135m.json"), WeightFormat::Q8_0, 0)?,
    };
    let engine = engine::start(&weights, &options())?;

    let profile = engine.start_profile(SessionOptions::new(folder()?))?;
    answer_all(&engine, &weights)?;
    let summary = profile.stop()?; // or `wait()`, if the options have a window that ends by itself

    let rendered = report::render(&summary.path)?;
    let report = Report::load(&summary.path)?;
    println!("{}", report::stats(&report, Some(Table::OpSum), Format::Text));
    println!("{}\n{}", report::dominates(&report), report.completeness);
    [summary.path].iter().chain(&rendered.files).for_each(|file| println!("{}", file.display()));
    engine.shutdown();
    Ok(())
}

/// Runs the prompts at once, and prints their answers.
fn answer_all(engine: &Engine, weights: &Checkpoint) -> Result<(), Box<dyn Error>> {
    let tokenizer = std::sync::Arc::new(match weights.tokenizer() {
        Some(spec) => Tokenizer::from_spec(spec)?,
        None => Tokenizer::numeric(weights.config().vocab),
    });
    let sampling =
        SamplingParams { temperature: 0.8, top_p: 0.95, seed: Some(1), max_tokens: 16, ..Default::default() };
    let mut streams = Vec::new();
    for prompt in PROMPTS {
        let tokens = match weights.tokenizer() {
            Some(_) => tokenizer.encode(prompt, true)?,
            None => prompt.bytes().map(|byte| vitrum::request::TokenId(byte.into())).collect(),
        };
        streams.push((prompt, engine.submit(tokens, sampling.clone())?));
    }
    for (prompt, mut stream) in streams {
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), Vec::new(), true);
        let mut text = String::new();
        while let Some(event) = stream.blocking_next() {
            match event {
                TokenEvent::Token { token, .. } => text += &detokenizer.push(token).text,
                TokenEvent::Failed(error) => return Err(error.into()),
            }
        }
        text += &detokenizer.finish();
        println!("{prompt:?} → {text:?}");
    }
    Ok(())
}

fn folder() -> Result<PathBuf, std::io::Error> {
    let folder = PathBuf::from("vitrum_profile");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Room for a few short conversations.
fn options() -> EngineOptions {
    EngineOptions {
        served_name: "example".into(),
        device: DeviceOptions { choice: DeviceChoice::Cpu, threads: None, isa: None, delay: None, activity: false },
        precision: Precision { activations: Activations::Reduced, kv: KvFormat::F16 },
        limits: StepLimits { max_tokens: 512, max_seqs: 16, max_model_len: 512, kv_pages: 512 },
        kv_fraction: None,
        prompt_chunk: 512,
        max_waiting: 64,
        capture_all: false,
        sample_every: None,
    }
}
