//! Writes Hugging Face model folders: a Llama of a [`TinyModel`], and folders that are wrong on purpose.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::gguf_writer::{GgufWriter, Meta};
use super::temp::TempDir;
use super::tiny_model::{CONTROL_TOKENS, END_OF_TURN, TinyModel};

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct FolderTensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

/// A folder under construction: what of it is `null` is not written.
#[derive(Clone, Debug)]
pub struct FolderWriter {
    pub config: Value,
    pub tensors: Vec<FolderTensor>,
    pub tokenizer: Value,
    pub tokenizer_config: Value,
}

impl FolderWriter {
    /// The model that [`TinyModel::writer`] writes as GGUF, without scaling of its rotary embedding.
    pub fn of(model: &TinyModel) -> FolderWriter {
        let gguf = model.writer();
        FolderWriter {
            config: config(model, &gguf),
            tensors: gguf.tensors.iter().map(|tensor| folder_tensor(model, tensor)).collect(),
            tokenizer: tokenizer(&gguf),
            tokenizer_config: json!({
                "bos_token": CONTROL_TOKENS[1],
                "eos_token": {"content": CONTROL_TOKENS[2], "special": true},
                "chat_template": text(&gguf, "tokenizer.chat_template"),
            }),
        }
    }

    /// Adds a tensor like another one.
    pub fn add_copy(&mut self, of: usize, name: &str) {
        let copy = FolderTensor { name: name.to_owned(), ..self.tensors[of].clone() };
        self.tensors.push(copy);
    }

    /// Writes everything, all tensors into one file.
    pub fn write(&self, folder: &TempDir) -> PathBuf {
        folder.write("model.safetensors", safetensors(&self.tensors));
        self.write_texts(folder)
    }

    /// Writes everything, the tensors into so many files.
    pub fn write_sharded(&self, folder: &TempDir, shards: usize) -> PathBuf {
        let mut weight_map = Map::new();
        for shard in 0..shards {
            let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
            let own: Vec<FolderTensor> = self.tensors.iter().skip(shard).step_by(shards).cloned().collect();
            weight_map.extend(own.iter().map(|tensor| (tensor.name.clone(), json!(name))));
            folder.write(&name, safetensors(&own));
        }
        let bytes: usize = self.tensors.iter().map(|tensor| tensor.data.len()).sum();
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        folder.write("model.safetensors.index.json", index.to_string());
        self.write_texts(folder)
    }

    fn write_texts(&self, folder: &TempDir) -> PathBuf {
        let texts = [
            ("config.json", &self.config),
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.tokenizer_config),
        ];
        for (name, value) in texts.into_iter().filter(|(_, value)| !value.is_null()) {
            folder.write(name, value.to_string());
        }
        folder.path().to_owned()
    }
}

/// A file of these tensors.
pub fn safetensors(tensors: &[FolderTensor]) -> Vec<u8> {
    let (mut header, mut at) = (Map::new(), 0);
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for tensor in tensors {
        let end = at + tensor.data.len();
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    tensors.iter().for_each(|tensor| bytes.extend(&tensor.data));
    bytes
}

fn config(model: &TinyModel, gguf: &GgufWriter) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": false,
        "bos_token_id": 1,
        "eos_token_id": [END_OF_TURN],
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "max_position_embeddings": model.max_position,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": model.tied_embeddings,
        "torch_dtype": "bfloat16",
        "vocab_size": texts(gguf, "tokenizer.ggml.tokens").len(),
    })
}

fn folder_tensor(model: &TinyModel, tensor: &super::gguf_writer::TensorEntry) -> FolderTensor {
    let parts = [
        ("blk.", "model.layers."),
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
    ];
    let mut name = parts.iter().fold(tensor.name.clone(), |name, (gguf, hf)| name.replace(gguf, hf));
    if name == "output.weight" {
        name = "lm_head.weight".to_owned();
    }
    let dtype = match tensor.type_id {
        0 => "F32",
        1 => "F16",
        30 => "BF16",
        other => panic!("safetensors have no type {other}"),
    };
    let rotates = name.contains("q_proj") || name.contains("k_proj");
    let rows = tensor.dims.get(1).copied().unwrap_or(1) as usize;
    let data = if rotates { halves(&tensor.data, rows, model.head_dim) } else { tensor.data.clone() };
    FolderTensor { name, dtype, shape: tensor.dims.iter().rev().copied().collect(), data }
}

/// The rows of heads as Hugging Face has them: first all that are turned as the first of two, then all others.
fn halves(data: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row_bytes = data.len() / rows;
    let row = |row: usize| &data[row * row_bytes..][..row_bytes];
    let of_head = |head: usize| (0..head_dim).map(move |at| head * head_dim + 2 * at % head_dim + 2 * at / head_dim);
    (0..rows / head_dim).flat_map(of_head).flat_map(row).copied().collect()
}

/// Byte-level BPE, as GPT-2's.
fn tokenizer(gguf: &GgufWriter) -> Value {
    let tokens = texts(gguf, "tokenizer.ggml.tokens");
    let vocab: Map<String, Value> = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), json!(id))).collect();
    let added = CONTROL_TOKENS.iter().zip(0..).map(|(token, id): (_, u32)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": texts(gguf, "tokenizer.ggml.merges"),
        },
    })
}

fn value<'a>(gguf: &'a GgufWriter, key: &str) -> &'a Meta {
    let (_, value) = gguf.metadata.iter().find(|(known, _)| known == key).expect("a key that is written");
    value
}

fn text(gguf: &GgufWriter, key: &str) -> String {
    let Meta::Text(text) = value(gguf, key) else { panic!("{key} is a text") };
    text.clone()
}

fn texts(gguf: &GgufWriter, key: &str) -> Vec<String> {
    let Meta::Array(_, values) = value(gguf, key) else { panic!("{key} is a list") };
    let text = |value: &Meta| match value {
        Meta::Text(text) => text.clone(),
        other => panic!("{other:?} is no text"),
    };
    values.iter().map(text).collect()
}
