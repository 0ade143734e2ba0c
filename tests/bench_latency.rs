//! `vitrum bench latency` as a command, on the CPU device and a tiny model of random weights.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::temp::TempDir;
use support::tiny_engine::CONFIG;
use vitrum::engine::CAN_RECORD;
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;

fn bench(folder: &TempDir, device: &str, flags: &[&str]) -> Output {
    let config = folder.write("config.json", CONFIG);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.args(["bench", "latency"]).arg(config).args(["--load-format", "dummy", "--max-model-len", "64"]);
    command.args(["--num-iters-warmup", "1", "--num-iters", "2", "--device", device]).args(flags);
    command.env("VITRUM_PROFILE_DIR", folder.path()).output().expect("it starts")
}

/// Three requests of five tokens that ask for nine, saved as JSON in the folder.
fn bench_three(folder: &TempDir, device: &str, flags: &[&str]) -> (Output, PathBuf) {
    let path = folder.path().join("out.json");
    let saved = path.to_str().expect("a path of ASCII");
    let sizes = ["--input-len", "5", "--output-len", "9", "--batch-size", "3", "--output-json", saved];
    (bench(folder, device, &[&sizes[..], flags].concat()), path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it was written")).expect("JSON")
}

#[test]
fn decode_steps_are_in_text_and_json() {
    let folder = TempDir::new();
    let (output, path) = bench_three(&folder, "cpu", &["--threads", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for line in ["99% percentile latency: ", "Median decode step: ", "Bytes a decode step moves at least: "] {
        assert!(printed.lines().any(|found| found.starts_with(line)), "{printed}");
    }
    let json = json(&path);
    assert_eq!(json["latencies"].as_array().map(Vec::len), Some(2), "vLLM's keys stay");
    let decode = |key: &str| json["decode"][key].as_f64().unwrap_or_else(|| panic!("{key}: {json:#}"));
    // In each of two batches the prompts' step gives the first of nine tokens.
    assert_eq!((decode("batch_size"), decode("steps")), (3.0, 16.0), "{json:#}");
    // All matrices are read in a step, the embedding as the vocabulary projection; bf16 may be kept as f32.
    let weights = Checkpoint::random(&folder.path().join("config.json"), WeightFormat::Bf16, 0).expect("a model");
    let matrices = weights.tensors().filter(|tensor| tensor.rows > 1);
    let least: usize = matrices.map(|tensor| 2 * tensor.rows * tensor.cols).sum();
    let bytes = decode("bytes_per_step");
    assert!(bytes >= least as f64 && bytes < 3.0 * least as f64, "{bytes} for weights of {least}");
    assert!((decode("gb_s") / (bytes / (decode("step_ms_median") * 1e6)) - 1.0).abs() < 1e-9);
    assert!(decode("step_ms_p10") <= decode("step_ms_median") && decode("step_ms_median") <= decode("step_ms_p90"));
    assert!(decode("read_peak_gb_s") > 0.0, "the CPU measures its own");
    assert!((decode("read_peak_percent") * decode("read_peak_gb_s") / decode("gb_s") - 100.0).abs() < 1e-6);
}

#[test]
fn a_device_without_a_measured_peak_has_no_share() {
    let folder = TempDir::new();
    let (output, path) = bench_three(&folder, "null", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Share of the read peak: not known"), "{}", text(&output.stdout));
    let decode = &json(&path)["decode"];
    assert!(decode["read_peak_gb_s"].is_null() && decode["read_peak_percent"].is_null(), "{decode:#}");
}

#[test]
fn the_node_table_is_there_or_refused() {
    let folder = TempDir::new();
    let (output, path) = bench_three(&folder, "cpu", &["--threads", "1", "--node-table"]);
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    if !CAN_RECORD {
        assert!(!output.status.success() && printed.is_empty(), "{printed}");
        assert!(said.contains("--node-table: this build has no recorder: rebuild with --features profiling"), "{said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(printed.contains("node_sum\n") && printed.contains("Recorded, the median decode step took"), "{printed}");
    let json = json(&path);
    let rows = json["node_table"].as_array().expect("a list");
    // embed, five ops in each of three layers, lm_head, sample
    assert_eq!(rows.len(), 1 + 3 * 5 + 2, "{json:#}");
    let time: f64 = rows.iter().map(|row| row["Time (%)"].as_f64().expect("a share")).sum();
    assert!((time - 100.0).abs() < 1e-6, "{time} % of node time");
    assert!(rows.iter().all(|row| row["GB/s"].is_number() && row["Count"].is_number()), "{json:#}");
    let recording = &json["recording"];
    assert!(recording["step_ms_median"].is_number() && recording["cost_percent"].is_number(), "{json:#}");
    assert!(Path::new(recording["file"].as_str().expect("a path")).is_file(), "{json:#}");
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let folder = TempDir::new();
    let source =
        if CAN_RECORD { "--trace-source is for --profile or --node-table only" } else { "rebuild with --features" };
    for (flags, words) in [
        (&["--profile", "--node-table"][..], "cannot be used with"),
        (&["--output-len", "60"][..], "--input-len + --output-len is 92, and max_model_len is 64"),
        (&["--max-waiting", "7", "--output-len", "4"][..], "is 8 sequences, and --max-waiting is 7: they are queued"),
        (&["--batch-size", "0", "--output-len", "4"][..], "--batch-size is 0, and has to be at least 1"),
        (&["--profile", "--output-json", "a.json"][..], "cannot be used with"),
        (&["--trace-source", "stamps"][..], source),
        (
            &["--batch-size", "11", "--n", "3", "--output-len", "4"][..],
            "--batch-size x --n is 33 sequences, and --max-num-seqs is 32",
        ),
        (
            &["--batch-size", "4611686018427387904", "--n", "4", "--output-len", "4"][..],
            "--batch-size x --n is 18446744073709551615 sequences",
        ),
        (
            &["--input-len", "18446744073709551615", "--output-len", "4"][..],
            "--input-len + --output-len is 18446744073709551619, and max_model_len is 64",
        ),
    ] {
        let output = bench(&folder, "null", flags);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{flags:?}: {said}");
    }
}

#[test]
fn one_token_each_has_no_decode_step() {
    let folder = TempDir::new();
    let path = folder.path().join("out.json");
    let saved = path.to_str().expect("a path of ASCII");
    let output = bench(&folder, "null", &["--input-len", "5", "--output-len", "1", "--output-json", saved]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("there was no decode step"), "{}", text(&output.stdout));
    assert!(json(&path)["decode"].is_null());
}
