//! A Hugging Face `config.json`: its fields as [`Value`]s, and the architecture that it names.

use std::path::Path;

use super::WeightsError;
use super::keys::{Key, Keys, Naming, Value};

const ARCHITECTURES: Key = Key { hf: "architectures", gguf: "" };

/// A `config.json`.
#[derive(Debug)]
pub(super) struct ConfigJson {
    /// The one architecture.
    pub(super) architecture: String,
    fields: Vec<(String, Value)>,
}

impl ConfigJson {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<ConfigJson, WeightsError> {
        let text = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        ConfigJson::parse(&text, path)
    }

    /// Reads a file's text; errors name the file.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<ConfigJson, WeightsError> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|source| WeightsError::Json { path: path.to_owned(), source })?;
        let mut fields: Vec<(String, Value)> = fields.into_iter().map(|(key, value)| (key, of_json(value))).collect();
        let keys = Keys::new(path, Naming::HuggingFace, String::new(), []);
        let at = fields.iter().position(|(key, _)| key == ARCHITECTURES.hf);
        let (_, value) = fields.swap_remove(at.ok_or_else(|| keys.missing(ARCHITECTURES))?);
        match &value {
            Value::List(names) => match &names[..] {
                [Value::Text(name)] => Ok(ConfigJson { architecture: name.clone(), fields }),
                _ => Err(keys.wrong(ARCHITECTURES, &value, "an array of one name")),
            },
            _ => Err(keys.wrong(ARCHITECTURES, &value, "an array of one name")),
        }
    }

    /// Its fields but the architecture.
    pub(super) fn keys<'a>(&self, path: &'a Path) -> Keys<'a> {
        Keys::new(path, Naming::HuggingFace, String::new(), self.fields.iter().cloned())
    }
}

/// A JSON value as a field's value.
pub(super) fn of_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), ..) => Value::Unsigned(value),
            (_, Some(value), _) => Value::Signed(value),
            (.., Some(value)) => Value::Float(value),
            _ => Value::Other(number.to_string()),
        },
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => Value::List(values.into_iter().map(of_json).collect()),
        serde_json::Value::Object(fields) => {
            Value::Table(fields.into_iter().map(|(key, value)| (key, of_json(value))).collect())
        }
    }
}
