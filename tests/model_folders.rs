//! Hugging Face model folders: what is read, and what is refused and how.

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::assert_says;
use support::folder_writer::{FolderWriter, safetensors};
use support::steps::{assert_same_bits, prefill, tokens};
use support::temp::TempDir;
use support::tiny_model::{CONTROL_TOKENS, END_OF_TURN, TinyModel};
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::formats::WeightFormat;
use vitrum::model::{Checkpoint, KvFormat};
use vitrum::step::{Precision, StepLimits, StepRunner};
use vitrum::weights::{TokenizerSpec, WeightsError};

const LIMITS: StepLimits = StepLimits { max_tokens: 64, max_seqs: 8, max_model_len: 512, kv_pages: 120 };

fn model(format: WeightFormat, tied_embeddings: bool) -> TinyModel {
    TinyModel { format, embedding_format: format, tied_embeddings, ..TinyModel::default() }
}

fn writer() -> FolderWriter {
    FolderWriter::of(&model(WeightFormat::Bf16, true))
}

fn open(writer: &FolderWriter) -> Result<Checkpoint, WeightsError> {
    Checkpoint::open_folder(&writer.write(&TempDir::new()))
}

fn runner(weights: &Checkpoint, activations: Activations) -> StepRunner {
    let options =
        DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(2), isa: None, delay: None, activity: false };
    let device = Device::open(&options).expect("the CPU is there");
    let precision = Precision { activations, kv: KvFormat::F16 };
    StepRunner::open(device, weights, &LIMITS, precision, None).expect("the model fits")
}

#[test]
fn a_folder_computes_what_the_same_model_as_gguf_does() {
    let prompt = tokens(70, 5, 256);
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
        for (tied, head_dim) in [(true, 16), (false, 32)] {
            let model = TinyModel { head_dim, ..model(format, tied) };
            let gguf = Checkpoint::open(&model.write(&TempDir::new())).expect("a model");
            let whole = Checkpoint::open_folder(&FolderWriter::of(&model).write(&TempDir::new())).expect("a model");
            let sharded = Checkpoint::open_folder(&FolderWriter::of(&model).write_sharded(&TempDir::new(), 3));
            let sharded = sharded.expect("a model");
            for activations in [Activations::Reduced, Activations::F32] {
                let expected = prefill(&mut runner(&gguf, activations), &prompt, 64);
                for folder in [&whole, &sharded] {
                    let mut runner = runner(folder, activations);
                    let got = prefill(&mut runner, &prompt, 64);
                    assert!(got == expected, "{} {activations:?} tied: {tied}", format.as_str());
                    assert_same_bits(&mut runner, &prompt, &got, format.as_str());
                }
            }
        }
    }
}

#[test]
fn the_texts_of_a_folder_are_read() {
    let folder = TempDir::new();
    let weights = Checkpoint::open_folder(&writer().write(&folder)).expect("a model");
    let config = weights.config();
    assert_eq!((config.layers, config.hidden, config.vocab), (2, 64, 267));
    assert_eq!(config.eos_tokens, [END_OF_TURN]);
    assert_eq!(config.name, folder.path().file_name().unwrap().to_string_lossy());
    assert!(weights.path().ends_with("config.json"));
    let Some(TokenizerSpec::Json(tokenizer)) = weights.tokenizer() else { panic!("a tokenizer.json") };
    assert_eq!(tokenizer.bos_token.as_deref(), Some(CONTROL_TOKENS[1]));
    assert_eq!(tokenizer.eos_token.as_deref(), Some(CONTROL_TOKENS[2]));
    assert!(tokenizer.chat_template.as_deref().unwrap().contains("<|im_start|>"));

    // A template of its own file, and one of several.
    let template = |weights: &Checkpoint| weights.tokenizer().unwrap().chat_template().map(str::to_owned);
    folder.write("chat_template.json", json!({"chat_template": "of json"}).to_string());
    assert_eq!(template(&Checkpoint::open_folder(folder.path()).unwrap()).as_deref(), Some("of json"));
    folder.write("chat_template.jinja", "of jinja");
    assert_eq!(template(&Checkpoint::open_folder(folder.path()).unwrap()).as_deref(), Some("of jinja"));
    let named = json!([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]);
    let mut several = writer();
    several.tokenizer_config["chat_template"] = named;
    assert_eq!(template(&open(&several).unwrap()).as_deref(), Some("yes"));
    several.tokenizer_config["chat_template"][1]["name"] = json!("other");
    assert_says(open(&several).unwrap_err(), "chat_template is \"tool_use, other\"");
}

#[test]
fn the_hubs_cache_gives_a_model_its_name() {
    let cache = TempDir::new();
    let snapshot = cache.path().join("models--owner--a--name/snapshots/0123abcd");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    let folder = TempDir::new();
    writer().write(&folder);
    for entry in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
        std::fs::rename(entry.path(), snapshot.join(entry.file_name())).expect("a file");
    }
    assert_eq!(Checkpoint::open_folder(&snapshot).expect("a model").config().name, "owner/a--name");
}

#[test]
fn a_folder_without_a_tokenizer_has_none() {
    let bare = FolderWriter { tokenizer: Value::Null, tokenizer_config: Value::Null, ..writer() };
    let weights = open(&bare).expect("a model");
    assert!(weights.tokenizer().is_none());
    assert_eq!(weights.config().eos_tokens, [END_OF_TURN]);
}

#[test]
fn the_tokens_that_end_an_answer_are_the_models_and_the_tokenizers() {
    let mut writer = writer();
    writer.config["eos_token_id"] = json!(0);
    assert_eq!(open(&writer).unwrap().config().eos_tokens, [0, END_OF_TURN]);
    writer.config.as_object_mut().unwrap().remove("eos_token_id");
    assert_eq!(open(&writer).unwrap().config().eos_tokens, [END_OF_TURN]);
    writer.tokenizer_config = json!({});
    assert_says(open(&writer).unwrap_err(), "eos_token_id is missing");
}

#[test]
fn tensors_that_say_nothing_are_passed_over() {
    let mut writer = FolderWriter::of(&model(WeightFormat::Bf16, false));
    let mut frequencies = writer.tensors[1].clone();
    frequencies.name = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
    writer.tensors.push(frequencies);
    assert!(!open(&writer).expect("a model").config().tied_embeddings);
    // Tied, the file's own projection is the embedding once more.
    writer.config["tie_word_embeddings"] = json!(true);
    assert!(open(&writer).expect("a model").config().tied_embeddings);
    // Nothing is said: then the file says it.
    let fields = writer.config.as_object_mut().unwrap();
    fields.remove("tie_word_embeddings");
    assert!(!open(&writer).expect("a model").config().tied_embeddings);
    writer.tensors.retain(|tensor| tensor.name != "lm_head.weight");
    assert!(open(&writer).expect("a model").config().tied_embeddings);
    writer.config["tie_word_embeddings"] = json!(false);
    assert_says(open(&writer).unwrap_err(), "tensor lm_head.weight is missing");
}

#[test]
fn what_is_wrong_is_said() {
    let change = |change: &dyn Fn(&mut FolderWriter)| {
        let mut writer = writer();
        change(&mut writer);
        open(&writer).expect_err("it is wrong")
    };
    let q = |writer: &FolderWriter| writer.tensors.iter().position(|tensor| tensor.name.contains("1.self_attn.q_proj"));
    let q = q(&writer()).expect("a tensor");
    let name = "model.layers.1.self_attn.q_proj.weight";
    type Change<'a> = dyn Fn(&mut FolderWriter) + 'a;
    let cases: [(&Change<'_>, &str); 7] = [
        (
            &|w| w.config["quantization_config"] = json!({"bits": 4}),
            "quantization_config = {\"bits\":4} is not supported",
        ),
        (
            &|w| w.config["architectures"] = json!(["MambaForCausalLM"]),
            "architecture MambaForCausalLM is not supported",
        ),
        (&|w| drop(w.tensors.remove(q)), &format!("tensor {name} is missing")),
        (
            &|w| w.tensors[q].shape = vec![32, 128],
            &format!("{name} is 32 × 128, and the model's sizes ask for 64 × 64"),
        ),
        (&|w| w.tensors[q].shape = vec![64, 8, 8], &format!("{name} is 512 × 8")),
        (&|w| w.tensors[q].dtype = "I16", &format!("{name} has type I16, which is not supported")),
        (&|w| w.add_copy(q, "model.other"), "tensor model.other has no place in this architecture"),
    ];
    for (case, expected) in cases {
        assert_says(change(case), expected);
    }
    assert_says(change(&|writer| writer.tensors[q].dtype = "F32"), "model.safetensors: not a whole safetensors file");
    assert_says(change(&|writer| writer.config = json!(3)), "config.json: ");
    assert_says(change(&|writer| writer.tokenizer = json!("no")), "tokenizer.json: ");
    assert_says(change(&|writer| writer.tokenizer_config = json!([0])), "tokenizer_config.json: ");
}

#[test]
fn weights_that_are_not_there_are_asked_for() {
    let folder = TempDir::new();
    let path = writer().write(&folder);
    std::fs::rename(path.join("model.safetensors"), path.join("pytorch_model.bin")).expect("a file");
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "has pytorch_model.bin, and weights are read from model.");
    std::fs::remove_file(path.join("pytorch_model.bin")).expect("a file");
    assert_says(
        Checkpoint::open_folder(&path).unwrap_err(),
        "has no weights, and weights are read from model.safetensors",
    );
    std::fs::remove_file(path.join("config.json")).expect("a file");
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "config.json: No such file");
}

#[test]
fn an_index_has_to_be_right() {
    let folder = TempDir::new();
    let path = writer().write_sharded(&folder, 2);
    let file = |shard: u32| format!("model-0000{shard}-of-00002.safetensors");
    let index = path.join("model.safetensors.index.json");
    let good = std::fs::read_to_string(&index).expect("a file");
    for name in ["../x.safetensors", "/etc/passwd", "a/b", "", ".."] {
        std::fs::write(&index, good.replacen(&file(1), name, 1)).expect("a file");
        assert_says(Checkpoint::open_folder(&path).unwrap_err(), "weight_map is ");
    }
    std::fs::write(&index, good.replace(&file(1), &file(2))).expect("a file");
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "model-00002-of-00002.safetensors: tensor ");
    std::fs::write(&index, "{}").expect("a file");
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "missing field `weight_map`");
    std::fs::write(&index, &good).expect("a file");
    Checkpoint::open_folder(&path).expect("a model");
    folder.write(&file(2), safetensors(&writer().tensors));
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "model-00001-of-00002.safetensors, too");
    std::fs::remove_file(path.join(file(2))).expect("a file");
    assert_says(Checkpoint::open_folder(&path).unwrap_err(), "model-00002-of-00002.safetensors: No such file");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = TempDir::new();
    let path = writer().write(&folder);
    let bytes = std::fs::read(path.join("model.safetensors")).expect("a file");
    let cuts = (0..4096).step_by(7).chain((4096..bytes.len()).step_by(9973)).chain([bytes.len() - 1]);
    for cut in cuts {
        folder.write("model.safetensors", &bytes[..cut]);
        assert_says(Checkpoint::open_folder(&path).unwrap_err(), "model.safetensors: ");
    }
}

/// Opens, and reads all that was taken: must not panic, whatever the bytes are.
fn exercise(folder: &TempDir) {
    match Checkpoint::open_folder(folder.path()) {
        Ok(weights) => {
            for spec in weights.tensors() {
                let tensor = weights.tensor(&spec.name).expect("checked at open");
                assert_eq!(tensor.data.len(), tensor.rows * tensor.format.row_bytes(tensor.cols));
            }
        }
        Err(error) => assert!(error.to_string().len() < 3000, "an error of a sensible length"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_flips_are_taken_or_refused(
        file in 0usize..4,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let folder = TempDir::new();
        let small = TinyModel { layers: 1, ..model(WeightFormat::Bf16, true) };
        let path = FolderWriter::of(&small).write_sharded(&folder, 2);
        let shard = "model-00001-of-00002.safetensors";
        let name = ["config.json", "model.safetensors.index.json", shard, "tokenizer.json"][file];
        let mut bytes = std::fs::read(path.join(name)).expect("a file");
        let flipped = bytes.len().min(2000); // of weights, the header
        for (index, value) in flips {
            bytes[index.index(flipped)] = value;
        }
        folder.write(name, bytes);
        exercise(&folder);
    }

    #[test]
    fn any_header_is_taken_or_refused(length in any::<u64>(), text in ".{0,200}", cut in any::<bool>()) {
        let folder = TempDir::new();
        writer().write(&folder);
        let length = if cut { length } else { text.len() as u64 };
        folder.write("model.safetensors", [&length.to_le_bytes()[..], text.as_bytes()].concat());
        exercise(&folder);
    }

    #[test]
    fn any_offsets_are_taken_or_refused(start in any::<u64>(), end in any::<u64>(), rows in any::<u64>()) {
        let folder = TempDir::new();
        writer().write(&folder);
        let header = json!({"a": {"dtype": "U8", "shape": [rows, 1], "data_offsets": [start, end]}}).to_string();
        folder.write("model.safetensors", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
        exercise(&folder);
    }
}
