//! Starts that fail: one sentence that says what is wrong, a code that says that something is, no panic, soon.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::gguf_writer::GgufWriter;
use crate::support::server::{Ended, Server, run_within, vitrum};
use crate::support::temp::TempDir;
use crate::support::tiny_model::TinyModel;

const LIMIT: Duration = Duration::from_secs(10);

fn serve(model: &Path, flags: &[&str]) -> Command {
    let mut command = vitrum(["serve", "--port", "0"]);
    command.arg(model).args(flags);
    command
}

/// Starts, which has to fail in one sentence with these words.
fn fails(model: &Path, flags: &[&str], words: &[&str]) {
    let Ended { code, stdout, stderr, after } = run_within(serve(model, flags), LIMIT);
    let shown = format!("{} {flags:?}: code {code:?} after {after:?}\n{stdout}{stderr}", model.display());
    assert!(after < LIMIT, "{shown}");
    assert!(matches!(code, Some(1 | 2)), "{shown}");
    assert!(!stderr.contains("panicked"), "{shown}");
    assert_eq!(stdout, "", "nobody is told that it listens: {shown}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.contains("error")).collect();
    let [error] = errors[..] else { panic!("one sentence: {shown}") };
    assert!(error.starts_with("error: ") && error.len() < 400, "{shown}");
    for word in words {
        assert!(error.contains(word), "no {word:?} in {shown}");
    }
}

fn tiny(folder: &TempDir) -> std::path::PathBuf {
    TinyModel::default().write(folder)
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let folder = TempDir::new();
    let model = tiny(&folder);
    for (flags, words) in [
        (&["--drain-timeout-sec", "18446744073709551615"][..], &["--drain-timeout-sec", "86400"][..]),
        (&["--max-body-bytes", "0"], &["--max-body-bytes", "1"]),
        (&["--max-body-bytes", "9223372036854775808"], &["--max-body-bytes"]),
        (&["--max-bodies-bytes", "1"], &["--max-bodies-bytes is 1", "8388608"]),
        (&["--profile-max-bytes", "0"], &["--profile-max-bytes"]),
        (&["--max-connections", "0"], &["--max-connections", "1000000"]),
        (&["--write-timeout-sec", "0"], &["--write-timeout-sec"]),
    ] {
        fails(&model, flags, words);
    }
    // Answers could not name what lies there.
    let mut command = serve(&model, &["--device", "cpu"]);
    command.arg("--profile-dir").arg(std::ffi::OsStr::from_bytes(b"prof\xff"));
    let ended = run_within(command, LIMIT);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is no UTF-8"), "{ended:?}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Server::tiny(&[]);
    let address = server.address.to_string();
    let port = server.address.port().to_string();
    let model = tiny(&server.folder);
    let mut command = vitrum(["serve", "--port", &port]);
    command.arg(&model);
    let Ended { code, stderr, after, .. } = run_within(command, LIMIT);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(after < LIMIT && !stderr.contains("panicked"), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: ") && error.contains(&address) && error.contains("in use"), "{stderr}");
    server.assert_answers().await;
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let folder = TempDir::new();
    fails(&folder.path().join("none.gguf"), &[], &["none.gguf", "is no model"]);
    fails(folder.path(), &[], &["holds 0 .gguf files", &folder.path().display().to_string()]);
    fails(folder.path(), &["--load-format", "dummy"], &["config.json", "No such file"]);
    fails(Path::new("gpt-4"), &[], &["gpt-4 is no model", "smollm2"]);
}

#[test]
fn a_cut_gguf_is_refused() {
    let folder = TempDir::new();
    let bytes = TinyModel::default().writer().bytes();
    let model = |length: usize| folder.write("cut.gguf", &bytes[..length]);
    fails(&model(0), &[], &["cut.gguf", "not a GGUF file"]);
    fails(&model(3), &[], &["cut.gguf", "not a GGUF file"]);
    for length in [4, 10, 20, 24, 30, 100, 1000] {
        fails(&model(length), &[], &["cut.gguf", "at byte"]);
    }
    // Within the tensors' data: a half, all but a row, all but a byte.
    for length in [bytes.len() / 2, bytes.len() - 64, bytes.len() - 1] {
        fails(&model(length), &[], &["cut.gguf", "tensor ", "incomplete", &format!("ends at byte {length}")]);
    }
    let whole = run_within(serve(&model(bytes.len()), &["--max-waiting", "0"]), LIMIT);
    assert!(whole.stderr.contains("--max-waiting"), "whole, the file is good: {}", whole.stderr);
}

#[test]
fn a_gguf_of_random_bytes_is_refused() {
    let folder = TempDir::new();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..1 << 20).map(|_| random()).collect();
    fails(&folder.write("random.gguf", &bytes), &[], &["random.gguf", "not a GGUF file"]);
    let named = [b"GGUF", &bytes[..]].concat();
    fails(&folder.write("random.gguf", named), &[], &["random.gguf", "GGUF version"]);
    for counts in [[0u64, 1], [1, 0], [1, 1]] {
        let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        let header = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &bytes].concat();
        fails(&folder.write("random.gguf", header), &[], &["random.gguf", "at byte"]);
    }
}

#[test]
fn huge_numbers_in_a_gguf_header_are_refused() {
    let folder = TempDir::new();
    let bytes = TinyModel::default().writer().bytes();
    // Magic and version take 8 bytes; then tensor count, key count, length of the first key.
    for (at, field) in [(8, "tensor count"), (16, "metadata count"), (24, "key")] {
        for value in [1 << 63, u64::MAX, u64::from(u32::MAX), bytes.len() as u64] {
            let mut huge = bytes.clone();
            huge[at..at + 8].copy_from_slice(&value.to_le_bytes());
            // A key as long as the file is within the limit of a length, and not within the file.
            let inside = at == 24 && value == bytes.len() as u64;
            let (place, limit) = match inside {
                true => (format!("at byte {} needs {value} bytes", at + 8), "the file ends"),
                false => (format!("at byte {at} is {value}"), "the limit is"),
            };
            fails(&folder.write("huge.gguf", huge), &[], &[field, &place, limit]);
        }
    }
    // The length of the first value, a string: it stands behind the key and its type.
    let at = 24 + 8 + "general.architecture".len() + 4;
    let mut huge = bytes.clone();
    assert_eq!(huge[at..at + 8], 5u64.to_le_bytes(), "of llama");
    huge[at..at + 8].copy_from_slice(&(1u64 << 63).to_le_bytes());
    fails(&folder.write("huge.gguf", huge), &[], &["string", &format!("at byte {at} is {}", 1u64 << 63)]);
}

#[test]
fn huge_sizes_of_a_model_are_refused() {
    let folder = TempDir::new();
    type Change = fn(&mut GgufWriter);
    let changes: [(&str, Change); 5] = [
        ("block_count", |w| {
            w.set("llama.block_count", u32::MAX);
        }),
        ("embedding_length", |w| {
            w.set("llama.embedding_length", 1u32 << 31);
        }),
        ("head_count", |w| {
            w.set("llama.attention.head_count", u32::MAX);
        }),
        ("token_embd.weight", |w| {
            w.claim_dims("token_embd.weight", &[1 << 62, 1 << 62]);
        }),
        ("output_norm.weight", |w| {
            w.claim_offset("output_norm.weight", u64::MAX - 31);
        }),
    ];
    for (word, change) in changes {
        let mut writer = TinyModel::default().writer();
        change(&mut writer);
        fails(&folder.write("huge.gguf", writer.bytes()), &[], &["huge.gguf", word]);
    }
}

/// Before a weight is read: the file, the key, its value and the limit.
#[test]
fn heads_that_there_is_no_kernel_for_are_named() {
    let folder = TempDir::new();
    for (head_dim, hidden) in [(512, 64), (272, 64), (24, 96), (8, 32)] {
        let model = TinyModel { head_dim, hidden, ..TinyModel::default() }.write(&folder);
        let said = format!("llama.attention.key_length is {head_dim}, and has to be a multiple of 16 and at most 256");
        fails(&model, &["--device=cpu"], &["tiny.gguf", &said]);
        fails(&model, &["--device=null"], &["tiny.gguf", &said]);
    }
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 8, "vocab_size": 32, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
        "eos_token_id": null
    });
    let config = folder.write("config.json", config.to_string());
    let said = "hidden_size / num_attention_heads is 512, and has to be a multiple of 16 and at most 256";
    fails(&config, &["--device=cpu", "--load-format=dummy"], &["config.json", said]);
}

#[test]
fn an_unknown_architecture_is_named() {
    let folder = TempDir::new();
    let mut writer = TinyModel::default().writer();
    writer.set("general.architecture", "mamba");
    let model = folder.write("mamba.gguf", writer.bytes());
    fails(&model, &[], &["mamba.gguf", "architecture mamba is not supported", "llama"]);
}

#[test]
fn a_flag_with_an_unknown_value_is_named() {
    let folder = TempDir::new();
    let model = tiny(&folder);
    for (flag, value) in [
        ("--device", "tpu"),
        ("--isa", "neon"),
        ("--load-format", "safetensors"),
        ("--activations", "int3"),
        ("--kv-cache-dtype", "fp8"),
        ("--max-num-seqs", "many"),
        ("--max-num-seqs", "-1"),
        ("--profile-sample", "often"),
        ("--profile-sample", "4294967296"),
        ("--test-delay", "attn.core"),
        ("--test-delay", "attn.score:1:200"),
    ] {
        fails(&model, &[&format!("{flag}={value}")], &[flag, value]);
    }
    fails(&model, &["--test-delay=attn.core:2:200"], &["the layer of --test-delay is 2", "below the model's 2"]);
    fails(&model, &["--colour"], &["--colour"]);
    fails(&model, &["--dummy-seed=1"], &["--dummy-seed", "--load-format dummy"]);
    fails(&model, &["--device=null", "--threads=1"], &["--threads", "--device cpu"]);
    // A build without the recorder refuses every source.
    let source = "--trace-source";
    let (unknown, needs_gpu) = match vitrum::engine::CAN_RECORD {
        true => ("the sources are stamps, cupti, both", "use --device cuda, or stamps"),
        false => ("rebuild with --features profiling", "rebuild with --features profiling"),
    };
    fails(&model, &["--trace-source=nsys"], &[source, "nsys", unknown]);
    fails(&model, &["--trace-source=both", "--device=cpu"], &[source, needs_gpu]);
    if !vitrum::engine::CAN_RECORD {
        fails(&model, &["--profile-sample=4"], &["--profile-sample", "rebuild with --features profiling"]);
    }
    let fraction = "--gpu-memory-utilization";
    fails(&model, &["--device=cpu", "--gpu-memory-utilization=0.5"], &[fraction, "--device cuda"]);
    fails(&model, &["--device=cpu", "--gpu-memory-utilization=half"], &[fraction, "half"]);
}

#[test]
fn limits_that_cannot_be_are_named() {
    let folder = TempDir::new();
    let model = tiny(&folder);
    let most = usize::MAX.to_string();
    for (flags, words) in [
        (vec!["--max-num-seqs", "257"], vec!["--max-num-seqs is 257", "256"]),
        (vec!["--max-num-seqs", &most], vec!["--max-num-seqs", &most, "256"]),
        (vec!["--max-num-seqs", "0"], vec!["--max-num-seqs", "at least 1"]),
        (
            vec!["--max-num-seqs", "1000000", "--max-num-batched-tokens", "1000000"],
            vec!["1000000 sequences", "lower --max-num-seqs"],
        ),
        (vec!["--max-num-seqs", &most, "--max-num-batched-tokens", &most], vec!["--max-num-batched-tokens", &most]),
        (vec!["--max-num-batched-tokens", "0"], vec!["--max-num-batched-tokens", "at least 1"]),
        (vec!["--long-prefill-token-threshold", "0"], vec!["--long-prefill-token-threshold", "at least 1"]),
        (vec!["--max-model-len", "513"], vec!["--max-model-len is 513", "512"]),
        (vec!["--max-model-len", &most], vec!["--max-model-len", &most, "512"]),
        (vec!["--kv-cache-memory-bytes", "100"], vec!["--kv-cache-memory-bytes is 100"]),
        (vec!["--max-waiting", "0"], vec!["--max-waiting", "at least 1"]),
        (vec!["--threads", "0"], vec!["0 worker threads"]),
        (vec!["--threads", "100000"], vec!["100000 worker threads"]),
    ] {
        fails(&model, &flags, &words);
    }
}
