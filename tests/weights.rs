//! Model files: what is read, and what is refused and how.

mod support;

use proptest::prelude::*;
use support::gguf_writer::{GgufWriter, Meta, quantise};
use support::temp::TempDir;
use support::tiny_model::TinyModel;
use support::{assert_says, smollm2};
use vitrum::formats::WeightFormat;
use vitrum::model::Checkpoint;
use vitrum::weights::{Malformed, TokenKind, TokenizerSpec, WeightsError};

fn open(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let folder = TempDir::new();
    Checkpoint::open(&folder.write("model.gguf", bytes))
}

fn open_tiny(change: impl FnOnce(&mut GgufWriter) -> &mut GgufWriter) -> Result<Checkpoint, WeightsError> {
    let mut writer = TinyModel::default().writer();
    change(&mut writer);
    open(&writer.bytes())
}

#[test]
fn every_format_is_read_as_it_was_written() {
    for format in WeightFormat::ALL {
        let model = TinyModel { format, embedding_format: format, tied_embeddings: false, ..TinyModel::default() };
        let writer = model.writer();
        let weights = open(&writer.bytes()).expect("a model");
        for written in &writer.tensors {
            let read = weights.tensor(&written.name).expect("a tensor that was written");
            assert_eq!(read.name, written.name);
            assert_eq!(read.data, written.data, "{} in {}", written.name, format.as_str());
            assert_eq!(read.cols as u64, written.dims[0]);
            assert_eq!(read.rows as u64, written.dims.get(1).copied().unwrap_or(1));
        }
        assert_eq!(weights.tensor("blk.1.ffn_down.weight").expect("a matrix").format, format);
    }
}

#[test]
fn formats_hold_the_values_to_their_precision() {
    let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin()).collect();
    for (format, error_max) in WeightFormat::ALL.into_iter().zip([0.0, 5e-4, 4e-3, 5e-3, 0.126, 0.07]) {
        let mut out = vec![0.0; values.len()];
        format.dequantise_row(&quantise(format, &values), &mut out);
        let error = values.iter().zip(&out).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error <= error_max, "{}: error {error} above {error_max}", format.as_str());
    }
}

#[test]
fn the_config_is_what_the_metadata_say() {
    let weights = open_tiny(|writer| writer).expect("a model");
    let config = weights.config();
    assert_eq!(config.family, "llama");
    assert_eq!(config.name, "tiny");
    assert_eq!((config.layers, config.hidden, config.ffn), (2, 64, 96));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (4, 2, 16));
    assert_eq!((config.vocab, config.max_position), (267, 512));
    assert_eq!((config.rms_eps, config.rope_theta), (1e-5, 10_000.0));
    assert!(config.tied_embeddings);
    assert_eq!(config.eos_tokens, [2, 0], "the declared one first, then control tokens known by name");
    for absent in ["output.weight", "rope_freqs.weight"] {
        assert!(matches!(weights.tensor(absent), Err(WeightsError::MissingTensor { .. })));
    }

    let factors = TinyModel { rope_factors: Some(vec![2.0; 8]), tied_embeddings: false, ..TinyModel::default() };
    let weights = open(&factors.writer().bytes()).expect("a model");
    assert!(!weights.config().tied_embeddings);
    assert_eq!(weights.tensor("rope_freqs.weight").expect("factors").to_f32(), [2.0; 8]);
}

#[test]
fn left_out_keys_have_their_defaults() {
    let model = TinyModel { kv_heads: 4, ..TinyModel::default() };
    let mut writer = model.writer();
    for key in [
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.rope.dimension_count",
        "llama.rope.freq_base",
        "general.name",
        "tokenizer.ggml.token_type",
    ] {
        writer.unset(key);
    }
    let weights = open(&writer.bytes()).expect("a model");
    let config = weights.config();
    assert_eq!((config.kv_heads, config.head_dim, config.rope_theta), (4, 16, 10_000.0));
    assert_eq!(config.name, "unnamed");
    let Some(TokenizerSpec::Vocabulary(vocabulary)) = weights.tokenizer() else { panic!("a vocabulary") };
    assert_eq!(vocabulary.kinds, [TokenKind::Normal; 267]);
}

#[test]
fn all_kinds_of_metadata_are_stepped_over() {
    let nested = Meta::Array(9, vec![Meta::Array(7, vec![Meta::Bool(true)]), Meta::Array(8, vec!["x".into()])]);
    let values = [
        Meta::U8(1),
        Meta::I8(-1),
        Meta::U16(2),
        Meta::I16(-2),
        Meta::U32(3),
        Meta::I32(-3),
        Meta::F32(0.5),
        Meta::Bool(true),
        Meta::Text("text".to_owned()),
        Meta::U64(4),
        Meta::I64(-4),
        Meta::F64(0.25),
        Meta::Array(0, vec![Meta::U8(1); 3]),
        Meta::Array(12, vec![Meta::F64(1.0); 3]),
        Meta::Array(9, vec![]),
        nested,
    ];
    for version in [2, 3] {
        let read = open_tiny(|writer| {
            writer.version = version;
            writer.alignment = 64;
            for (index, value) in values.iter().enumerate() {
                writer.set(&format!("test.{index}"), value.clone());
            }
            writer
        });
        assert_eq!(read.expect("a model").config().layers, 2);
    }
}

#[test]
fn smollm2_is_what_its_makers_say() {
    let weights = Checkpoint::open(&smollm2::path()).expect("SmolLM2 opens");
    let config = weights.config();
    assert_eq!((config.layers, config.hidden, config.ffn), (30, 576, 1536));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (9, 3, 64));
    assert_eq!((config.vocab, config.max_position), (49_152, 8192));
    assert_eq!((config.rms_eps, config.rope_theta), (1e-5, 100_000.0));
    assert!(config.tied_embeddings);
    assert_eq!(config.eos_tokens, [2, 0]);
    let parameters: usize = weights.tensors().map(|tensor| tensor.rows * tensor.cols).sum();
    assert_eq!(parameters, 134_515_008);
    assert_eq!(weights.tensor("token_embd.weight").expect("the embedding").format, WeightFormat::Q8_0);
    assert_eq!(weights.tensor("blk.29.ffn_down.weight").expect("a matrix").format, WeightFormat::Q4_1);
}

// ---- What is refused

/// A header that claims things: magic, version, tensors, keys, rest.
fn header(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(keys.to_le_bytes());
    bytes.extend(rest);
    bytes
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(value);
    bytes
}

#[test]
fn bytes_that_are_no_gguf_file_are_refused_where_they_go_wrong() {
    let huge = 1u64 << 63;
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let deep = [array(9, 1), array(9, 1), array(9, 1), array(9, 1), array(9, 1), array(0, 0)].concat();
    let twice = [key("a", 0, &[1]), key("a", 0, &[1])].concat();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "not a GGUF file: it begins with []"),
        (b"GG".to_vec(), "not a GGUF file"),
        (b"PK\x03\x04xxxxxxxxxxxxxxxxxxxxxxxx".to_vec(), "not a GGUF file: it begins with [50, 4b, 03, 04]"),
        (b"GGUF".to_vec(), "version at byte 4 needs 4 bytes, and the file ends at byte 4"),
        (b"GGUF\x01\0\0\0".to_vec(), "GGUF version 1 is not supported"),
        (b"GGUF\0\0\0\x03".to_vec(), "GGUF version 50331648 is not supported (2 and 3 are, little-endian)"),
        (header(huge, 0, &[]), "tensor count at byte 8 is 9223372036854775808, and the limit is 0"),
        (header(0, huge, &[]), "metadata count at byte 16 is 9223372036854775808, and the limit is 0"),
        (header(0, u64::MAX, &[0; 26]), "metadata count at byte 16 is 18446744073709551615, and the limit is 2"),
        (header(0, 1, &[0xFF; 16]), "metadata key at byte 24 is 18446744073709551615, and the limit is 65535"),
        (header(0, 1, &key("\u{1}", 13, &[0])), "value type at byte 33 is 13, and the limit is 12"),
        (header(0, 1, &key("a", 7, &[2])), "bool at byte 37 is 2, and the limit is 1"),
        (header(0, 1, &key("a", 8, &huge.to_le_bytes())), "string at byte 37 is 9223372036854775808, and the limit is"),
        (header(0, 1, &key("a", 8, &100u64.to_le_bytes())), "string at byte 45 needs 100 bytes, and the file ends"),
        (header(0, 1, &key("a", 10, &[0; 4])), "u64 at byte 37 needs 8 bytes, and the file ends at byte 41"),
        (header(0, 1, &key("a", 9, &array(4, huge))), "array length at byte 41 is 9223372036854775808"),
        (header(0, 1, &key("a", 9, &array(9, u64::MAX / 12))), "array length at byte 41 is 1537228672809129301"),
        (header(0, 1, &key("a", 9, &deep)), "depth of nested arrays at byte 85 is 5, and the limit is 4"),
        (header(0, 2, &twice), "metadata key a at byte 38 occurs twice"),
        (header(0, 1, b"\x02\0\0\0\0\0\0\0\xFF\xFE\0\0\0\0\0"), "metadata key at byte 24 is not valid UTF-8"),
    ];
    for (bytes, expected) in table {
        let error = open(&bytes).expect_err(expected);
        assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
        assert_says(error, expected);
    }
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    type Change = fn(&mut GgufWriter) -> &mut GgufWriter;
    let table: [(Change, &str); 14] = [
        (|w| w.claim_offset("output_norm.weight", 4), "begins at 4 of the data section"),
        (|w| w.claim_offset("output_norm.weight", 1 << 40), "and the file ends at byte"),
        (|w| w.claim_offset("output_norm.weight", u64::MAX - 31), "and the file ends at byte"),
        (|w| w.claim_offset("output_norm.weight", 0), "overlap those of tensor"),
        (|w| w.claim_dims("output_norm.weight", &[1 << 62]), "tensor output_norm.weight: 18446744073709551615 bytes"),
        (|w| w.claim_dims("blk.0.attn_q.weight", &[1 << 40, 1 << 40]), "blk.0.attn_q.weight: 18446744073709551615"),
        (|w| w.claim_dims("output_norm.weight", &[]), "number of dimensions at byte"),
        (|w| w.claim_dims("output_norm.weight", &[0]), "dimension at byte"),
        (|w| w.claim_dims("output_norm.weight", &[1; 5]), "is 5, and the limit is 4"),
        (|w| w.rename("output_norm.weight", "blk.0.attn_norm.weight"), "occurs twice"),
        (|w| w.rename("output_norm.weight", &"x".repeat(65)), "tensor name at byte"),
        (|w| w.claim_tensor_count(21), "number of dimensions at byte"),
        (|w| w.set("general.alignment", 48u32), "general.alignment is 48, and has to be a power of two"),
        (|w| w.set("general.alignment", 0u32), "general.alignment is 0, and has to be a power of two"),
    ];
    for (change, expected) in table {
        let mut writer = TinyModel::default().writer();
        change(&mut writer);
        assert_says(open(&writer.bytes()).expect_err(expected), expected);
    }
}

#[test]
fn models_that_would_be_computed_wrongly_are_refused() {
    type Change = fn(&mut GgufWriter) -> &mut GgufWriter;
    let table: [(Change, &str); 31] = [
        (|w| w.set("general.architecture", "mamba"), "architecture mamba is not supported (supported: llama, qwen2"),
        (
            |w| w.set("general.architecture", "clip").unset("tokenizer.ggml.model"),
            "architecture clip is not supported (supported: llama, qwen2",
        ),
        (|w| w.unset("tokenizer.ggml.model"), "tokenizer.ggml.model is missing"),
        (|w| w.unset("general.architecture"), "general.architecture is missing"),
        (|w| w.unset("llama.block_count"), "llama.block_count is missing"),
        (|w| w.set("llama.block_count", "two"), "llama.block_count is \"two\", and has to be an integer"),
        (|w| w.set("llama.block_count", 3u32), "tensor blk.2.attn_norm.weight is missing"),
        (|w| w.set("llama.block_count", 1u32), "tensor blk.1.attn_k.weight has no place in this architecture"),
        (
            |w| w.set("llama.block_count", u32::MAX),
            "block_count is 4294967295, and has to be an integer from 1 to 1024",
        ),
        (|w| w.set("llama.block_count", 0u32), "llama.block_count is 0, and has to be an integer from 1 to 1024"),
        (|w| w.set("llama.context_length", Meta::U64(1 << 63)), "9223372036854775808, and has to be an integer from 1"),
        (|w| w.set("llama.embedding_length", 96u32), "token_embd.weight is 267 × 64, and the model's sizes ask"),
        (|w| w.set("llama.attention.head_count_kv", 3u32), "llama.attention.head_count_kv is 3 for 4 query heads"),
        (|w| w.set("llama.attention.key_length", 24u32), "llama.attention.value_length is 16"),
        (|w| w.set("llama.rope.dimension_count", 8u32), "llama.rope.dimension_count is 8"),
        (|w| w.set("llama.rope.scaling.type", "longrope"), "llama.rope.scaling.type = \"longrope\" is not supported"),
        (|w| w.set("llama.rope.scaling.factor", 4.0), "llama.rope.scaling.factor = 4 is not supported"),
        (|w| w.set("llama.rope.scale_linear", 2.0), "llama.rope.scale_linear = 2 is not supported"),
        (|w| w.set("llama.expert_count", 8u32), "llama.expert_count = 8 is not supported"),
        (|w| w.set("llama.attention.sliding_window", 4096u32), "llama.attention.sliding_window = 4096 is not"),
        (|w| w.set("llama.attention.layer_norm_rms_epsilon", f32::NAN), "epsilon is NaN"),
        (|w| w.set("llama.attention.layer_norm_rms_epsilon", Meta::F64(1e-60)), "epsilon is 1e-60, and has to be"),
        (|w| w.set("llama.rope.freq_base", -1.0), "llama.rope.freq_base is -1, and has to be a number above 0"),
        (|w| w.set("llama.vocab_size", 300u32), "llama.vocab_size is 300"),
        (|w| w.set("tokenizer.ggml.eos_token_id", 267u32), "tokenizer.ggml.eos_token_id is 267"),
        (|w| w.set("tokenizer.ggml.token_type", vec![1; 5]), "token_type is an array of 5 I32, and has to be as"),
        (|w| w.set("tokenizer.ggml.token_type", vec![7; 267]), "of token types 0 to 6"),
        (|w| w.claim_type("blk.1.ffn_up.weight", 12), "blk.1.ffn_up.weight has type Q4_K (12), which is not"),
        (|w| w.claim_type("blk.1.ffn_up.weight", 99), "blk.1.ffn_up.weight has type unknown (99)"),
        (|w| w.tensor("blk.0.attn_q.bias", WeightFormat::F32, 1, &[0.0; 64]), "blk.1.attn_q.bias is missing"),
        (|w| w.claim_dims("blk.0.attn_q.weight", &[64, 32, 2]), "blk.0.attn_q.weight is 64 × 64"),
    ];
    for (change, expected) in table {
        let error = open_tiny(change).expect_err(expected);
        assert_says(error, expected);
    }
    let unaligned = TinyModel { format: WeightFormat::F32, hidden: 48, heads: 3, kv_heads: 3, ..TinyModel::default() };
    let mut writer = TinyModel { embedding_format: WeightFormat::F32, ..unaligned }.writer();
    writer.claim_type("token_embd.weight", 8);
    let error = open(&writer.bytes()).expect_err("rows of 48");
    assert_says(error, "token_embd.weight in q8_0 needs rows of a multiple of 32 values, and they have 48");
}

#[test]
fn errors_name_the_file() {
    let folder = TempDir::new();
    let missing = folder.path().join("missing.gguf");
    assert_says(Checkpoint::open(&missing).expect_err("no file"), &missing.display().to_string());
    let broken = folder.write("broken.gguf", b"GGUF");
    assert_says(Checkpoint::open(&broken).expect_err("no model"), &broken.display().to_string());
    assert!(matches!(Checkpoint::open(folder.path()), Err(WeightsError::Io { .. })), "a folder is no file");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = TinyModel::default().writer().bytes();
    let folder = TempDir::new();
    let path = folder.write("model.gguf", &bytes);
    let header_end = bytes.len() / 4;
    let cuts = (0..header_end).step_by(7).chain((header_end..bytes.len()).step_by(997)).chain([bytes.len() - 1]);
    for cut in cuts {
        std::fs::write(&path, &bytes[..cut]).expect("a file");
        assert!(Checkpoint::open(&path).is_err(), "a file of {cut} of its {} bytes was taken", bytes.len());
    }
}

/// The header, without data: what flips are put into.
fn tiny_header() -> (Vec<u8>, usize) {
    let writer = TinyModel { layers: 1, ..TinyModel::default() }.writer();
    let data: usize = writer.tensors.iter().map(|tensor| tensor.data.len().next_multiple_of(32)).sum();
    let bytes = writer.bytes();
    let header_bytes = bytes.len() - data;
    (bytes, header_bytes)
}

/// Opens, and reads all that was taken: must not panic, whatever the bytes are.
fn exercise(bytes: &[u8]) {
    match open(bytes) {
        Ok(weights) => {
            for spec in weights.tensors() {
                let tensor = weights.tensor(&spec.name).expect("checked at open");
                assert_eq!(tensor.data.len(), tensor.rows * tensor.format.row_bytes(tensor.cols));
            }
            let _ = vitrum::text::Tokenizer::from_spec(weights.tokenizer().expect("a file has one"));
        }
        Err(error) => assert!(error.to_string().len() < 2000, "an error of a sensible length"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_bytes_are_taken_or_refused(
        rest in prop::collection::vec(any::<u8>(), 0..400),
        tensors in 0u64..4,
        keys in 0u64..4,
    ) {
        exercise(&header(tensors, keys, &rest));
    }

    #[test]
    fn any_flips_are_taken_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut bytes, header_bytes) = tiny_header();
        for (index, value) in flips {
            bytes[index.index(header_bytes)] = value;
        }
        exercise(&bytes);
    }

    #[test]
    fn any_number_in_the_header_is_taken_or_refused(at in any::<prop::sample::Index>(), value in prop_oneof![
        Just(u64::MAX), Just(1u64 << 63), Just(1 << 32), Just((1 << 61) + 1), Just(0), any::<u64>()
    ]) {
        let (mut bytes, header_bytes) = tiny_header();
        let at = at.index(header_bytes - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        exercise(&bytes);
    }
}

#[test]
fn malformed_errors_carry_their_numbers() {
    let Err(WeightsError::Malformed { path, cause }) = open(&header(5, 0, &[])) else { panic!("five tensors of none") };
    assert!(path.ends_with("model.gguf"));
    assert_eq!(cause, Malformed::Limit { offset: 8, field: "tensor count", value: 5, limit: 0 });
}
