//! What a model folder says of text: its tokenizer, special tokens, chat template, and the tokens that end an answer.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::weights::{TokenizerJson, TokenizerSpec, VocabularySpec, WeightsError, sentencepiece_model};

/// A file's own words on special tokens and conversations: fields of other names are not for a server.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    chat_template: Option<Templates>,
}

/// A token's text, or an object that has it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Token { content: String },
}

/// One template, or several by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// Of a `tokenizer.json`, what ids its special tokens have.
#[derive(Deserialize)]
struct AddedTokens {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// The name of the template that a conversation without tools has, where a file has several.
const DEFAULT_TEMPLATE: &str = "default";

/// Reads the tokenizer, if the folder has one, and the ids of the tokens that end an answer as it says.
pub(super) fn read(folder: &Path) -> Result<(Option<TokenizerSpec>, Vec<u32>), WeightsError> {
    let file = |name: &str| folder.join(name);
    let config: TokenizerConfig = json(&file("tokenizer_config.json"))?.unwrap_or_default();
    let special: TokenizerConfig = json(&file("special_tokens_map.json"))?.unwrap_or_default();
    let text = |token: Option<SpecialToken>| match token {
        Some(SpecialToken::Text(content) | SpecialToken::Token { content }) => Some(content),
        None => None,
    };
    let chat_template = chat_template(folder, config.chat_template)?;
    let bos_token = text(config.bos_token).or_else(|| text(special.bos_token));
    let eos_token = text(config.eos_token).or_else(|| text(special.eos_token));
    let path = file("tokenizer.json");
    let Some(json) = contents(&path)? else {
        let vocabulary = vocabulary(&file("tokenizer.model"), [bos_token, eos_token], chat_template)?;
        let end_tokens = vocabulary.iter().flat_map(|vocabulary| vocabulary.eos).collect();
        return Ok((vocabulary.map(TokenizerSpec::Vocabulary), end_tokens));
    };
    let added: AddedTokens =
        serde_json::from_str(&json).map_err(|source| WeightsError::Json { path: path.clone(), source })?;
    let is_end = |token: &&AddedToken| Some(&token.content) == eos_token.as_ref();
    let end_tokens = added.added_tokens.iter().filter(is_end).map(|token| token.id).collect();
    let tokenizer = TokenizerJson { path, json, bos_token, eos_token, chat_template };
    Ok((Some(TokenizerSpec::Json(tokenizer)), end_tokens))
}

/// What SentencePiece's own file says, if there is one; special tokens by text go before its own.
fn vocabulary(
    path: &Path,
    [bos_token, eos_token]: [Option<String>; 2],
    chat_template: Option<String>,
) -> Result<Option<VocabularySpec>, WeightsError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WeightsError::Io { path: path.to_owned(), source }),
    };
    let mut vocabulary = sentencepiece_model::read(path, &bytes)?;
    let id_of = |text: Option<String>| {
        let at = text.and_then(|text| vocabulary.tokens.iter().position(|token| token == text));
        at.map(|index| index as u32)
    };
    let (bos, eos) = (id_of(bos_token), id_of(eos_token));
    vocabulary.bos = bos.or(vocabulary.bos);
    vocabulary.eos = eos.or(vocabulary.eos);
    vocabulary.chat_template = chat_template;
    Ok(Some(vocabulary))
}

/// The template of conversations: a file of its own goes before the configuration's.
fn chat_template(folder: &Path, configured: Option<Templates>) -> Result<Option<String>, WeightsError> {
    if let Some(template) = contents(&folder.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    let config_path = folder.join("tokenizer_config.json");
    let path = folder.join("chat_template.json");
    let own: Option<TokenizerConfig> = json(&path)?;
    let (path, templates) = match own.and_then(|own| own.chat_template) {
        Some(templates) => (path, Some(templates)),
        None => (config_path, configured),
    };
    match templates {
        None => Ok(None),
        Some(Templates::One(template)) => Ok(Some(template)),
        Some(Templates::Named(mut named)) => match named.iter().position(|named| named.name == DEFAULT_TEMPLATE) {
            Some(at) => Ok(Some(named.swap_remove(at).template)),
            None => {
                let names: Vec<String> = named.into_iter().map(|named| named.name).collect();
                let value = format!("{:?}", names.join(", "));
                let expected = "templates of which one is named default".into();
                Err(WeightsError::KeyValue { path, key: "chat_template".into(), value, expected })
            }
        },
    }
}

/// What a file of JSON says, if it is there.
fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, WeightsError> {
    let Some(text) = contents(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| WeightsError::Json { path: path.to_owned(), source })
}

/// The text of a file, if it is there.
fn contents(path: &Path) -> Result<Option<String>, WeightsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WeightsError::Io { path: PathBuf::from(path), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_model_is_read_where_there_is_no_tokenizer_json() {
        let folder = std::env::temp_dir().join(format!("vitrum-texts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tokenizer.model"), sentencepiece_model::tests::file()).unwrap();
        let config = r#"{"eos_token": {"content": "<tool>"}, "chat_template": "{{ messages }}"}"#;
        fs::write(folder.join("tokenizer_config.json"), config).unwrap();
        let (spec, end_tokens) = read(&folder).unwrap();
        let spec = spec.expect("a tokenizer");
        let texts = (spec.bos_text(), spec.eos_text(), spec.chat_template());
        assert_eq!(texts, (Some("<s>"), Some("<tool>"), Some("{{ messages }}")));
        assert_eq!(end_tokens, [7], "the configuration's goes before the file's");

        // The other file goes before this one.
        fs::write(folder.join("tokenizer.json"), r#"{"added_tokens": [{"id": 9, "content": "<tool>"}]}"#).unwrap();
        let (spec, end_tokens) = read(&folder).unwrap();
        assert!(matches!(spec, Some(TokenizerSpec::Json(_))));
        assert_eq!(end_tokens, [9]);
        fs::remove_dir_all(folder).unwrap();
    }
}
