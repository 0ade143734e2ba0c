//! Recordings of a server on the CUDA device, by each source of node times: complete, closed, every node named. The GPU
//! is the one in software, which runs the kernels of csrc; the model is random and tiny.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::acceptance::{complete_of, empty, hta_of, judge_recording, lint_of, perfetto_of, summary};
use super::{Outcome, Part};
use crate::{software_gpu, tree};

/// Sizes for which every kernel has a part of a tile.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 160,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;

/// For the server, and for the list of its graphs.
const MODEL_FLAGS: &str = "--load-format dummy --dummy-weights q4_1 --max-model-len 128 --max-num-seqs 4";

const LOAD: [&str; 8] = ["--num-prompts", "6", "--input-len", "24", "--output-len", "12", "--concurrency", "3"];
const SHORT_LOAD: [&str; 8] = ["--num-prompts", "2", "--input-len", "7", "--output-len", "4", "--concurrency", "2"];

/// What times the nodes, each in a run of its own.
const SOURCES: [&str; 3] = ["stamps", "cupti", "both"];
/// The version of CUPTI's records of kernels: of CUDA 13.0.
const VERSION: &str = "10";
/// Others that there are: of CUDA 12.9, 13.1 and 13.4.
const VERSIONS: [&str; 3] = ["9", "11", "13"];

fn folder(source: &str, version: &str) -> PathBuf {
    tree::target().join("xtask-test").join("cuda-serve").join(format!("{source}-{version}"))
}

pub(super) fn cuda_serve(part: &Part) -> Result<Outcome, String> {
    let run = |source: &str, version: &str, load: &[&str]| {
        serve(part, (source, version), load).map_err(|error| format!("{source}, records of version {version}: {error}"))
    };
    let found =
        SOURCES.map(|source| run(source, VERSION, &LOAD)).into_iter().collect::<Result<Vec<String>, String>>()?;
    for version in VERSIONS {
        SOURCES[1..].iter().try_for_each(|source| run(source, version, &SHORT_LOAD).map(drop))?;
    }
    let versions = VERSIONS.join(", ");
    Ok(Outcome::passed(format!("the GPU is software: {}; the same in versions {versions}", found.join("; "))))
}

fn serve(part: &Part, (source, version): (&str, &str), load: &[&str]) -> Result<String, String> {
    let folder = folder(source, version);
    empty(&folder)?;
    let config = folder.join("config.json");
    fs::write(&config, CONFIG).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut profile = tree::this_program().map_err(|error| error.to_string())?;
    profile.args(["profile-serve", "--software-gpu", "--no-perturbation", "--json", "--trace-source", source]);
    profile.arg("--model").arg(&config).arg(format!("--server-args={MODEL_FLAGS}"));
    profile.args(load).arg("--out").arg(&folder).env("SOFTCUDA_CUPTI", version);
    part.run("cargo xtask profile-serve", profile)?;
    let summary = summary(&folder)?;
    let found = judge_recording(&summary)?;
    judge_source(&summary["recording"], source)?;
    let lint = lint_of(part, &folder)?;
    let mut graph = Command::new(tree::vitrum());
    graph.arg("graph").arg(&config).args(["--json", "--device", "cuda"]).args(MODEL_FLAGS.split(' '));
    software_gpu::on(&mut graph)?;
    let complete = complete_of(part, &folder, graph)?;
    Ok(format!("{source}: {found}; {lint}; {complete}"))
}

/// The source is the one that was asked for, and CUPTI saw every node.
fn judge_source(recording: &Value, source: &str) -> Result<(), String> {
    let used = if source == "cupti" { "activity" } else { source };
    if recording["sources"]["used"] != used {
        return Err(format!("the nodes were timed by {}", recording["sources"]));
    }
    let (seen, expected) = (&recording["activity"]["nodes"], &recording["expected"]);
    if source != "stamps" && (seen != expected || recording["activity"]["dropped"] != 0) {
        return Err(format!("CUPTI saw {seen} of {expected} nodes: {}", recording["activity"]));
    }
    Ok(())
}

/// The folders of recordings that have CUPTI's records in them.
pub(super) fn folders_by_cupti() -> [PathBuf; 2] {
    [folder(SOURCES[1], VERSION), folder(SOURCES[2], VERSION)]
}

/// Perfetto takes the traces that have CUPTI's records in them.
pub(super) fn perfetto(part: &Part) -> Result<Outcome, String> {
    each_by_cupti(|folder| perfetto_of(part, folder))
}

/// HolisticTraceAnalysis comes to the same sums of them.
pub(super) fn hta(part: &Part) -> Result<Outcome, String> {
    each_by_cupti(|folder| hta_of(part, folder))
}

fn each_by_cupti(check: impl Fn(&Path) -> Result<String, String>) -> Result<Outcome, String> {
    let of = |source: &str| check(&folder(source, VERSION)).map(|found| format!("{source}: {found}"));
    Ok(Outcome::passed([of(SOURCES[1])?, of(SOURCES[2])?].join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_source_is_judged() {
        let recording = |used: &str, nodes: u64| {
            let activity = json!({"nodes": nodes, "dropped": 0});
            json!({"sources": {"used": used}, "expected": 9, "activity": activity})
        };
        assert!(judge_source(&recording("activity", 9), "cupti").is_ok());
        assert!(judge_source(&recording("both", 9), "both").is_ok());
        assert!(judge_source(&recording("stamps", 0), "stamps").is_ok());
        assert!(judge_source(&recording("stamps", 9), "both").is_err(), "another source");
        assert!(judge_source(&recording("both", 8), "both").is_err(), "a node is missing");
    }
}
