//! The metadata of a GGUF file: keys with typed values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::cursor::{Cursor, Kind, Value};
use crate::weights::{self, Malformed, StringTable, WeightsError};

/// GGUF's own limit.
const KEY_BYTES_MAX: u64 = 65_535;
/// Far more than the some dozen keys that files have.
const KEYS_MAX: u64 = 65_536;
/// Key, type and the smallest value.
const ENTRY_BYTES_MIN: usize = 8 + 4 + 1;

/// Keys and values; text and arrays are read out of the file's bytes on request.
pub(super) struct Metadata<'a> {
    path: &'a Path,
    data: &'a [u8],
    entries: HashMap<&'a str, Value>,
}

impl<'a> Metadata<'a> {
    /// Reads `count` entries.
    pub(super) fn parse(
        path: &'a Path,
        data: &'a [u8],
        cursor: &mut Cursor<'a>,
        count: usize,
    ) -> Result<Metadata<'a>, Malformed> {
        let mut entries = HashMap::new();
        for _ in 0..count {
            let offset = cursor.offset();
            let key = cursor.text("metadata key", KEY_BYTES_MAX)?;
            let value = cursor.typed_value()?;
            if entries.insert(key, value).is_some() {
                return Err(Malformed::Duplicate { offset, field: "metadata key", name: key.to_owned() });
            }
        }
        Ok(Metadata { path, data, entries })
    }

    /// Reads the number of entries.
    pub(super) fn count(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
        cursor.count("metadata count", ENTRY_BYTES_MIN, KEYS_MAX)
    }

    /// The entries whose keys begin with `prefix`, without it.
    pub(super) fn values(&self, prefix: &str) -> Vec<(String, weights::Value)> {
        let of_model = self.entries.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, key, value)));
        let value = |key: &str, value: &Value| match value {
            Value::Unsigned(value) => weights::Value::Unsigned(*value),
            Value::Signed(value) => weights::Value::Signed(*value),
            Value::Float(value) => weights::Value::Float(*value),
            Value::Bool(value) => weights::Value::Bool(*value),
            Value::Text(range) => weights::Value::Text(String::from_utf8_lossy(&self.data[range.clone()]).into_owned()),
            Value::Array { .. } => weights::Value::Other(self.show(key)),
        };
        of_model.map(|(rest, key, found)| (rest.to_owned(), value(key, found))).collect()
    }

    pub(super) fn missing(&self, key: &str) -> WeightsError {
        WeightsError::MissingKey { path: self.path.to_owned(), key: key.to_owned() }
    }

    /// The error for a value that is not as expected.
    pub(super) fn wrong(&self, key: &str, expected: impl Into<Cow<'static, str>>) -> WeightsError {
        let (path, expected) = (self.path.to_owned(), expected.into());
        WeightsError::KeyValue { path, key: key.to_owned(), value: self.show(key), expected }
    }

    /// A value in words, for errors.
    pub(super) fn show(&self, key: &str) -> String {
        match self.entries.get(key) {
            None => "missing".to_owned(),
            Some(Value::Unsigned(value)) => value.to_string(),
            Some(Value::Signed(value)) => value.to_string(),
            // Without the hundreds of zeros that a number may have.
            Some(Value::Float(value)) => format!("{value:?}").trim_end_matches(".0").to_owned(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Text(range)) => {
                let bytes = &self.data[range.start..range.end.min(range.start + 64)];
                format!("{:?}", String::from_utf8_lossy(bytes))
            }
            Some(Value::Array { kind, count, .. }) => format!("an array of {count} {kind:?}"),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, WeightsError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => std::str::from_utf8(&self.data[range.clone()])
                .map(Some)
                .map_err(|_| self.malformed(Malformed::NotUtf8 { offset: range.start as u64, field: "string" })),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// A text that is only shown: what is no UTF-8 in it is replaced.
    pub(super) fn text_shown(&self, key: &str) -> Result<Option<String>, WeightsError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => Ok(Some(String::from_utf8_lossy(&self.data[range.clone()]).into_owned())),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "a bool")),
        }
    }

    /// An integer of any width that is not negative.
    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(self.wrong(key, "an integer that is not negative")),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<StringTable>, WeightsError> {
        let (count, offset) = match self.entries.get(key) {
            None => return Ok(None),
            Some(Value::Array { kind: Kind::String, count, offset }) => (*count, *offset),
            Some(_) => return Err(self.wrong(key, "an array of strings")),
        };
        let mut cursor = Cursor::new(self.data, offset);
        let mut table = StringTable::with_capacity(count);
        for _ in 0..count {
            table.push(cursor.element().map_err(|cause| self.malformed(cause))?);
        }
        Ok(Some(table))
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        self.numbers(key, Kind::F32, "an array of f32", f32::from_le_bytes)
    }

    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, WeightsError> {
        let unsigned = matches!(self.entries.get(key), Some(Value::Array { kind: Kind::U32, .. }));
        let kind = if unsigned { Kind::U32 } else { Kind::I32 };
        self.numbers(key, kind, "an array of 32-bit integers", i32::from_le_bytes)
    }

    fn numbers<T>(
        &self,
        key: &str,
        wanted: Kind,
        expected: &'static str,
        read: fn([u8; 4]) -> T,
    ) -> Result<Option<Vec<T>>, WeightsError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Value::Array { kind, count, offset }) if *kind == wanted => {
                let bytes = &self.data[*offset..*offset + 4 * count];
                Ok(Some(bytes.chunks_exact(4).map(|b| read([b[0], b[1], b[2], b[3]])).collect()))
            }
            Some(_) => Err(self.wrong(key, expected)),
        }
    }

    fn malformed(&self, cause: Malformed) -> WeightsError {
        WeightsError::Malformed { path: self.path.to_owned(), cause }
    }
}
