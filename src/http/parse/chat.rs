//! The body of POST /v1/chat/completions.

use serde_json::value::RawValue;

use super::fields::{Fields, excerpt, invalid};
use super::generation::{Generation, Model, whole};
use super::neutral;
use crate::http::error::ApiError;
use crate::request::SamplingParameter;
use crate::text::ChatMessage;

/// A conversation to go on with, and how.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    /// The conversation.
    pub(crate) messages: Vec<ChatMessage>,
    /// End the prompt with the beginning of an answer.
    pub(crate) add_generation_prompt: bool,
    /// Sampling and delivery.
    pub(crate) generation: Generation,
}

/// The most messages of a conversation.
const MESSAGES_MAX: usize = 4096;

impl ChatRequest {
    /// Parses a body.
    pub(crate) fn parse(body: &[u8], model: Model<'_>) -> Result<ChatRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let messages = messages(fields.take("messages").ok_or(ApiError::Missing { param: "messages" })?)?;
        let mut generation = Generation::take(&mut fields, &["max_completion_tokens", "max_tokens"], model)?;
        generation.sampling.logprobs = logprobs(&mut fields)?;
        let add_generation_prompt = fields.get("add_generation_prompt", "true or false")?.unwrap_or(true);
        fields.finish(&[neutral::GENERATION, neutral::CHAT])?;
        Ok(ChatRequest { messages, add_generation_prompt, generation })
    }
}

/// Two parameters of which the first switches the second on.
fn logprobs(fields: &mut Fields<'_>) -> Result<Option<u32>, ApiError> {
    let wanted = fields.flag("logprobs")?;
    match whole(fields, "top_logprobs", SamplingParameter::Logprobs)? {
        Some(count) if count > 0 && !wanted => {
            Err(ApiError::Needs { param: "top_logprobs", needs: "logprobs to be true" })
        }
        count => Ok(wanted.then_some(count.unwrap_or(0))),
    }
}

/// The messages of a conversation.
pub(super) fn messages(raw: &RawValue) -> Result<Vec<ChatMessage>, ApiError> {
    let expected = || invalid("messages", format!("a list of 1 to {MESSAGES_MAX} messages"), raw);
    let list: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| expected())?;
    if !(1..=MESSAGES_MAX).contains(&list.len()) {
        return Err(expected());
    }
    list.into_iter().enumerate().map(|(index, raw)| message(index, raw)).collect()
}

fn message(index: usize, raw: &RawValue) -> Result<ChatMessage, ApiError> {
    let mut fields = Fields::of(raw, &format!("messages[{index}]"))?;
    let role = role(&mut fields)?;
    let path = fields.path("content");
    let content = match fields.take("content") {
        Some(raw) => content(&path, raw)?,
        None if role == "assistant" => String::new(), // an earlier answer without text
        None => {
            let expected = "a string or a list of text parts".into();
            return Err(ApiError::Invalid { param: path, expected, given: "absent".into() });
        }
    };
    fields.finish(&[neutral::MESSAGE])?;
    Ok(ChatMessage { role, content })
}

fn role(fields: &mut Fields<'_>) -> Result<String, ApiError> {
    const ROLES: &str = "one of system, developer, user, assistant";
    let path = fields.path("role");
    let wrong = |given: String| ApiError::Invalid { param: path.clone(), expected: ROLES.into(), given };
    let Some(raw) = fields.take("role") else { return Err(wrong("absent".into())) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(role) if ["system", "developer", "user", "assistant"].contains(&role.as_str()) => Ok(role),
        _ => Err(wrong(excerpt(raw.get()))),
    }
}

/// A string, or text parts, which are joined by line ends as vLLM joins them.
fn content(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    let expected = "a string or a list of text parts";
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map_err(|_| invalid(path, expected, raw));
    }
    let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| invalid(path, expected, raw))?;
    let texts: Result<Vec<String>, ApiError> =
        parts.into_iter().enumerate().map(|(index, raw)| part(&format!("{path}[{index}]"), raw)).collect();
    Ok(texts?.join("\n"))
}

fn part(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    let mut fields = Fields::of(raw, path)?;
    let kind = fields.text("type")?.unwrap_or_default();
    if kind != "text" {
        return Err(ApiError::Unsupported {
            param: fields.path("type"),
            given: format!("{kind:?}"),
            accepted: "\"text\"".into(),
        });
    }
    let missing =
        || ApiError::Invalid { param: format!("{path}.text"), expected: "a string".into(), given: "absent".into() };
    let text = fields.text("text")?.ok_or_else(missing)?;
    fields.finish(&[])?;
    Ok(text)
}
