//! A recording of a server on the CUDA device: complete, closed, every node named. The GPU is the one in software,
//! which runs the kernels of csrc; the model is random and tiny.

use std::fs;
use std::process::Command;

use super::acceptance::{complete_of, empty, judge_recording, lint_of, summary};
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

pub(super) fn cuda_serve(part: &Part) -> Result<Outcome, String> {
    let folder = tree::target().join("xtask-test").join("cuda-serve");
    empty(&folder)?;
    let config = folder.join("config.json");
    fs::write(&config, CONFIG).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut profile = tree::this_program().map_err(|error| error.to_string())?;
    profile.args(["profile-serve", "--software-gpu", "--no-perturbation", "--json", "--model"]).arg(&config);
    profile.arg(format!("--server-args={MODEL_FLAGS}")).args(LOAD).arg("--out").arg(&folder);
    part.run("cargo xtask profile-serve", profile)?;
    let found = judge_recording(&summary(&folder)?)?;
    let lint = lint_of(part, &folder)?;
    let mut graph = Command::new(tree::vitrum());
    graph.arg("graph").arg(&config).args(["--json", "--device", "cuda"]).args(MODEL_FLAGS.split(' '));
    software_gpu::on(&mut graph)?;
    let complete = complete_of(part, &folder, graph)?;
    Ok(Outcome::passed(format!("the GPU is software: {found}; {lint}; {complete}")))
}
