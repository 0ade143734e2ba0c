//! Model files whose numbers are odd, from the file to captured graphs and a step: taken, or refused in one sentence
//! that names the file. Never a panic.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::gguf_writer::{GgufWriter, Meta};
use support::steps;
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::formats::WeightFormat;
use vitrum::kernels::attention::MAX_HEAD_DIM;
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::step::{Precision, RowTokens, StepLimits, StepRunner};
use vitrum::text::Tokenizer;
use vitrum::weights::Dummy;

/// More values than this are not made for a test: what has them is only opened.
const VALUES_MAX: usize = 1 << 21;

/// A small generator: cases are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

/// What came of a model: whether it was taken. What refuses it says so in one sentence that names the file.
fn outcome<E: std::fmt::Display>(result: Result<(), E>, file: &str, what: &str) -> bool {
    let Err(error) = result else { return true };
    let said = error.to_string();
    let is_sentence = said.len() < 400 && said.contains(file) && !said.contains('\n');
    assert!(is_sentence, "{what}: {said}");
    false
}

/// Puts a model on a device, captures every graph, and runs a step of a prompt and one of a token.
fn run(weights: &Checkpoint, choice: DeviceChoice, activations: Activations) -> Result<(), vitrum::step::StepError> {
    let threads = (choice == DeviceChoice::Cpu).then_some(1);
    let options = DeviceOptions { choice, threads, isa: None, delay: None, activity: false };
    let device = Device::open(&options).expect("the device is there");
    let config = weights.config();
    let max_model_len = config.max_position.min(128);
    let limits = StepLimits { max_tokens: 8, max_seqs: 2, max_model_len, kv_pages: 120 };
    let precision = Precision { activations, kv: KvFormat::F16 };
    let mut runner = StepRunner::open(device, weights, &limits, precision, None)?;
    runner.capture_all()?;
    let tokens = steps::tokens(max_model_len.min(6), 1, config.vocab as u32);
    let last = tokens.len() - 1;
    for (rows, first_position) in [(&tokens[..last], 0), (&tokens[last..], last)] {
        if !rows.is_empty() {
            steps::push(&mut runner, 0, RowTokens::Host(rows), first_position);
            steps::run(&mut runner, 1);
        }
    }
    Ok(())
}

/// How many were taken, and how many refused.
#[derive(Debug, Default)]
struct Counted {
    taken: usize,
    refused: usize,
}

impl Counted {
    fn add(&mut self, is_taken: bool) {
        *(if is_taken { &mut self.taken } else { &mut self.refused }) += 1;
    }
}

/// Opens a file and, if it is taken, makes its tokenizer and runs it.
fn exercise(path: &Path, what: &str, counted: &mut Counted) {
    let weights = match Checkpoint::open(path) {
        Ok(weights) => weights,
        Err(error) => return counted.add(outcome(Err(error), "odd.gguf", what)),
    };
    let _ = Tokenizer::from_spec(weights.tokenizer().expect("a file has one"));
    for choice in [DeviceChoice::Null, DeviceChoice::Cpu] {
        let is_taken = outcome(run(&weights, choice, Activations::Reduced), "odd.gguf", what);
        if choice == DeviceChoice::Cpu {
            counted.add(is_taken);
        }
    }
}

/// Models whose tensors are what their sizes ask for: those that there are kernels for are taken, and no others.
#[test]
fn any_shape_in_any_formats_is_run_or_refused() {
    let (mut random, folder, mut counted) = (Random(1), TempDir::new(), Counted::default());
    for seed in 0..160 {
        let heads = random.of(&[1, 2, 3, 4, 6, 64, 65, 130]);
        let model = TinyModel {
            layers: random.of(&[1, 1, 2, 3]),
            hidden: random.of(&[1, 16, 31, 32, 33, 48, 64, 96]),
            ffn: random.of(&[1, 17, 32, 64, 100]),
            heads,
            kv_heads: random.of(&[1, 1, heads, 3]),
            head_dim: random.of(&[1, 2, 8, 15, 16, 16, 24, 32, 48, 64, 80, 112, 160, 240, 256, 256, 272, 512]),
            max_position: random.of(&[1, 2, 17, 512, u32::MAX as usize]),
            format: WeightFormat::F32,
            embedding_format: WeightFormat::F16,
            formats_seed: Some(seed),
            tied_embeddings: random.below(2) == 0,
            rope_factors: None,
            seed,
        };
        if heads * model.head_dim * model.hidden > 1 << 18 {
            continue;
        }
        let has_kernels = model.head_dim.is_multiple_of(16)
            && model.head_dim <= MAX_HEAD_DIM
            && model.heads.is_multiple_of(model.kv_heads);
        let before = counted.taken;
        exercise(&folder.write("odd.gguf", model.writer().bytes()), &format!("{model:?}"), &mut counted);
        assert_eq!(counted.taken > before, has_kernels, "{model:?}");
    }
    println!("{counted:?}");
    assert!(counted.taken > 40 && counted.refused > 20, "{counted:?}");
}

/// Numbers at edges, in every type that a key may have.
fn odd_values() -> Vec<Meta> {
    let integers = [0, 1, 2, 3, 15, 16, 17, 32, 33, 255, 256, 512, 1 << 16, 1 << 24, (1 << 24) + 1, 1 << 31];
    let large = [u64::from(u32::MAX), 1 << 32, 1 << 53, 1 << 63, u64::MAX];
    let floats = [0.0, -0.0, -1.0, 0.5, 1.0, 5e-324, 1e-45, 1e-30, 1e38, 1e39, f64::MAX, f64::NAN, f64::INFINITY];
    let mut values: Vec<Meta> = integers.into_iter().chain(large).map(Meta::U64).collect();
    values.extend([-1, i64::MIN].map(Meta::I64));
    values.extend(floats.map(Meta::F64));
    values.extend(floats.map(|value| Meta::F32(value as f32)));
    values.extend([Meta::U8(255), Meta::I8(-1), Meta::U32(7), Meta::Bool(true), Meta::Text(String::new())]);
    values.extend([Meta::Text("none".into()), vec![1i32].into(), vec![1.0f32].into(), vec![String::new()].into()]);
    values
}

/// A file of every part that one has.
fn whole() -> GgufWriter {
    let model = TinyModel {
        layers: 1,
        tied_embeddings: false,
        rope_factors: Some(vec![1.0; 8]),
        formats_seed: Some(3),
        ..TinyModel::default()
    };
    let mut writer = model.writer();
    writer.set("llama.rope.scaling.factor", 1.0).set("llama.rope.scale_linear", 0.0).set("llama.expert_count", 0u32);
    writer.set("tokenizer.ggml.unknown_token_id", 0u32);
    writer
}

/// Every key with every odd value, and without; then several at once.
#[test]
fn any_value_of_any_key_is_run_or_refused() {
    let (writer, folder, mut counted) = (whole(), TempDir::new(), Counted::default());
    let keys: Vec<String> = writer.metadata.iter().map(|(key, _)| key.clone()).collect();
    assert!(keys.len() > 20, "{keys:?}");
    exercise(&folder.write("odd.gguf", writer.bytes()), "as it is", &mut counted);
    assert_eq!(counted.taken, 1, "as it is");
    let mut run = |changed: &GgufWriter, what: &str| {
        exercise(&folder.write("odd.gguf", changed.bytes()), what, &mut counted);
    };
    for key in &keys {
        run(writer.clone().unset(key), &format!("without {key}"));
        for value in odd_values() {
            run(writer.clone().set(key, value.clone()), &format!("{key} = {value:?}"));
        }
    }
    let (mut random, values) = (Random(2), odd_values());
    for _ in 0..300 {
        let mut changed = writer.clone();
        let changes: Vec<_> = (0..2 + random.below(3)).map(|_| (random.of(&keys), random.of(&values))).collect();
        for (key, value) in &changes {
            changed.set(key, value.clone());
        }
        run(&changed, &format!("{changes:?}"));
    }
    println!("{counted:?}");
    assert!(counted.taken > 50 && counted.refused > 500, "{counted:?}");
}

/// Every tensor with every type and with odd shapes.
#[test]
fn any_type_and_shape_of_any_tensor_is_run_or_refused() {
    let (writer, folder, mut counted) = (whole(), TempDir::new(), Counted::default());
    let mut run = |changed: &GgufWriter, what: &str| {
        exercise(&folder.write("odd.gguf", changed.bytes()), what, &mut counted);
    };
    for tensor in &writer.tensors {
        let name = tensor.name.as_str();
        for type_id in (0..41).chain([99, u32::MAX]) {
            run(writer.clone().claim_type(name, type_id), &format!("{name} of type {type_id}"));
        }
        let (cols, rows) = (tensor.dims[0], tensor.dims.get(1).copied().unwrap_or(1));
        let shapes: [&[u64]; 12] = [
            &[0],
            &[1],
            &[cols],
            &[rows, cols],
            &[cols, rows, 1],
            &[cols, rows, 1, 1],
            &[cols * rows],
            &[cols, rows + 1],
            &[cols + 1, rows],
            &[cols, u64::MAX],
            &[1 << 32, 1 << 32],
            &[1 << 63, 2],
        ];
        for shape in shapes {
            run(writer.clone().claim_dims(name, shape), &format!("{name} of shape {shape:?}"));
        }
    }
    println!("{counted:?}");
    assert!(counted.taken > 10 && counted.refused > 500, "{counted:?}");
}

/// A config.json of every part that one has.
fn whole_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 40, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": true, "eos_token_id": 7,
        "hidden_act": "silu", "attention_bias": false, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        }
    })
}

fn exercise_config(config: &Value, format: WeightFormat, counted: &mut Counted) {
    let what = format!("{config} in {}", format.as_str());
    let dummy = Dummy::of_text(&config.to_string(), Path::new("odd/config.json"), format, 1);
    let weights = match dummy.and_then(|dummy| Checkpoint::of(Box::new(dummy))) {
        Ok(weights) => weights,
        Err(error) => return counted.add(outcome(Err(error), "config.json", &what)),
    };
    let values: usize = weights.tensors().map(|tensor| tensor.rows * tensor.cols).sum();
    if values > VALUES_MAX {
        return;
    }
    outcome(run(&weights, DeviceChoice::Null, Activations::F32), "config.json", &what);
    counted.add(outcome(run(&weights, DeviceChoice::Cpu, Activations::F32), "config.json", &what));
}

/// Every field of a config.json with every odd value, and without; then several at once.
#[test]
fn any_value_of_any_field_of_a_config_is_run_or_refused() {
    let numbers =
        ["0", "1", "2", "3", "15", "16", "17", "24", "31", "32", "33", "48", "64", "255", "256", "272", "512"];
    let large = ["65536", "16777216", "16777217", "4294967295", "4294967296", "9223372036854775808", "1e19", "1e308"];
    let others =
        ["-1", "0.5", "-0.0", "5e-324", "1e-46", "1e39", "null", "true", "false", "\"\"", "\"silu\"", "[]", "{}"];
    let values: Vec<Value> =
        numbers.iter().chain(&large).chain(&others).map(|text| text.parse().expect("JSON")).collect();
    let formats = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_1];
    let (mut random, mut counted, whole) = (Random(3), Counted::default(), whole_config());
    let fields: Vec<String> = ["", "/rope_scaling"]
        .iter()
        .flat_map(|at| {
            whole.pointer(at).and_then(Value::as_object).expect("an object").keys().map(move |key| (at, key))
        })
        .map(|(at, key)| format!("{at}/{key}"))
        .collect();
    for field in &fields {
        for value in &values {
            let mut config = whole.clone();
            *config.pointer_mut(field).expect("a field") = value.clone();
            exercise_config(&config, random.of(&formats), &mut counted);
        }
        let (at, key) = field.rsplit_once('/').expect("a slash");
        let mut config = whole.clone();
        config.pointer_mut(at).and_then(Value::as_object_mut).expect("an object").remove(key);
        exercise_config(&config, random.of(&formats), &mut counted);
    }
    for _ in 0..300 {
        let mut config = whole.clone();
        for _ in 0..2 + random.below(3) {
            if let Some(field) = config.pointer_mut(&random.of(&fields)) {
                *field = random.of(&values);
            }
        }
        exercise_config(&config, random.of(&formats), &mut counted);
    }
    println!("{counted:?}");
    assert!(counted.taken > 50 && counted.refused > 300, "{counted:?}");
}
