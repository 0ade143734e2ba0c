//! The JSON of a `tokenizer.json`, checked for what the `tokenizers` crate does not expect.
//!
//! Only the parts that language models have are let in, and each with what it needs: the crate panics on merges that
//! are shorter than their prefix, on templates that name no token, and where a decoder is no JSON.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::utils::SysRegex;

use crate::text::TextError;

const NORMALIZERS: &str = "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip";
const PRE_TOKENIZERS: &str = "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit";
const POST_PROCESSORS: &str = "Sequence, TemplateProcessing, ByteLevel";
const DECODERS: &str = "Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip";

/// Characters of the file that an error shows.
const SHOWN_CHARS_MAX: usize = 64;

/// Bytes of an added token: what finds tokens in text has a table for each byte of them.
const ADDED_BYTES_MAX: usize = 1024;

/// How much longer a text may become by what the file replaces in it, or puts before it.
const GROWTH_MAX: usize = 1024;

/// A kind of part that the pipeline is made of.
#[derive(Clone, Copy)]
struct Part {
    field: &'static str,
    /// The field of a `Sequence` that has its parts.
    parts: &'static str,
    supported: &'static str,
}

const PARTS: [Part; 4] = [
    Part { field: "normalizer", parts: "normalizers", supported: NORMALIZERS },
    Part { field: "pre_tokenizer", parts: "pretokenizers", supported: PRE_TOKENIZERS },
    Part { field: "post_processor", parts: "processors", supported: POST_PROCESSORS },
    Part { field: "decoder", parts: "decoders", supported: DECODERS },
];

/// A file whose parts are known, and whose ids are distinct and no larger than the file.
pub(super) struct File {
    path: PathBuf,
    json: Value,
}

impl File {
    /// Parses and checks.
    pub(super) fn parse(path: &Path, json: &str) -> Result<File, TextError> {
        let parsed = serde_json::from_str(json);
        let mut file = File { path: path.to_owned(), json: Value::Null };
        file.json = parsed.map_err(|error: serde_json::Error| file.refused(error.to_string()))?;
        let Some(fields) = file.json.as_object_mut() else {
            return Err(file.wrong("the file", &file.json, "an object"));
        };
        fields.remove("truncation");
        fields.remove("padding");
        match fields.get_mut("model") {
            // Files of the first years say no type.
            Some(Value::Object(model)) if model.get("merges").is_some() => {
                model.entry("type").or_insert_with(|| Value::from("BPE"));
            }
            Some(_) => {}
            None => return Err(file.wrong("model", &Value::Null, "there")),
        }
        for part in PARTS {
            for value in file.parts(part)? {
                file.check_type(part.field, value, part.supported)?;
            }
            file.check_growth(part)?;
        }
        file.check_normalizers()?;
        file.check_added()?;
        file.check_model(json.len())?;
        Ok(file)
    }

    pub(super) fn json(&self) -> &Value {
        &self.json
    }

    /// Tokens of the model with their ids.
    pub(super) fn vocabulary(&self) -> impl Iterator<Item = (&str, u32)> {
        let vocabulary = self.json["model"]["vocab"].as_object();
        let ids = vocabulary.into_iter().flatten().map(|(text, id)| (&**text, id.as_u64()));
        ids.filter_map(|(text, id)| Some((text, u32::try_from(id?).ok()?)))
    }

    /// The parts of the decoder, sequences taken apart.
    pub(super) fn decoders(&self) -> Result<Vec<&Value>, TextError> {
        self.parts(PARTS[3])
    }

    /// The normalizers and the pre-tokenizers, sequences taken apart.
    pub(super) fn spellers(&self) -> Result<[Vec<&Value>; 2], TextError> {
        Ok([self.parts(PARTS[0])?, self.parts(PARTS[1])?])
    }

    /// An error of this file, in the crate's words.
    pub(super) fn refused(&self, message: String) -> TextError {
        TextError::TokenizerFile { path: self.path.clone(), message: shortened(&message, 4 * SHOWN_CHARS_MAX) }
    }

    /// A value that cannot be.
    pub(super) fn wrong(&self, field: &str, value: impl ToString, expected: &'static str) -> TextError {
        let (path, value) = (self.path.clone(), shortened(&value.to_string(), SHOWN_CHARS_MAX));
        TextError::TokenizerValue { path, field: field.to_owned(), value, expected }
    }

    /// A part that is not known.
    pub(super) fn unsupported(&self, field: &'static str, kind: &str, supported: &'static str) -> TextError {
        let kind = shortened(kind, SHOWN_CHARS_MAX);
        TextError::TokenizerPart { path: self.path.clone(), field, kind, supported }
    }

    fn parts(&self, part: Part) -> Result<Vec<&Value>, TextError> {
        self.parts_of(part, &self.json[part.field])
    }

    /// Sequences are taken apart, however deep they lie in one another; JSON ends at a depth of 128.
    fn parts_of<'a>(&self, part: Part, value: &'a Value) -> Result<Vec<&'a Value>, TextError> {
        let mut open: Vec<&Value> = Some(value).filter(|value| !value.is_null()).into_iter().collect();
        let mut parts = Vec::new();
        while let Some(value) = open.pop() {
            if value["type"] == "Sequence" {
                let inner = value[part.parts].as_array();
                let inner = inner.ok_or_else(|| self.wrong(part.parts, &value[part.parts], "a list"))?;
                open.extend(inner.iter().rev());
            } else {
                parts.push(value);
            }
        }
        Ok(parts)
    }

    fn check_type(&self, field: &'static str, value: &Value, supported: &'static str) -> Result<(), TextError> {
        let Some(kind) = value["type"].as_str() else {
            return Err(self.wrong(&format!("{field}.type"), &value["type"], "a string"));
        };
        if !supported.split(", ").any(|known| known == kind) {
            return Err(self.unsupported(field, kind, supported));
        }
        Ok(())
    }

    /// Each replacement may replace what the one before it has written.
    fn check_growth(&self, part: Part) -> Result<(), TextError> {
        let written = |value: &Value| ["content", "prepend"].map(|field| value[field].as_str().map_or(0, str::len));
        let parts = self.parts(part)?;
        let growth = parts.iter().flat_map(|value| written(value)).fold(1, |growth: usize, bytes| {
            growth.saturating_mul(bytes.saturating_add(1)) // a pattern may be found between any two characters
        });
        if growth > GROWTH_MAX {
            return Err(self.wrong(part.field, format!("making text {growth} times as long"), "at most 1024 times"));
        }
        Ok(())
    }

    /// Text that is put at the beginning and stands for no character that was there is more than the crate counts on.
    fn check_normalizers(&self) -> Result<(), TextError> {
        for part in self.parts(PARTS[0])? {
            let is_empty = |value: &Value| value.as_str() == Some("");
            if is_empty(&part["prepend"]) {
                return Err(self.wrong("normalizer.prepend", &part["prepend"], "a string that is not empty"));
            }
            let pattern = &part["pattern"];
            let finds_nothing = is_empty(&pattern["String"]) || pattern["Regex"].as_str().is_some_and(may_be_empty);
            if finds_nothing && !is_empty(&part["content"]) {
                return Err(self.wrong("normalizer.pattern", pattern, "a pattern that finds no empty text"));
            }
        }
        Ok(())
    }

    fn check_added(&self) -> Result<(), TextError> {
        for token in self.json["added_tokens"].as_array().into_iter().flatten() {
            if token["content"].as_str().is_some_and(|content| content.len() > ADDED_BYTES_MAX) {
                return Err(self.wrong("added_tokens.content", &token["content"], "at most 1024 bytes"));
            }
        }
        Ok(())
    }

    fn check_model(&self, file_bytes: usize) -> Result<(), TextError> {
        let model = &self.json["model"];
        self.check_type("model", model, "BPE")?;
        if !matches!(&model["dropout"], Value::Null) && model["dropout"].as_f64() != Some(0.0) {
            return Err(self.wrong("model.dropout", &model["dropout"], "0: text has the same tokens every time"));
        }
        let Some(vocabulary) = model["vocab"].as_object() else {
            return Err(self.wrong("model.vocab", &model["vocab"], "an object"));
        };
        let mut seen = HashMap::with_capacity(vocabulary.len());
        for (text, id) in vocabulary {
            // A table by id has room for every id below the largest, and a token takes some bytes of the file.
            let Some(id) = id.as_u64().filter(|id| *id < file_bytes.min(u32::MAX as usize) as u64) else {
                let field = format!("model.vocab[{:?}]", shortened(text, SHOWN_CHARS_MAX));
                return Err(self.wrong(&field, id, "an id, less than the file's number of bytes"));
            };
            if let Some(first) = seen.insert(id, text) {
                let (first, second) = (shortened(first, SHOWN_CHARS_MAX), shortened(text, SHOWN_CHARS_MAX));
                return Err(self.wrong(
                    "model.vocab",
                    format!("{id} for {first:?} and {second:?}"),
                    "one id for a token",
                ));
            }
        }
        self.check_merges(model)
    }

    /// The right part of a merge has the prefix that words go on with.
    fn check_merges(&self, model: &Value) -> Result<(), TextError> {
        let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
        for merge in model["merges"].as_array().into_iter().flatten().filter(|_| !prefix.is_empty()) {
            let right = match merge {
                Value::String(pair) => pair.split(' ').nth(1),
                pair => pair[1].as_str(),
            };
            if right.is_some_and(|right| right.get(prefix.len()..).is_none()) {
                return Err(self.wrong("model.merges", merge, "two tokens, the second with the prefix of the model"));
            }
        }
        Ok(())
    }

    /// The text stands in a template once, and so do only tokens that it declares, below `vocab`. `read` is what the
    /// crate makes of the file: it tells these by their fields, and not by their type.
    pub(super) fn check_post_processor(&self, read: &Value, vocab: usize) -> Result<(), TextError> {
        let processors = self.parts_of(PARTS[2], read)?;
        for processor in &processors {
            self.check_type(PARTS[2].field, processor, PARTS[2].supported)?;
        }
        let templates: Vec<_> = processors.into_iter().filter(|value| value["type"] == "TemplateProcessing").collect();
        if templates.len() > 1 {
            return Err(self.wrong("post_processor", format!("{} templates", templates.len()), "one template"));
        }
        for template in templates {
            let pieces = template["single"].as_array();
            let pieces = pieces.ok_or_else(|| self.wrong("post_processor.single", &template["single"], "a list"))?;
            let sequences = pieces.iter().filter_map(|piece| piece.get("Sequence"));
            let is_text = |sequence: &Value| sequence["id"] == "A";
            if sequences.clone().count() != 1 || !sequences.clone().all(is_text) {
                return Err(self.wrong("post_processor.single", &template["single"], "a template with A once"));
            }
            for piece in pieces.iter().filter_map(|piece| piece.get("SpecialToken")) {
                self.check_special_token(&piece["id"], &template["special_tokens"], vocab)?;
            }
        }
        Ok(())
    }

    fn check_special_token(&self, name: &Value, declared: &Value, vocab: usize) -> Result<(), TextError> {
        let token = name.as_str().and_then(|name| declared.get(name));
        let Some(Value::Object(token)) = token else {
            return Err(self.wrong("post_processor.single", name, "one of its special_tokens"));
        };
        let list = |field: &str| token.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (ids, tokens) = (list("ids"), list("tokens"));
        if ids.len() != tokens.len() || !ids.iter().all(|id| id.as_u64().is_some_and(|id| id < vocab as u64)) {
            let ids = Value::from(ids.to_vec());
            return Err(self.wrong("post_processor.special_tokens.ids", ids, "ids of tokens, as many as its tokens"));
        }
        Ok(())
    }
}

/// Whether a pattern matches the empty text, alone or in front of a letter of ASCII. A pattern that does so in front of
/// longer texts only is not found out.
fn may_be_empty(pattern: &str) -> bool {
    let Ok(regex) = SysRegex::new(pattern) else { return false }; // the crate says why
    let texts = std::iter::once(String::new()).chain(('\0'..='\x7F').map(String::from));
    texts.into_iter().any(|text| regex.find_iter(&text).any(|(start, end)| start == end))
}

fn shortened(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}
