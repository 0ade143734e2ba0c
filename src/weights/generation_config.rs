//! A Hugging Face `generation_config.json`: how the model's makers draw tokens from it.
//!
//! Fields that are read are held to their ranges. Others are passed over: most are about ways to decode that are none
//! of this engine's, and every version of the file's writer adds some.

use std::path::Path;

use super::WeightsError;
use super::config_json::of_json;
use super::keys::{Key, Keys, Naming, Value};
use crate::request::SamplingParameter;

/// What a `generation_config.json` says; what it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// 0 draws the most likely token.
    pub temperature: Option<f32>,
    /// Draw among the k most likely tokens only; 0 is off, and so is −1 in the file.
    pub top_k: Option<u32>,
    /// Draw among the most likely tokens that together have this probability.
    pub top_p: Option<f32>,
    /// Draw among tokens that are at least this likely compared with the most likely one; 0 is off.
    pub min_p: Option<f32>,
    /// What logits of tokens that have occurred are divided by; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Whether tokens are drawn at all. Servers pass over it: a request's temperature says so.
    pub do_sample: Option<bool>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// The most tokens of an answer.
    pub max_new_tokens: Option<u32>,
}

const MIN_P_EXPECTED: &str = "a number from 0 to 1";
const PENALTY_EXPECTED: &str = "a number above 0";

impl GenerationConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<GenerationConfig, WeightsError> {
        let text = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        GenerationConfig::parse(&text, path)
    }

    /// Reads a file's text; errors name the file.
    pub fn parse(text: &[u8], path: &Path) -> Result<GenerationConfig, WeightsError> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|source| WeightsError::Json { path: path.to_owned(), source })?;
        let values = fields.into_iter().map(|(key, value)| (key, of_json(value)));
        let mut keys = Keys::new(path, Naming::HuggingFace, String::new(), values);
        let min_p = |value: f32| (0.0..=1.0).contains(&value);
        let eos = key("eos_token_id");
        Ok(GenerationConfig {
            temperature: parameter(&mut keys, SamplingParameter::Temperature)?,
            top_k: top_k(&mut keys)?,
            top_p: parameter(&mut keys, SamplingParameter::TopP)?,
            min_p: number(&mut keys, "min_p", MIN_P_EXPECTED, min_p)?,
            repetition_penalty: number(&mut keys, "repetition_penalty", PENALTY_EXPECTED, |value| value > 0.0)?,
            do_sample: if keys.has(key("do_sample")) { Some(keys.flag(key("do_sample"), false)?) } else { None },
            eos_token_ids: if keys.has(eos) { keys.token_ids(eos, 1 << 32)? } else { Vec::new() },
            max_new_tokens: keys.optional_size(key("max_new_tokens"), u32::MAX as usize)?.map(|tokens| tokens as u32),
        })
    }

    /// The parameters that it sets and that requests have here, in words; empty if it sets none.
    pub fn applied(&self) -> Vec<String> {
        let temperature = self.temperature.map(|value| format!("temperature {value}"));
        let top_k = self.top_k.map(|value| format!("top_k {value}"));
        let top_p = self.top_p.map(|value| format!("top_p {value}"));
        let max_new_tokens = self.max_new_tokens.map(|value| format!("at most {value} tokens"));
        [temperature, top_k, top_p, max_new_tokens].into_iter().flatten().collect()
    }

    /// The parameters that it sets, that would change answers, and that requests do not have here, in words.
    pub fn not_applied(&self) -> Vec<String> {
        let min_p = self.min_p.filter(|value| *value != 0.0).map(|value| format!("min_p {value}"));
        let penalty = self.repetition_penalty.filter(|value| *value != 1.0);
        min_p.into_iter().chain(penalty.map(|value| format!("repetition_penalty {value}"))).collect()
    }
}

const fn key(hf: &'static str) -> Key {
    Key { hf, gguf: "" }
}

/// A number that a request may have, too.
fn parameter(keys: &mut Keys<'_>, parameter: SamplingParameter) -> Result<Option<f32>, WeightsError> {
    number(keys, parameter.name(), parameter.expected(), |value| parameter.check(value.into()).is_ok())
}

fn number(
    keys: &mut Keys<'_>,
    name: &'static str,
    expected: &'static str,
    is_within: impl Fn(f32) -> bool,
) -> Result<Option<f32>, WeightsError> {
    let read = |value: f64| Some(value as f32).filter(|value| value.is_finite() && is_within(*value));
    keys.optional_number(key(name), read, expected)
}

fn top_k(keys: &mut Keys<'_>) -> Result<Option<u32>, WeightsError> {
    const TOP_K: Key = key("top_k");
    match keys.take(TOP_K) {
        None => Ok(None),
        Some(Value::Signed(-1)) => Ok(Some(0)),
        Some(value) => match value.as_unsigned().and_then(|k| u32::try_from(k).ok()) {
            Some(k) => Ok(Some(k)),
            None => Err(keys.wrong(TOP_K, &value, format!("a whole number from -1 to {}", u32::MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, String> {
        GenerationConfig::parse(text.as_bytes(), Path::new("m/generation_config.json")).map_err(|e| e.to_string())
    }

    #[test]
    fn fields_are_read_and_unknown_ones_passed_over() {
        let text = r#"{"bos_token_id": 1, "do_sample": true, "eos_token_id": [2, 3], "pad_token_id": 2,
            "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.05,
            "max_new_tokens": 2048, "transformers_version": "4.51.0", "_from_model_config": true}"#;
        let config = parse(text).unwrap();
        let expected = GenerationConfig {
            temperature: Some(0.6),
            top_k: Some(20),
            top_p: Some(0.95),
            min_p: Some(0.0),
            repetition_penalty: Some(1.05),
            do_sample: Some(true),
            eos_token_ids: vec![2, 3],
            max_new_tokens: Some(2048),
        };
        assert_eq!(config, expected);
        assert_eq!(config.applied(), ["temperature 0.6", "top_k 20", "top_p 0.95", "at most 2048 tokens"]);
        assert_eq!(config.not_applied(), ["repetition_penalty 1.05"]);
        let nothing = r#"{"temperature": null, "top_k": null, "eos_token_id": null, "do_sample": null}"#;
        assert_eq!(parse(nothing), Ok(GenerationConfig::default()));
        assert!(parse("{}").unwrap().applied().is_empty());
        assert_eq!(parse(r#"{"top_k": -1, "eos_token_id": 5, "temperature": 1}"#), {
            let (top_k, eos_token_ids, temperature) = (Some(0), vec![5], Some(1.0));
            Ok(GenerationConfig { top_k, eos_token_ids, temperature, ..GenerationConfig::default() })
        });
    }

    #[test]
    fn a_field_outside_its_range_is_named_with_value_and_limit() {
        for (field, value, limit) in [
            ("temperature", "-0.1", "a number, 0 or more"),
            ("temperature", "\"hot\"", "a number, 0 or more"),
            ("temperature", "1e39", "a number, 0 or more"),
            ("top_k", "-2", "a whole number from -1 to 4294967295"),
            ("top_k", "4294967296", "a whole number from -1 to 4294967295"),
            ("top_k", "20.5", "a whole number from -1 to 4294967295"),
            ("top_p", "0", "a number above 0 and up to 1"),
            ("top_p", "1.5", "a number above 0 and up to 1"),
            ("min_p", "-1", "a number from 0 to 1"),
            ("repetition_penalty", "0", "a number above 0"),
            ("do_sample", "1", "true or false"),
            ("eos_token_id", "-1", "a token of the vocabulary, or a list of them"),
            ("eos_token_id", "[1,\"</s>\"]", "a token of the vocabulary, or a list of them"),
            ("max_new_tokens", "0", "an integer from 1 to 4294967295"),
        ] {
            let error = parse(&format!("{{\"{field}\": {value}}}")).unwrap_err();
            assert!(error.starts_with(&format!("m/generation_config.json: {field} is ")), "{error}");
            assert!(error.ends_with(&format!(", and has to be {limit}")), "{error}");
        }
        for text in ["", "[]", "{\"temperature\": NaN}", "{"] {
            assert!(parse(text).unwrap_err().starts_with("m/generation_config.json: "), "{text}");
        }
    }
}
