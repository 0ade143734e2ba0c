//! Reading a Hugging Face `config.json` of a `LlamaForCausalLM`.

use std::borrow::Cow;
use std::f64::consts::TAU;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{DIMENSION_MAX, EPSILON_EXPECTED, LAYERS_MAX, ROPE_BASE_EXPECTED, epsilon, rope_base, size_up_to};
use super::{Architecture, Keys, ModelConfig, WeightsError};

const ARCHITECTURE: &str = "LlamaForCausalLM";

const KEYS: Keys = Keys {
    hidden: "hidden_size",
    ffn: "intermediate_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    vocab: "vocab_size",
    rope_theta: "rope_theta",
};

/// Where the width of a head is not said.
const KEYS_WITHOUT_HEAD_DIM: Keys = Keys { head_dim: "hidden_size / num_attention_heads", ..KEYS };

/// Fields that say nothing about the computation, or nothing that random weights could get wrong.
const IGNORED: [&str; 17] = [
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
    "attention_dropout",
    "pretraining_tp",
    "bos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "is_llama_config",
    "rope_interleaved",
    "return_dict",
    "transformers.js_config",
    "max_sequence_length",
];

/// What a `config.json` says.
pub(super) struct DummyConfig {
    pub(super) model: ModelConfig,
    /// What it calls the model's numbers.
    pub(super) keys: &'static Keys,
    /// What the rotary embedding's frequencies are divided by, for `rope_type` llama3.
    pub(super) rope_factors: Option<Vec<f32>>,
}

impl DummyConfig {
    /// Reads a file. A field that is not known is an error: it might change the computation.
    pub(super) fn read(path: &Path) -> Result<DummyConfig, WeightsError> {
        let text = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        DummyConfig::parse(&text, path)
    }

    /// Reads a file's text; errors name the file.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<DummyConfig, WeightsError> {
        let fields: Map<String, Value> =
            serde_json::from_slice(text).map_err(|source| WeightsError::Json { path: path.to_owned(), source })?;
        let mut fields = Fields { path, prefix: "", fields };
        fields.architecture()?;
        for (key, wanted) in [("hidden_act", "silu")] {
            if let Some(value) = fields.take(key).filter(|value| value != wanted) {
                return Err(fields.unsupported(key, &value));
            }
        }
        for key in ["attention_bias", "mlp_bias", "quantization_config", "sliding_window"] {
            let set = |value: &Value| !value.is_null() && *value != Value::Bool(false);
            if let Some(value) = fields.take(key).filter(set) {
                return Err(fields.unsupported(key, &value));
            }
        }
        let says_head_dim = fields.fields.get(KEYS.head_dim).is_some_and(|value| !value.is_null());
        let keys = if says_head_dim { &KEYS } else { &KEYS_WITHOUT_HEAD_DIM };
        let mut model = fields.model()?;
        model.check(path, keys)?;
        let rope_factors = fields.rope_scaling(&mut model)?;
        match fields.fields.iter().find(|(key, _)| !key.starts_with('_') && !IGNORED.contains(&key.as_str())) {
            Some((key, value)) => Err(fields.unsupported(key, value)),
            None => Ok(DummyConfig { model, keys, rope_factors }),
        }
    }
}

/// The fields that were not looked at yet.
struct Fields<'a> {
    path: &'a Path,
    /// The object that the fields belong to, with a dot.
    prefix: &'static str,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.swap_remove(key)
    }

    fn unsupported(&self, key: &str, value: &Value) -> WeightsError {
        let (path, key) = (self.path.to_owned(), format!("{}{key}", self.prefix));
        WeightsError::UnsupportedKey { path, key, value: value.to_string() }
    }

    fn missing(&self, key: &str) -> WeightsError {
        WeightsError::MissingKey { path: self.path.to_owned(), key: format!("{}{key}", self.prefix) }
    }

    fn wrong(&self, key: &str, value: &Value, expected: impl Into<Cow<'static, str>>) -> WeightsError {
        let (path, key) = (self.path.to_owned(), format!("{}{key}", self.prefix));
        WeightsError::KeyValue { path, key, value: value.to_string(), expected: expected.into() }
    }

    fn architecture(&mut self) -> Result<(), WeightsError> {
        const KEY: &str = "architectures";
        let value = self.take(KEY).ok_or_else(|| self.missing(KEY))?;
        match value.as_array().map(Vec::as_slice) {
            Some([Value::String(name)]) if name == ARCHITECTURE => Ok(()),
            Some([Value::String(name)]) => Err(WeightsError::UnsupportedArchitecture {
                path: self.path.to_owned(),
                architecture: name.clone(),
                supported: ARCHITECTURE,
            }),
            _ => Err(self.wrong(KEY, &value, "an array of one name")),
        }
    }

    /// An integer from 1 to `limit`; `null` counts as missing.
    fn optional_size(&mut self, key: &str, limit: usize) -> Result<Option<usize>, WeightsError> {
        let Some(value) = self.take(key).filter(|value| !value.is_null()) else { return Ok(None) };
        match value.as_u64().filter(|size| *size >= 1 && *size <= limit as u64) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(self.wrong(key, &value, size_up_to(limit))),
        }
    }

    fn size(&mut self, key: &str, limit: usize) -> Result<usize, WeightsError> {
        self.optional_size(key, limit)?.ok_or_else(|| self.missing(key))
    }

    /// A number that `read` makes something of.
    fn optional_number<T>(
        &mut self,
        key: &str,
        read: impl Fn(f64) -> Option<T>,
        expected: &'static str,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().and_then(read).map(Some).ok_or_else(|| self.wrong(key, &value, expected))
    }

    fn number(&mut self, key: &str) -> Result<f64, WeightsError> {
        self.optional_number(key, Some, "a number")?.ok_or_else(|| self.missing(key))
    }

    fn rope_theta(&mut self) -> Result<Option<f64>, WeightsError> {
        self.optional_number(KEYS.rope_theta, rope_base, ROPE_BASE_EXPECTED)
    }

    fn model(&mut self) -> Result<ModelConfig, WeightsError> {
        let hidden = self.size(KEYS.hidden, DIMENSION_MAX)?;
        let heads = self.size(KEYS.heads, DIMENSION_MAX)?;
        let head_dim = match self.optional_size(KEYS.head_dim, DIMENSION_MAX)? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(self.missing(KEYS.head_dim)),
        };
        let vocab = self.size(KEYS.vocab, DIMENSION_MAX)?;
        const RMS_EPS: &str = "rms_norm_eps";
        let folder = self.path.parent().and_then(Path::file_name).unwrap_or(self.path.as_os_str());
        Ok(ModelConfig {
            architecture: Architecture::Llama,
            name: folder.to_string_lossy().into_owned(),
            layers: self.size("num_hidden_layers", LAYERS_MAX)?,
            hidden,
            ffn: self.size(KEYS.ffn, DIMENSION_MAX)?,
            heads,
            kv_heads: self.optional_size(KEYS.kv_heads, DIMENSION_MAX)?.unwrap_or(heads),
            head_dim,
            vocab,
            max_position: self.size("max_position_embeddings", u32::MAX as usize)?,
            rms_eps: match self.optional_number(RMS_EPS, epsilon, EPSILON_EXPECTED)? {
                Some(epsilon) => epsilon,
                None => return Err(self.missing(RMS_EPS)),
            },
            rope_theta: self.rope_theta()?.unwrap_or(10_000.0),
            tied_embeddings: self.flag("tie_word_embeddings")?,
            eos_tokens: self.end_tokens(vocab)?,
        })
    }

    fn flag(&mut self, key: &str) -> Result<bool, WeightsError> {
        let Some(value) = self.take(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(key, &value, "true or false"))
    }

    fn end_tokens(&mut self, vocab: usize) -> Result<Vec<u32>, WeightsError> {
        const KEY: &str = "eos_token_id";
        let value = self.take(KEY).ok_or_else(|| self.missing(KEY))?;
        let listed = match &value {
            Value::Null => &[][..],
            Value::Array(ids) => ids,
            id => std::slice::from_ref(id),
        };
        let id = |value: &Value| value.as_u64().filter(|id| *id < vocab as u64).map(|id| id as u32);
        let ids = listed.iter().map(id).collect::<Option<Vec<_>>>();
        ids.ok_or_else(|| self.wrong(KEY, &value, "a token of the vocabulary, or a list of them"))
    }

    /// `rope_scaling`, or its later name `rope_parameters`, which holds `rope_theta` too.
    fn rope_scaling(&mut self, model: &mut ModelConfig) -> Result<Option<Vec<f32>>, WeightsError> {
        for (key, prefix) in [("rope_scaling", "rope_scaling."), ("rope_parameters", "rope_parameters.")] {
            let value = match self.take(key) {
                None | Some(Value::Null) => continue,
                Some(value) => value,
            };
            let Value::Object(fields) = value else { return Err(self.wrong(key, &value, "an object")) };
            let mut scaling = Fields { path: self.path, prefix, fields };
            model.rope_theta = scaling.rope_theta()?.unwrap_or(model.rope_theta);
            let kind = scaling.take("rope_type").or_else(|| scaling.take("type"));
            let factors = match &kind {
                Some(kind) if kind == "default" => None,
                Some(kind) if kind == "llama3" => Some(scaling.llama3_factors(model)?),
                Some(kind) => return Err(scaling.unsupported("rope_type", kind)),
                None => return Err(scaling.missing("rope_type")),
            };
            return match scaling.fields.iter().next() {
                Some((key, value)) => Err(scaling.unsupported(key, value)),
                None => Ok(factors),
            };
        }
        Ok(None)
    }

    /// Llama 3.1's rule: low frequencies are divided by `factor`, high ones stay, those between are interpolated.
    fn llama3_factors(&mut self, model: &ModelConfig) -> Result<Vec<f32>, WeightsError> {
        let factor = self.number("factor")?;
        let low = self.number("low_freq_factor")?;
        let high = self.number("high_freq_factor")?;
        let trained = self.size("original_max_position_embeddings", u32::MAX as usize)? as f64;
        if !((1.0..=f64::from(f32::MAX)).contains(&factor) && low > 0.0 && high > low) {
            let value = Value::from(vec![factor, low, high]);
            return Err(self.wrong("factors", &value, "a factor of at least 1 that f32 has, and 0 < low < high"));
        }
        let pairs = model.head_dim / 2;
        let divisor = |pair: usize| {
            let wavelength = TAU * model.rope_theta.powf(pair as f64 / pairs as f64);
            if wavelength < trained / high {
                1.0
            } else if wavelength > trained / low {
                factor
            } else {
                let smooth = (trained / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        Ok((0..pairs).map(|pair| divisor(pair) as f32).collect())
    }
}
