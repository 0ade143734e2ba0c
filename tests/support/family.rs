//! Tiny models of every family, with what transformers computes: tests/families says how they were made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use vitrum::formats::WeightFormat;
use vitrum::request::TokenId;

use crate::support::folder_writer::{FolderTensor, safetensors};
use crate::support::gguf_writer::{GgufWriter, Meta, TensorEntry};
use crate::support::temp::TempDir;

/// One variant of a family.
#[derive(Debug, Deserialize)]
pub(crate) struct Fixture {
    pub(crate) variant: String,
    seed: u64,
    pub(crate) config: Value,
    layers: usize,
    tensors: Vec<Distribution>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) expect: Expected,
    gguf: GgufModel,
}

/// What a model computes of the prompt.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Expected {
    /// The 20 largest logits behind the prompt's last token.
    pub(crate) last: Vec<(u32, f32)>,
    /// The same behind the token of index 50.
    pub(crate) position_50: Vec<(u32, f32)>,
    pub(crate) greedy: Vec<u32>,
    pub(crate) greedy_margins: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct Distribution {
    name: String,
    shape: Vec<u64>,
    mean: f32,
    amplitude: f32,
}

#[derive(Debug, Deserialize)]
struct GgufModel {
    metadata: Map<String, Value>,
    tensors: Vec<GgufTensor>,
    expect: Option<Expected>,
}

#[derive(Debug, Deserialize)]
struct GgufTensor {
    name: String,
    hf: Option<String>,
    transform: String,
    shape: Vec<u64>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    heads: usize,
    values: Option<Vec<f32>>,
}

/// A tensor's shape and values.
type Tensors = HashMap<String, (Vec<u64>, Vec<f32>)>;

impl Fixture {
    /// Every variant, in the order of their names.
    pub(crate) fn all() -> Vec<Fixture> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/families");
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("a file").path()).collect();
        paths.sort();
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).expect("a fixture");
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        paths.into_iter().map(read).collect()
    }

    pub(crate) fn prompt(&self) -> Vec<TokenId> {
        self.prompt.iter().copied().map(TokenId).collect()
    }

    /// What the GGUF file's model computes.
    pub(crate) fn expect_of_gguf(&self) -> &Expected {
        self.gguf.expect.as_ref().unwrap_or(&self.expect)
    }

    /// Writes a model folder, in one file or in several.
    pub(crate) fn write_folder(&self, folder: &TempDir) -> PathBuf {
        let mut tensors: Vec<_> = self.values().into_iter().collect();
        tensors.sort_by(|one, other| one.0.cmp(&other.0));
        let tensors = tensors.into_iter().map(|(name, (shape, values))| {
            let mut data = Vec::new();
            WeightFormat::Bf16.encode(&values, &mut data);
            FolderTensor { name, dtype: "BF16", shape, data }
        });
        folder.write("model.safetensors", safetensors(&tensors.collect::<Vec<_>>()));
        folder.write("config.json", self.config.to_string());
        folder.path().to_owned()
    }

    /// Writes a GGUF file, with a vocabulary of as many tokens.
    pub(crate) fn write_gguf(&self, folder: &TempDir) -> PathBuf {
        let values = self.values();
        let mut writer = GgufWriter::new();
        for (key, value) in &self.gguf.metadata {
            writer.set(key, meta(value));
        }
        let vocab = values["model.embed_tokens.weight"].0[0];
        writer.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "gpt-2");
        writer.set("tokenizer.ggml.tokens", (0..vocab).map(|id| format!("t{id}")).collect::<Vec<_>>());
        writer.set("tokenizer.ggml.merges", Vec::<String>::new()).set("tokenizer.ggml.eos_token_id", 2u32);
        for tensor in &self.gguf.tensors {
            for layer in layers_of(&tensor.name, self.layers) {
                writer.tensors.push(tensor.entry(layer, &values));
            }
        }
        folder.write("model.gguf", writer.bytes())
    }

    /// All tensors of the safetensors file.
    fn values(&self) -> Tensors {
        let mut tensors = Tensors::new();
        for one in &self.tensors {
            for layer in layers_of(&one.name, self.layers) {
                let name = one.name.replace("{layer}", &layer.to_string());
                let values = one.values(self.seed, &name);
                tensors.insert(name, (one.shape.clone(), values));
            }
        }
        tensors
    }
}

/// A name stands for one tensor, or for one in each layer.
fn layers_of(name: &str, layers: usize) -> std::ops::Range<usize> {
    if name.contains("{layer}") { 0..layers } else { 0..1 }
}

impl Distribution {
    fn values(&self, seed: u64, name: &str) -> Vec<f32> {
        let stream = Stream::of_tensor(seed, name);
        let cols = *self.shape.last().expect("a shape") as usize;
        let rows = if self.shape.len() == 1 { 1 } else { self.shape[0] as usize };
        let mut values = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            let stream = if self.shape.len() == 1 { stream } else { stream.of_row(row as u64) };
            values.extend(stream.uniform(cols, self.mean, self.amplitude));
        }
        values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
    }
}

impl GgufTensor {
    fn entry(&self, layer: usize, tensors: &Tensors) -> TensorEntry {
        let named = |name: &str| name.replace("{layer}", &layer.to_string());
        let values = match (&self.hf, &self.values) {
            (Some(hf), _) => tensors[&named(hf)].1.clone(),
            (None, Some(values)) => values.clone(),
            (None, None) => panic!("{} has no values", self.name),
        };
        let values = match self.transform.as_str() {
            "permute" => self.permuted(&values),
            "plus_one" => values.iter().map(|value| value + 1.0).collect(),
            _ => values,
        };
        let format = match self.kind.as_str() {
            "F32" => WeightFormat::F32,
            "BF16" => WeightFormat::Bf16,
            other => panic!("{}: {other}", self.name),
        };
        let mut data = Vec::new();
        format.encode(&values, &mut data);
        TensorEntry {
            name: named(&self.name),
            dims: self.shape.iter().rev().copied().collect(),
            type_id: format.ggml_type(),
            data,
            claimed_offset: None,
        }
    }

    /// Row 2i + half of a head is row half · width / 2 + i.
    fn permuted(&self, values: &[f32]) -> Vec<f32> {
        let rows = self.shape[0] as usize;
        let (width, cols) = (rows / self.heads, values.len() / rows);
        let source = |row: usize| row / width * width + row % 2 * (width / 2) + row % width / 2;
        (0..rows).flat_map(|row| &values[source(row) * cols..][..cols]).copied().collect()
    }
}

fn meta(value: &Value) -> Meta {
    match value {
        Value::Bool(value) => Meta::Bool(*value),
        Value::String(text) => Meta::Text(text.clone()),
        Value::Number(number) => match number.as_u64() {
            Some(integer) => Meta::U32(integer as u32),
            None => Meta::F32(number.as_f64().expect("a number") as f32),
        },
        Value::Array(values) => {
            Meta::Array(if values.iter().all(Value::is_boolean) { 7 } else { 4 }, values.iter().map(meta).collect())
        }
        other => panic!("{other} is no metadata"),
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014) by tensor and row, as the random weights of src/formats/random.rs.
#[derive(Clone, Copy)]
struct Stream(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Stream {
    fn of_tensor(seed: u64, name: &str) -> Stream {
        Stream(name.bytes().fold(mix(seed), |key, byte| mix(key.wrapping_add(GOLDEN) ^ u64::from(byte))))
    }

    fn of_row(self, row: u64) -> Stream {
        Stream(mix(self.0 ^ row.wrapping_mul(GOLDEN)))
    }

    /// So many values in `mean` ± `amplitude`: four of each number, a 16-bit integer each.
    fn uniform(mut self, count: usize, mean: f32, amplitude: f32) -> Vec<f32> {
        let mut values = Vec::with_capacity(count.next_multiple_of(4));
        while values.len() < count {
            self.0 = self.0.wrapping_add(GOLDEN);
            let bits = mix(self.0);
            values.extend((0..4).map(|i| mean + amplitude * (f32::from((bits >> (16 * i)) as i16) / 32768.0)));
        }
        values.truncate(count);
        values
    }
}
