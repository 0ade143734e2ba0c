//! The fields of a JSON object, taken one by one by code that knows their types. What is left over is refused.
//!
//! A field's text is parsed only when it is taken, so that a wrong type is reported with the field's name, and a body
//! never becomes a tree that is many times its size.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::neutral::Neutral;
use crate::http::error::ApiError;

/// The fields of a JSON object that were not taken yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// What the names are prefixed with in errors: `stream_options.`, or nothing.
    within: String,
    entries: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// The fields of a whole body.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Fields<'a>, ApiError> {
        let Entries(entries) = serde_json::from_slice(body).map_err(ApiError::InvalidJson)?;
        Ok(Fields { within: String::new(), entries })
    }

    /// The fields of an object inside a body. `name` is where it stands.
    pub(crate) fn of(raw: &'a RawValue, name: &str) -> Result<Fields<'a>, ApiError> {
        let Entries(entries) = serde_json::from_str(raw.get()).map_err(|_| invalid(name, "an object", raw))?;
        Ok(Fields { within: format!("{name}."), entries })
    }

    /// A field's text; `null` is no text.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let index = self.entries.iter().position(|(field, _)| field == name)?;
        let (_, raw) = self.entries.remove(index);
        (raw.get() != "null").then_some(raw)
    }

    /// Whether a field is there and not yet taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(field, _)| field == name)
    }

    /// A field's full name, as errors spell it.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.within)
    }

    /// A field of a type that serde knows.
    pub(crate) fn get<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| invalid(&self.path(name), expected, raw))
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.get(name, "a string")
    }

    /// A yes or no; no is the default.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.get(name, "true or false")?.unwrap_or(false))
    }

    /// A whole number in a range.
    pub(crate) fn whole(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(value) if range.contains(&value) => Ok(Some(value)),
            _ => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(invalid(&self.path(name), expected, raw))
            }
        }
    }

    /// A number that passes a check.
    pub(crate) fn number(
        &mut self,
        name: &str,
        expected: &'static str,
        check: impl Fn(f32) -> bool,
    ) -> Result<Option<f32>, ApiError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match serde_json::from_str::<f64>(raw.get()).map(|value| value as f32) {
            Ok(value) if value.is_finite() && check(value) => Ok(Some(value)),
            _ => Err(invalid(&self.path(name), expected, raw)),
        }
    }

    /// Refuses what was not taken, but for known parameters that have no effect at the value given.
    pub(crate) fn finish(self, neutral: &[&[Neutral]]) -> Result<(), ApiError> {
        for (name, raw) in &self.entries {
            match neutral.iter().copied().flatten().find(|neutral| neutral.name == name) {
                Some(neutral) => neutral.check(&self.path(name), raw)?,
                None => return Err(ApiError::Unknown { param: self.path(name) }),
            }
        }
        Ok(())
    }
}

/// A value that a field cannot have.
pub(crate) fn invalid(param: &str, expected: impl Into<Cow<'static, str>>, raw: &RawValue) -> ApiError {
    ApiError::Invalid { param: param.to_owned(), expected: expected.into(), given: excerpt(raw.get()) }
}

/// The beginning of a client's text, for an error.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// More fields than any request has.
const FIELDS_MAX: usize = 256;

struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
        while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
            if entries.len() == FIELDS_MAX {
                return Err(de::Error::custom(format_args!("it has more than {FIELDS_MAX} fields")));
            }
            if entries.iter().any(|(earlier, _)| *earlier == name) {
                return Err(de::Error::custom(format_args!("it has {name:?} twice")));
            }
            entries.push((name, raw));
        }
        Ok(Entries(entries))
    }
}
