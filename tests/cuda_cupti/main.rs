//! Recordings of a CUDA device by CUPTI, on the software driver and the software CUPTI of tests/softcuda: each source,
//! each version of its records, and whatever may fail of it.

mod decoding;
mod faults;
mod sources;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use vitrum::device::{DeviceChoice, DeviceOptions, cuda};
use vitrum::engine::{self, Engine, EngineOptions};
use vitrum::formats::WeightFormat;
use vitrum::step::StepLimits;
use vitrum::trace::session::{SessionOptions, SpoolSummary, TraceSource};

use self::support::tiny_engine::{Answer, device_options, engine_options, greedy, prompt, run_all, weights_of};

/// As small as a model can be that has every kernel, in two layers.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// An engine on the software GPU whose graphs are named to CUPTI, if it can be used.
fn start() -> Engine {
    let library = cuda::prepare_activity(&[]);
    let device = DeviceOptions { choice: DeviceChoice::Cuda, activity: library.is_ok(), ..device_options() };
    let limits = StepLimits { max_tokens: 8, max_seqs: 2, max_model_len: 32, kv_pages: 4 };
    let options = EngineOptions { device, limits, prompt_chunk: 8, ..engine_options() };
    engine::start(&weights_of(CONFIG, WeightFormat::Q4_1), &options).expect("an engine")
}

/// Two requests, in steps of one and of two sequences.
fn serve(engine: &Engine) -> Vec<Answer> {
    run_all(engine, &[(prompt(5, 1), greedy(4)), (prompt(9, 2), greedy(3))])
}

fn session(dir: &Path, source: TraceSource) -> SessionOptions {
    SessionOptions { prefix: "test".into(), max_bytes: 1 << 30, source, ..SessionOptions::new(dir) }
}

/// Serves while recording. The recording's file is in the summary.
fn record(engine: &Engine, dir: &Path, source: TraceSource) -> (SpoolSummary, Vec<Answer>) {
    let profile = engine.start_profile(session(dir, source)).expect("a recording");
    let answers = serve(engine);
    (profile.stop().expect("the recording ends"), answers)
}

/// A folder for a child's recordings, which its parent removes.
fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("the parent gives a folder"))
}

/// Where a child puts its recordings.
const FOLDER: &str = "VITRUM_TEST_FOLDER";

/// A `child_` test that finds no software driver, and NVIDIA's CUPTI only where it is told to look.
fn child_without_driver(name: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().expect("a test has a file"));
    child.args(["--exact", name, "--ignored", "--nocapture"]);
    child
}

/// The toolkit whose compiler built the kernels of this binary: what `cargo xtask cuda-toolchain` installed.
fn toolkit() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is a folder of the target folder");
    let note = target.join("cuda-toolchain.txt");
    let nvcc = std::fs::read_to_string(&note).unwrap_or_else(|error| panic!("{}: {error}", note.display()));
    Path::new(nvcc.trim()).ancestors().nth(2).expect("bin/nvcc of a toolkit").to_owned()
}
