//! What a model file says of its model: values by key, under the names of whichever container it is.
//!
//! A family reads a number by its [`Key`], which has the name of both containers; what nobody has read in the end is
//! refused, since it may change the computation. JSON's `null` counts as nothing said.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::WeightsError;

/// The largest width, number of heads or vocabulary a model may have: products of two fit 64 bits with room to spare.
pub const DIMENSION_MAX: usize = 1 << 24;

/// A key of a model's description: a field of Hugging Face's `config.json`, and GGUF's name behind the architecture's.
/// One that is empty is not said by such files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `hidden_size`
    pub hf: &'static str,
    /// `embedding_length`, of `llama.embedding_length`
    pub gguf: &'static str,
}

/// Whose names keys and tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Those of Hugging Face's transformers.
    HuggingFace,
    /// Those of GGUF.
    Gguf,
}

/// A value of a model's description.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer that is not negative.
    Unsigned(u64),
    /// An integer.
    Signed(i64),
    /// A number; in GGUF, perhaps none that is finite.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Values by key.
    Table(Vec<(String, Value)>),
    /// JSON's `null`: counts as not being there.
    Null,
    /// Something that no key is read as, in words.
    Other(String),
}

/// Characters of a string that an error shows.
const SHOWN_CHARS_MAX: usize = 64;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(value) => value.fmt(f),
            Value::Signed(value) => value.fmt(f),
            // Without the hundreds of zeros that a number may have.
            Value::Float(value) => f.write_str(format!("{value:?}").trim_end_matches(".0")),
            Value::Bool(value) => value.fmt(f),
            // A file may say megabytes.
            Value::Text(text) => write!(f, "{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
            Value::List(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "[{}]", values.join(","))
            }
            Value::Table(values) => {
                let values: Vec<String> = values.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                write!(f, "{{{}}}", values.join(","))
            }
            Value::Null => f.write_str("null"),
            Value::Other(words) => f.write_str(words),
        }
    }
}

impl Value {
    /// A whole number that is not negative.
    pub(super) fn as_unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    fn as_float(&self) -> Option<f64> {
        match self {
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            Value::Float(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }
}

/// The values of one file, or of one table in it, that nobody has read yet.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    path: &'a Path,
    naming: Naming,
    /// What stands before every key: `llama.`, `rope_scaling.`, or nothing.
    prefix: String,
    values: BTreeMap<String, Value>,
}

impl<'a> Keys<'a> {
    /// Of the file at `path`. `values` have no prefix.
    pub fn new(
        path: &'a Path,
        naming: Naming,
        prefix: String,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Keys<'a> {
        Keys { path, naming, prefix, values: values.into_iter().collect() }
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Whose names its keys have.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    fn word(&self, key: Key) -> &'static str {
        match self.naming {
            Naming::HuggingFace => key.hf,
            Naming::Gguf => key.gguf,
        }
    }

    /// Takes a value out. A key without a name in such files has none, whatever stands under the empty name.
    fn remove(&mut self, key: Key) -> Option<Value> {
        Some(self.word(key)).filter(|word| !word.is_empty()).and_then(|word| self.values.remove(word))
    }

    /// The key as the file has it, for errors.
    pub fn name(&self, key: Key) -> String {
        format!("{}{}", self.prefix, self.word(key))
    }

    /// Whether the key is there, and was not read.
    pub fn has(&self, key: Key) -> bool {
        let word = self.word(key);
        !word.is_empty() && self.values.get(word).is_some_and(|value| *value != Value::Null)
    }

    /// A value, which then counts as read.
    pub fn take(&mut self, key: Key) -> Option<Value> {
        self.remove(key).filter(|value| *value != Value::Null)
    }

    /// The error for a key that has to be there.
    pub fn missing(&self, key: Key) -> WeightsError {
        WeightsError::MissingKey { path: self.path.to_owned(), key: self.name(key) }
    }

    /// The error for a value that is not as expected.
    pub fn wrong(&self, key: Key, value: &Value, expected: impl Into<Cow<'static, str>>) -> WeightsError {
        let (path, value) = (self.path.to_owned(), value.to_string());
        WeightsError::KeyValue { path, key: self.name(key), value, expected: expected.into() }
    }

    /// The error for a value that changes the computation in a way that is not known.
    pub fn unsupported(&self, key: Key, value: &Value) -> WeightsError {
        WeightsError::UnsupportedKey { path: self.path.to_owned(), key: self.name(key), value: value.to_string() }
    }

    /// An integer from 1 to `limit`, if the key is there.
    pub fn optional_size(&mut self, key: Key, limit: usize) -> Result<Option<usize>, WeightsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_unsigned().filter(|size| *size >= 1 && *size <= limit as u64) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(self.wrong(key, &value, format!("an integer from 1 to {limit}"))),
        }
    }

    /// An integer from 1 to `limit`.
    pub fn size(&mut self, key: Key, limit: usize) -> Result<usize, WeightsError> {
        self.optional_size(key, limit)?.ok_or_else(|| self.missing(key))
    }

    /// What `read` makes of a finite number, if the key is there.
    pub fn optional_number<T>(
        &mut self,
        key: Key,
        read: impl Fn(f64) -> Option<T>,
        expected: &'static str,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_float().and_then(read).map(Some).ok_or_else(|| self.wrong(key, &value, expected))
    }

    /// What `read` makes of a finite number.
    pub fn number<T>(
        &mut self,
        key: Key,
        read: impl Fn(f64) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, WeightsError> {
        self.optional_number(key, read, expected)?.ok_or_else(|| self.missing(key))
    }

    /// True or false; `default` where nothing is said.
    pub fn flag(&mut self, key: Key, default: bool) -> Result<bool, WeightsError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(value) => Err(self.wrong(key, &value, "true or false")),
        }
    }

    /// A string, if the key is there.
    pub fn optional_text(&mut self, key: Key) -> Result<Option<String>, WeightsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(value) => Err(self.wrong(key, &value, "a string")),
        }
    }

    /// Token ids below `vocab`: one, a list, or `null` for none.
    pub fn token_ids(&mut self, key: Key, vocab: usize) -> Result<Vec<u32>, WeightsError> {
        let value = self.remove(key).ok_or_else(|| self.missing(key))?;
        let listed = match &value {
            Value::Null => &[][..],
            Value::List(ids) => ids,
            id => std::slice::from_ref(id),
        };
        let id = |value: &Value| value.as_unsigned().filter(|id| *id < vocab as u64).map(|id| id as u32);
        let ids = listed.iter().map(id).collect::<Option<Vec<_>>>();
        ids.ok_or_else(|| self.wrong(key, &value, "a token of the vocabulary, or a list of them"))
    }

    /// The keys of a table, if it is there.
    pub fn table(&mut self, key: Key) -> Result<Option<Keys<'a>>, WeightsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(values)) => {
                Ok(Some(Keys::new(self.path, self.naming, format!("{}.", self.name(key)), values)))
            }
            Some(value) => Err(self.wrong(key, &value, "an object")),
        }
    }

    /// Refuses features that the family has not: a key may say `false`, or nothing.
    pub fn refuse(&mut self, keys: &[Key]) -> Result<(), WeightsError> {
        for key in keys {
            if let Some(value) = self.take(*key).filter(|value| *value != Value::Bool(false)) {
                return Err(self.unsupported(*key, &value));
            }
        }
        Ok(())
    }

    /// Passes over keys that say nothing about the computation.
    pub fn ignore(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| drop(self.take(*key)));
    }

    /// Refuses what nobody has read. Fields of a `config.json` that begin with an underscore are its writer's notes.
    pub fn finish(self) -> Result<(), WeightsError> {
        let takes_notes = self.naming == Naming::HuggingFace && self.prefix.is_empty();
        let is_note = |key: &str| takes_notes && key.starts_with('_');
        let unread = |(key, value): &(&String, &Value)| !is_note(key) && **value != Value::Null;
        match self.values.iter().find(unread) {
            None => Ok(()),
            Some((key, value)) => Err(WeightsError::UnsupportedKey {
                path: self.path.to_owned(),
                key: format!("{}{key}", self.prefix),
                value: value.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: Key = Key { hf: "width", gguf: "the_width" };
    const ON: Key = Key { hf: "on", gguf: "" };

    fn keys(naming: Naming, values: &[(&str, Value)]) -> Keys<'static> {
        let prefix = if naming == Naming::Gguf { "x." } else { "" };
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        Keys::new(Path::new("file"), naming, prefix.to_owned(), values)
    }

    #[test]
    fn a_key_has_the_name_of_its_container() {
        let mut hf = keys(Naming::HuggingFace, &[("width", Value::Unsigned(3))]);
        assert_eq!((hf.name(WIDTH), hf.size(WIDTH, 9).unwrap()), ("width".to_owned(), 3));
        hf.finish().unwrap();
        let mut gguf = keys(Naming::Gguf, &[("the_width", Value::Unsigned(3)), ("on", Value::Bool(true))]);
        assert_eq!((gguf.name(WIDTH), gguf.size(WIDTH, 9).unwrap()), ("x.the_width".to_owned(), 3));
        assert!(gguf.take(ON).is_none(), "such files do not say it");
        assert_eq!(gguf.finish().unwrap_err().to_string(), "file: x.on = true is not supported");
    }

    #[test]
    fn values_are_read_as_what_they_have_to_be() {
        let read = |value: Value| keys(Naming::HuggingFace, &[("width", value)]);
        for (value, shown) in [
            (Value::Unsigned(10), "10"),
            (Value::Signed(-1), "-1"),
            (Value::Float(1.5), "1.5"),
            (Value::Float(2.0), "2"),
            (Value::Text("3".into()), "\"3\""),
            (Value::List(vec![Value::Unsigned(1), Value::Bool(true)]), "[1,true]"),
            (Value::Table(vec![("a".into(), Value::Unsigned(1))]), "{\"a\":1}"),
        ] {
            let error = read(value).size(WIDTH, 9).unwrap_err().to_string();
            assert_eq!(error, format!("file: width is {shown}, and has to be an integer from 1 to 9"));
        }
        assert_eq!(read(Value::Unsigned(2)).number(WIDTH, Some, "a number").unwrap(), 2.0);
        read(Value::Float(f64::NAN)).number(WIDTH, Some, "a number").unwrap_err();
        assert_eq!(read(Value::Unsigned(2)).token_ids(WIDTH, 3).unwrap(), [2]);
        read(Value::List(vec![Value::Unsigned(3)])).token_ids(WIDTH, 3).unwrap_err();
    }

    #[test]
    fn what_is_off_is_not_refused() {
        for off in [Value::Bool(false), Value::Null] {
            keys(Naming::HuggingFace, &[("on", off)]).refuse(&[ON]).unwrap();
        }
        keys(Naming::HuggingFace, &[("on", Value::Unsigned(0))]).refuse(&[ON]).unwrap_err();
        let error = keys(Naming::HuggingFace, &[("on", Value::Unsigned(4))]).refuse(&[ON]).unwrap_err();
        assert_eq!(error.to_string(), "file: on = 4 is not supported");
        keys(Naming::HuggingFace, &[("_note", Value::Unsigned(4))]).finish().unwrap();
        keys(Naming::Gguf, &[("_note", Value::Unsigned(4))]).finish().unwrap_err();
    }

    #[test]
    fn an_empty_name_is_no_key_and_null_is_no_value() {
        let mut gguf = keys(Naming::Gguf, &[("", Value::Unsigned(1))]);
        assert!(!gguf.has(ON) && gguf.take(ON).is_none());
        assert_eq!(gguf.finish().unwrap_err().to_string(), "file: x. = 1 is not supported");
        let mut null = keys(Naming::HuggingFace, &[("width", Value::Null), ("other", Value::Null)]);
        assert!(!null.has(WIDTH));
        assert_eq!(null.token_ids(WIDTH, 3).unwrap(), [0; 0]);
        null.finish().unwrap();
        assert!(keys(Naming::HuggingFace, &[]).token_ids(WIDTH, 3).is_err());
        assert!(keys(Naming::HuggingFace, &[("on", Value::Null)]).flag(ON, true).unwrap());
        keys(Naming::HuggingFace, &[("on", Value::Text("yes".into()))]).flag(ON, true).unwrap_err();
    }

    #[test]
    fn a_table_has_keys_of_its_own() {
        let table = Value::Table(vec![("on".into(), Value::Bool(true)), ("_note".into(), Value::Bool(true))]);
        let mut keys = keys(Naming::HuggingFace, &[("width", table)]);
        let mut inner = keys.table(WIDTH).unwrap().unwrap();
        assert_eq!(inner.name(ON), "width.on");
        assert!(inner.flag(ON, false).unwrap());
        assert_eq!(inner.finish().unwrap_err().to_string(), "file: width._note = true is not supported");
        keys.finish().unwrap();
    }

    #[test]
    fn long_text_is_cut_in_errors() {
        let shown = Value::Text("é".repeat(1 << 20)).to_string();
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX + 2);
    }
}
