//! Random weights for a `config.json`.

mod support;

use std::path::PathBuf;

use serde_json::{Value, json};
use support::assert_says;
use support::temp::TempDir;
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;
use vitrum::weights::WeightsError;

fn config_json() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": false,
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 2, "vocab_size": 1000, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "max_position_embeddings": 2048, "tie_word_embeddings": false, "eos_token_id": [7, 9], "bos_token_id": 1,
        "rope_scaling": null, "torch_dtype": "bfloat16", "_name_or_path": "anything"
    })
}

fn written(folder: &TempDir, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut config = config_json();
    change(&mut config);
    folder.write("config.json", config.to_string())
}

fn open(change: impl FnOnce(&mut Value)) -> Result<Checkpoint, WeightsError> {
    let folder = TempDir::new();
    Checkpoint::random(&written(&folder, change), WeightFormat::Q8_0, 1)
}

#[test]
fn the_config_is_what_the_file_says() {
    let weights = open(|_| {}).expect("a model");
    let config = weights.config();
    assert_eq!((config.layers, config.hidden, config.ffn), (2, 256, 512));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (8, 2, 32));
    assert_eq!((config.vocab, config.max_position, config.rope_theta), (1000, 2048, 500_000.0));
    assert_eq!(config.eos_tokens, [7, 9]);
    assert!(!config.tied_embeddings && weights.tensor("output.weight").is_ok());
    assert!(weights.tokenizer().is_none());
    let one = open(|c| c["eos_token_id"] = json!(3)).expect("a model");
    assert_eq!(one.config().eos_tokens, [3]);
    let wide = open(|c| c["head_dim"] = json!(64)).expect("a model");
    assert_eq!(wide.tensor("blk.0.attn_q.weight").expect("a matrix").rows, 512);
}

#[test]
fn weights_have_mean_0_and_keep_variance() {
    let folder = TempDir::new();
    let path = written(&folder, |_| {});
    for format in WeightFormat::ALL {
        let weights = Checkpoint::random(&path, format, 1).expect("a model");
        for spec in weights.tensors() {
            let tensor = weights.tensor(&spec.name).expect("a tensor");
            assert_eq!((tensor.rows, tensor.cols), (spec.rows, spec.cols), "{}", spec.name);
            let values = tensor.to_f32();
            if tensor.rows == 1 {
                assert_eq!(tensor.format, WeightFormat::F32);
                assert!(values.iter().all(|gain| (0.8..1.2).contains(gain)), "gains near 1");
                continue;
            }
            assert_eq!(tensor.format, format);
            let count = values.len() as f64;
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
            let variance = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / count;
            let scaled = variance * tensor.cols as f64;
            // Five standard errors of the mean of `count` values of variance 1/cols; in 4 bits, whole blocks go
            // together.
            let mean_max = 5.0 * (32.0 / (count * tensor.cols as f64)).sqrt();
            assert!(mean.abs() < mean_max, "{} {}: mean {mean}", spec.name, format.as_str());
            assert!((0.9..1.2).contains(&scaled), "{} {}: {scaled}", spec.name, format.as_str());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let folder = TempDir::new();
    let path = written(&folder, |_| {});
    let data = |seed, name: &str| {
        let weights = Checkpoint::random(&path, WeightFormat::Q4_0, seed).expect("a model");
        weights.tensor(name).expect("a tensor").data.into_owned()
    };
    let q = data(1, "blk.0.attn_q.weight");
    assert_eq!(q, data(1, "blk.0.attn_q.weight"));
    assert_ne!(q, data(2, "blk.0.attn_q.weight"), "another seed, other weights");
    assert_ne!(q, data(1, "blk.1.attn_q.weight"), "another layer, other weights");
    let row_bytes = WeightFormat::Q4_0.row_bytes(256);
    assert_ne!(q[..row_bytes], q[row_bytes..2 * row_bytes], "rows differ");
}

#[test]
fn a_tensor_is_the_same_whatever_threads_make_it() {
    // Large enough for several threads; the first rows are those of the small tensor of the same name and width.
    let folder = TempDir::new();
    let small = Checkpoint::random(&written(&folder, |_| {}), WeightFormat::F32, 1).expect("a model");
    let small = small.tensor("token_embd.weight").expect("the embedding").data.into_owned();
    let large = written(&folder, |c| c["vocab_size"] = json!(20_000));
    let large = Checkpoint::random(&large, WeightFormat::F32, 1).expect("a model");
    let large = large.tensor("token_embd.weight").expect("the embedding");
    assert_eq!(large.data[..small.len()], small);
}

#[test]
fn llama3_scaling_becomes_frequency_factors() {
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    let weights = open(|c| {
        c["rope_scaling"] = scaling.clone();
        c["head_dim"] = json!(128);
    });
    let weights = weights.expect("a model");
    let factors = weights.config().rope_factors.as_deref().expect("factors");
    // Divisors of Llama 3.1's frequencies (head width 128, base 500000), computed from transformers' rule.
    assert_eq!(factors.len(), 64);
    assert!(factors[..29].iter().all(|factor| *factor == 1.0), "high frequencies stay: {factors:?}");
    assert!(factors[35..].iter().all(|factor| *factor == 8.0), "low frequencies are divided: {factors:?}");
    let between = [1.2074839, 1.5534146, 2.0263132, 2.6945297, 3.6842525, 5.257_326_6];
    for (found, expected) in factors[29..35].iter().zip(between) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} is not {expected}");
    }
    // The kind under both of its names.
    let both = open(|c| {
        let mut both = scaling.clone();
        both["type"] = json!("llama3");
        c["rope_scaling"] = both;
        c["head_dim"] = json!(128);
    });
    assert_eq!(both.expect("a model").config().rope_factors.as_deref(), Some(factors));
    // The later spelling of the same.
    let later = open(|c| {
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(500_000.0);
        c["rope_parameters"] = parameters;
        c["rope_theta"].take();
        c.as_object_mut().expect("an object").retain(|key, _| key != "rope_theta");
        c["head_dim"] = json!(128);
    });
    let later = later.expect("a model");
    assert_eq!(later.config().rope_factors.as_deref(), Some(factors));
}

#[test]
fn configs_that_would_be_computed_wrongly_are_refused() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 24] = [
        (|c| c["architectures"] = json!(["MambaForCausalLM"]), "architecture MambaForCausalLM is not supported"),
        (|c| c["architectures"] = json!([]), "architectures is [], and has to be an array of one name"),
        (|c| remove(c, "hidden_size"), "config.json: hidden_size is missing"),
        (|c| remove(c, "rms_norm_eps"), "rms_norm_eps is missing"),
        (|c| remove(c, "eos_token_id"), "eos_token_id is missing"),
        (|c| c["hidden_size"] = json!("256"), "hidden_size is \"256\", and has to be an integer"),
        (|c| c["hidden_size"] = json!(-1), "hidden_size is -1, and has to be an integer from 1 to 16777216"),
        (|c| c["vocab_size"] = json!(1e300), "vocab_size is 1e300"),
        (|c| c["num_key_value_heads"] = json!(3), "num_key_value_heads is 3 for 8 query heads"),
        (|c| c["eos_token_id"] = json!(1000), "eos_token_id is 1000"),
        (|c| c["hidden_act"] = json!("gelu"), "hidden_act = \"gelu\" is not supported"),
        (|c| c["attention_bias"] = json!(1), "attention_bias is 1, and has to be true or false"),
        (|c| c["new_thing"] = json!(1), "new_thing = 1 is not supported"),
        (|c| c["factor"] = json!(1), "config.json: factor = 1 is not supported"),
        (|c| c["rope_type"] = json!("none"), "config.json: rope_type = \"none\" is not supported"),
        (|c| c["original_max_position_embeddings"] = json!(8192), "embeddings = 8192 is not supported"),
        (|c| c["sliding_window"] = json!(0), "sliding_window = 0 is not supported"),
        (|c| c["rope_interleaved"] = json!(true), "rope_interleaved = true is not supported"),
        (|c| c["rope_scaling"] = json!({"rope_type": "dynamic"}), "rope_scaling.rope_type = \"dynamic\""),
        (|c| c["rope_scaling"] = json!({"rope_type": "yarn", "factor": 0}), "rope_scaling.factor is 0, and has to be"),
        (|c| c["rope_scaling"] = json!({"rope_type": "llama3"}), "rope_scaling.factor is missing"),
        (
            |c| c["rope_scaling"] = json!({"rope_type": "default", "type": "yarn"}),
            "rope_scaling.type is \"yarn\", and has to be the same as rope_type",
        ),
        (|c| c["rope_scaling"] = json!(4), "rope_scaling is 4, and has to be an object"),
        (|c| c["intermediate_size"] = json!(500), "blk.0.ffn_down.weight in q8_0 needs rows of a multiple of 32"),
    ];
    for (change, expected) in table {
        assert_says(open(change).expect_err(expected), expected);
    }
    let folder = TempDir::new();
    let broken = folder.write("config.json", "{");
    assert!(matches!(Checkpoint::random(&broken, WeightFormat::F32, 1), Err(WeightsError::Json { .. })));
}

fn remove(config: &mut Value, key: &str) {
    config.as_object_mut().expect("an object").remove(key);
}

/// The shapes that benchmarks run have the published numbers of parameters.
#[test]
fn the_configs_of_benches_are_the_models_that_they_are_named_after() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/configs");
    let published = [("smollm2-135m", 134_515_008), ("llama-3.2-1b", 1_235_814_400), ("llama-3.1-8b", 8_030_261_248)];
    for (name, parameters) in published {
        let path = folder.join(format!("{name}.json"));
        let weights =
            Checkpoint::random(&path, WeightFormat::Bf16, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(weights.tensors().map(|tensor| tensor.rows * tensor.cols).sum::<usize>(), parameters, "{name}");
        assert_eq!(weights.config().rope_factors.is_some(), name.starts_with("llama"), "{name}");
    }
    let files = std::fs::read_dir(folder).expect("a folder").count();
    assert_eq!(files, published.len(), "a configuration without its number");
}

#[test]
fn a_tensor_that_no_machine_has_memory_for_is_an_error() {
    let folder = TempDir::new();
    let path = written(&folder, |config| {
        for field in ["hidden_size", "intermediate_size", "vocab_size"] {
            config[field] = json!(1 << 24);
        }
    });
    let weights = Checkpoint::random(&path, WeightFormat::Bf16, 0).expect("every field is in its range");
    let refused = weights.tensor("token_embd.weight").expect_err("half a petabyte");
    assert_says(refused, "tensor token_embd.weight has 562949953421312 bytes");
}
