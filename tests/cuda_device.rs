//! The CUDA device on the software driver of tests/softcuda, in processes of their own: a process finds a driver by its
//! LD_LIBRARY_PATH. What is not run without a GPU is a GPU: see tests/softcuda for what the software driver checks.
//!
//! Where no nvcc was found when vitrum was built there are no images to load: then these tests fail, and say what to
//! install. Only what happens without a driver needs no kernels.

mod support;

use std::path::Path;
use std::process::Command;

use support::software_gpu::{finished, in_child, on_softcuda};
use support::steps::{assert_same_bits, deviation, prefill, push, tokens};
use support::temp::TempDir;
use vitrum::device::*;
use vitrum::formats::WeightFormat;
use vitrum::kernels::params;
use vitrum::kernels::{KernelParams, Node};
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::step::{Precision, RowTokens, StepLimits, StepRunner};
use vitrum::trace::schema::{Cost, GraphKey, GraphKind, NodeSources, NodeStamp, Op, Place, StepCopies};

/// Odd sizes on purpose: 3 query heads per KV head, a vocabulary that is no multiple of 32.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 160,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 331,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": true,
    "eos_token_id": 7
}"#;
const VOCAB: u32 = 331;

fn weights(format: WeightFormat) -> Checkpoint {
    let folder = TempDir::new();
    let path = folder.path().join("config.json");
    std::fs::write(&path, CONFIG).expect("a temporary file");
    Checkpoint::random(&path, format, 1).expect("the configuration is a good one")
}

fn open(choice: DeviceChoice) -> Device {
    Device::open(&DeviceOptions { choice, threads: None, isa: None, delay: None, activity: false })
        .expect("the device is there")
}

const LIMITS: StepLimits = StepLimits { max_tokens: 64, max_seqs: 8, max_model_len: 640, kv_pages: 120 };

fn runner(choice: DeviceChoice, format: WeightFormat, exact: bool) -> StepRunner {
    let precision = match exact {
        true => Precision { activations: Activations::F32, kv: KvFormat::F32 },
        false => Precision { activations: Activations::Reduced, kv: KvFormat::F16 },
    };
    StepRunner::open(open(choice), &weights(format), &LIMITS, precision, None).expect("the model fits")
}

#[test]
fn logits_are_near_the_exact_ones() {
    in_child("child_logits_are_near_the_exact_ones");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_logits_are_near_the_exact_ones() {
    for (format, allowed) in [(WeightFormat::Bf16, 0.01), (WeightFormat::Q8_0, 0.02), (WeightFormat::Q4_1, 0.02)] {
        // Beyond a chunk of attention, so that results of chunks are combined.
        let prompt = tokens(300, 5, VOCAB);
        let exact = prefill(&mut runner(DeviceChoice::Cpu, format, true), &prompt, 64);
        let got = prefill(&mut runner(DeviceChoice::Cuda, format, false), &prompt, 50);
        let off = deviation(&got, &exact);
        eprintln!("{format:?}: off by {off:.5} of the exact logits' root mean square");
        assert!(off < allowed, "{format:?}: off by {off}");
    }
}

#[test]
fn bits_do_not_depend_on_the_batch_or_the_chunks() {
    in_child("child_bits_do_not_depend_on_the_batch_or_the_chunks");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_bits_do_not_depend_on_the_batch_or_the_chunks() {
    let prompt = tokens(280, 3, VOCAB);
    for format in [WeightFormat::Bf16, WeightFormat::Q4_0] {
        let mut runner = runner(DeviceChoice::Cuda, format, false);
        let alone = prefill(&mut runner, &prompt, 64);
        assert_same_bits(&mut runner, &prompt, &alone, &format!("{format:?}"));
    }
}

#[test]
fn a_step_submitted_behind_another_takes_its_token() {
    in_child("child_a_step_submitted_behind_another_takes_its_token");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_a_step_submitted_behind_another_takes_its_token() {
    let prompt = tokens(30, 9, VOCAB);
    let mut runner = runner(DeviceChoice::Cuda, WeightFormat::Q8_0, false);
    // One step after the other, the host naming each token.
    let mut expected = Vec::new();
    let mut fed = prompt.clone();
    for position in std::iter::once(0).chain(30..45) {
        push(&mut runner, 0, RowTokens::Host(&fed[position..]), position);
        let step = runner.submit(NodeSources::NONE).expect("a step");
        expected.push(runner.wait(step).expect("no failure").token(0));
        fed.push(expected[expected.len() - 1]);
    }
    // Each step submitted before the one ahead of it was read.
    push(&mut runner, 0, RowTokens::Host(&prompt), 0);
    let (mut ahead, mut got) = (runner.submit(NodeSources::NONE).expect("a step"), Vec::new());
    for position in 30..45 {
        push(&mut runner, 0, RowTokens::Slot, position);
        let next = runner.submit(NodeSources::NONE).expect("a step");
        got.push(runner.wait(ahead).expect("no failure").token(0));
        ahead = next;
    }
    got.push(runner.wait(ahead).expect("no failure").token(0));
    assert_eq!(got, expected);
}

#[test]
fn memory_holds_what_is_uploaded_and_misuse_is_refused() {
    in_child("child_memory_holds_what_is_uploaded_and_misuse_is_refused");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_memory_holds_what_is_uploaded_and_misuse_is_refused() {
    let mut device = open(DeviceChoice::Cuda);
    assert_eq!((device.info().kind, device.info().isa), ("cuda", "sm_90a"));
    let buffer = device.alloc(300, "test").expect("there is room");
    let mut bytes = [1u8; 300];
    device.download(&buffer, 0, &mut bytes);
    assert_eq!(bytes, [0; 300]);
    device.upload(&buffer, 100, &[7; 50]);
    device.download(&buffer, 0, &mut bytes);
    assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), 50);
    // Uploads of a step are there before its downloads, and parts stay in order.
    let uploads = [(0, 3u8), (8, 4), (20, 5)].map(|(at, value)| (buffer.addr + at, [value; 8]));
    let uploads = uploads.each_ref().map(|(addr, data)| Upload { addr: *addr, data });
    let downloads = [(20, 8), (0, 16)].map(|(at, bytes)| Download { addr: buffer.addr + at, bytes });
    let submission = Submission { uploads: &uploads, graphs: &[], downloads: &downloads, sources: NodeSources::NONE };
    let ticket = device.submit(&submission).expect("a step");
    let expected = [[5; 8], [3; 8], [4; 8]].concat();
    assert_eq!(device.wait(ticket).expect("no failure").data, expected);

    let place = Place { layer: 0, op: Op::AttnCore };
    let params = KernelParams::Attention(params::AttentionParams { heads: 9, kv_heads: 3, ..Default::default() });
    let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 };
    let error = device.capture(key, &[Node { params, place, cost: Cost::default() }]).expect_err("no head");
    assert_eq!(
        error.to_string(),
        "forward.decode.1, node 0 (attention): head_dim is 0, and has to be a multiple of 16"
    );

    let error = device.alloc(1 << 40, "a cache").expect_err("a terabyte").to_string();
    for word in ["1099511627776 bytes for a cache", "cuMemAlloc_v2", "CUDA_ERROR_OUT_OF_MEMORY", "bytes are free"] {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn attention_has_the_blocks_that_fit() {
    in_child("child_attention_has_the_blocks_that_fit");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_attention_has_the_blocks_that_fit() {
    let mut runner = runner(DeviceChoice::Cuda, WeightFormat::Q4_1, false);
    let graph = runner.capture(GraphKey { kind: GraphKind::ForwardDecode, bucket: 1 }).expect("a graph");
    let node = runner.graph(graph).nodes.iter().find(|node| node.place.op == Op::AttnCore).expect("attention");
    // Shared memory would hold 228 KiB / 74 KiB = 3 blocks. Their registers do not fit, more than 128 of 65,536 for
    // each of 256 threads: one for each of the driver's 4 multiprocessors.
    assert_eq!(node.choice, "grid 4 x 1 x 1, 256 threads, 75136 bytes shared");
}

#[test]
fn traced_steps_are_stamped_in_builds_that_profile() {
    in_child("child_traced_steps_are_stamped_in_builds_that_profile");
}

#[test]
#[ignore = "run by the test of its name"]
fn child_traced_steps_are_stamped_in_builds_that_profile() {
    let mut runner = runner(DeviceChoice::Cuda, WeightFormat::Q4_1, false);
    for traced in [true, false, true] {
        push(&mut runner, 0, RowTokens::Host(&tokens(20, 1, VOCAB)), 0);
        let begin_ns = monotonic_ns();
        let step = runner.submit(NodeSources { stamps: traced, activity: false }).expect("a step");
        let nodes: usize = step.graphs.iter().flatten().map(|graph| runner.graph(*graph).nodes.len()).sum();
        assert_eq!(nodes, 1 + 2 * 5 + 2);
        let done = runner.wait(step).expect("no failure");
        let (stamps, copies) = (done.stamps.to_vec(), done.copies);
        let end_ns = monotonic_ns();
        if !(traced && cfg!(feature = "profiling")) {
            assert!(stamps.is_empty() && copies == StepCopies::default());
            continue;
        }
        assert_eq!(stamps.len(), nodes);
        assert!(stamps.iter().all(NodeStamp::is_valid), "{stamps:?}");
        // Programmatic edges let no node begin before the one ahead of it has ended: it waits for it first.
        assert!(stamps.windows(2).all(|pair| pair[0].end_ns <= pair[1].start_ns), "{stamps:?}");
        // The upload is before the first node, the download behind the last one.
        let StepCopies { upload, download } = copies;
        assert!(upload.bytes > 0 && download.bytes > 0, "{copies:?}");
        let order = [begin_ns, upload.start_ns, upload.end_ns, stamps[0].start_ns, stamps[nodes - 1].end_ns];
        let order = [&order[..], &[download.start_ns, download.end_ns, end_ns]].concat();
        assert!(order.is_sorted(), "{order:?}");
    }
}

fn generate(folder: &Path, flags: &[&str]) -> Command {
    let path = folder.join("config.json");
    std::fs::write(&path, CONFIG).expect("a temporary file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.arg("generate").arg(&path).args(["--load-format", "dummy", "--prompt", "5 17 200 42 9", "--ignore-eos"]);
    command.args(["--max-tokens", "12", "--max-model-len", "64"]).args(flags).env_remove("LD_LIBRARY_PATH");
    command
}

/// One binary runs where there is a driver and where there is none.
#[test]
fn the_device_is_chosen_by_what_is_there() {
    let folder = TempDir::new();
    let cpu = finished(generate(folder.path(), &["--device", "cpu"]));
    assert!(cpu.code == Some(0) && !cpu.stdout.is_empty(), "{}", cpu.stderr);
    for choice in ["auto", "cuda"] {
        let output = finished(on_softcuda(generate(folder.path(), &["--device", choice])));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert_eq!(output.stdout, cpu.stdout, "--device {choice}");
        assert_eq!(output.stderr.contains("softcuda"), choice == "auto", "{}", output.stderr);
    }
    for (flags, words) in [
        (["--activations", "f32"], "token_embd.weight: f32 activations"),
        (["--kv-cache-dtype", "f32"], "kv.format is 0"),
        (["--gpu-memory-utilization", "0.0000001"], "--gpu-memory-utilization"),
        (["--test-delay", "lm_head:-1:5"], "delayed on the CPU only"),
    ] {
        let output = finished(on_softcuda(generate(folder.path(), &[&["--device", "cuda"][..], &flags].concat())));
        assert!(output.code == Some(1) && output.stderr.contains(words), "{flags:?}: {}", output.stderr);
    }
}

/// Whether or not the binary has kernels: `auto` is the CPU where there is no driver, and says so; `cuda` fails.
#[test]
fn a_machine_without_a_driver_is_served_by_its_cpu() {
    let (folder, hiding) = (TempDir::new(), TempDir::new());
    // Also where there is a driver: what is found first is none.
    ["libcuda.so", "libcuda.so.1"].iter().for_each(|name| drop(hiding.write(name, "no library")));
    let generate = |choice| {
        let mut command = generate(folder.path(), &["--device", choice]);
        command.env("LD_LIBRARY_PATH", hiding.path());
        finished(command)
    };
    let (cpu, auto, cuda) = (generate("cpu"), generate("auto"), generate("cuda"));
    assert_eq!((auto.code, &auto.stdout), (Some(0), &cpu.stdout), "{}", auto.stderr);
    assert_eq!((cuda.code, cuda.stdout.as_str()), (Some(1), ""), "{}", cuda.stderr);
    for said in [auto.stderr, cuda.stderr] {
        assert!(said.contains("libcuda was not found"), "{said}");
    }
}

/// What `vitrum bench latency` says of the CUDA device; the software driver's times are no GPU's.
#[test]
fn decode_steps_are_measured_against_the_read_peak() {
    let folder = TempDir::new();
    let (config, saved) = (folder.write("config.json", CONFIG), folder.path().join("out.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.args(["bench", "latency"]).arg(config).args(["--load-format", "dummy", "--device", "cuda"]);
    command.args(["--max-model-len", "64", "--input-len", "5", "--output-len", "4", "--batch-size", "2"]);
    command.args(["--num-iters-warmup", "1", "--num-iters", "1", "--output-json"]).arg(&saved);
    if vitrum::engine::CAN_RECORD {
        command.arg("--node-table").env("VITRUM_PROFILE_DIR", folder.path());
    }
    let ended = finished(on_softcuda(command));
    assert!(ended.code == Some(0) && !ended.stderr.contains("softcuda: "), "{}", ended.stderr);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&saved).expect("saved")).expect("JSON");
    let decode = &json["decode"];
    for figure in ["step_ms_median", "gb_s", "read_peak_percent"] {
        assert!(decode[figure].as_f64() > Some(0.0), "{figure}: {json:#}");
    }
    assert!(decode["batch_size"] == 2 && ended.stdout.contains("Share of the read peak"), "{}", ended.stdout);
    if vitrum::engine::CAN_RECORD {
        assert_eq!(json["node_table"].as_array().map(Vec::len), Some(1 + 2 * 5 + 2), "{json:#}");
        assert!(json["node_table"][0]["Read peak (%)"].as_f64() > Some(0.0), "{json:#}");
    }
}

/// A kernel that a block has no room for is no surprise of the first request.
#[test]
fn a_gpu_with_less_shared_memory_is_refused_at_the_start() {
    let folder = TempDir::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrum"));
    command.args(["bench", "latency"]).arg(folder.write("config.json", CONFIG));
    command.args(["--load-format", "dummy", "--device", "cuda", "--max-model-len", "64", "--output-len", "4"]);
    command.env("SOFTCUDA_SHARED_BYTES", "40000");
    let ended = finished(on_softcuda(command));
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let said = "bytes of shared memory, and a block on this GPU has at most 40000";
    assert!(ended.stderr.contains("error: attention_f16_d") && ended.stderr.contains(said), "{}", ended.stderr);
    assert!(!ended.stdout.contains("Warming up"), "{}", ended.stdout);
}
