//! The bodies of POST /start_profile and POST /stop_profile.

use super::fields::{Fields, invalid};
use super::neutral::{self, Neutral};
use crate::http::error::ApiError;

/// How to record.
#[derive(Debug)]
pub(crate) struct StartProfileRequest {
    /// What the file names begin with.
    pub(crate) prefix: Option<String>,
    /// Record each step with probability 1/2, so that the recording's own cost can be measured.
    pub(crate) toggle: bool,
}

impl StartProfileRequest {
    /// Parses a body, which may be empty.
    pub(crate) fn parse(body: &[u8]) -> Result<StartProfileRequest, ApiError> {
        let Some(mut fields) = fields(body)? else {
            return Ok(StartProfileRequest { prefix: None, toggle: false });
        };
        let request = StartProfileRequest { prefix: prefix(&mut fields)?, toggle: fields.flag("toggle")? };
        finish(fields, &[neutral::PROFILE])?;
        Ok(request)
    }
}

/// Checks a body of /stop_profile, which has no parameters.
pub(crate) fn check_stop(body: &[u8]) -> Result<(), ApiError> {
    match fields(body)? {
        Some(fields) => finish(fields, &[]),
        None => Ok(()),
    }
}

fn fields(body: &[u8]) -> Result<Option<Fields<'_>>, ApiError> {
    if body.trim_ascii().is_empty() { Ok(None) } else { Fields::parse(body).map(Some) }
}

/// Refuses what is left of a body. Older `vllm bench serve` posts a whole generation request to these routes and means
/// nothing by it: the parameters of one are passed over.
fn finish(fields: Fields<'_>, neutral: &[&[Neutral]]) -> Result<(), ApiError> {
    const GENERATION: [&str; 2] = ["prompt", "messages"];
    if GENERATION.iter().any(|field| fields.has(field)) { Ok(()) } else { fields.finish(neutral) }
}

/// The prefix becomes a file's name: nothing that could lead out of the folder.
fn prefix(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    const EXPECTED: &str = "1 to 100 letters, digits, '-', '_' or '.', the first no '.'";
    let Some(raw) = fields.take("profile_prefix") else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(prefix)
            if (1..=100).contains(&prefix.len())
                && !prefix.starts_with('.')
                && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
        {
            Ok(Some(prefix))
        }
        _ => Err(invalid("profile_prefix", EXPECTED, raw)),
    }
}
