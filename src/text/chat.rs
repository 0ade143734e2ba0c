//! Chat templates: a model's Jinja template turns messages into a prompt, as Hugging Face's libraries render it.

use std::sync::LazyLock;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{TextError, clock};
use crate::weights::TokenizerSpec;

const NAME: &str = "chat_template";

/// Instructions that one rendering may take: some hundred times what long conversations need.
const FUEL: u64 = 50_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Value,
    eos_token: Value,
}

impl ChatTemplate {
    /// Compiles the template that a model file holds.
    pub fn from_spec(spec: &TokenizerSpec) -> Result<ChatTemplate, TextError> {
        let source = spec.chat_template.as_deref().ok_or(TextError::NoChatTemplate)?;
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|source| TextError::ChatTemplate { source })?;
        let token = |id: Option<u32>| match id.and_then(|id| spec.tokens.get(id as usize)) {
            Some(text) => Value::from(text),
            None => Value::UNDEFINED,
        };
        Ok(ChatTemplate { environment, bos_token: token(spec.bos), eos_token: token(spec.eos) })
    }

    /// Writes messages as a prompt. `add_generation_prompt` begins the assistant's answer.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TextError> {
        let failed = |source| TextError::ChatTemplate { source };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let variables = context! {
            messages,
            add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => (),
            documents => (),
        };
        template.render(variables).map_err(failed)
    }
}

/// `{% generation %}` marks the assistant's words for training; to a rendering it is a block like any other.
fn without_generation_tags(source: &str) -> String {
    static TAGS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").ok());
    let Some(tags) = TAGS.as_ref() else { return source.to_owned() };
    let block = |found: &regex::Captures<'_>| {
        let word = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {word} {}%}}", &found[1], &found[3])
    };
    tags.replace_all(source, block).into_owned()
}

/// A template refuses messages by this.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let unknown = || Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown directive in {format:?}"));
    clock::strftime_now(format).ok_or_else(unknown)
}

/// JSON as Python writes it, `ensure_ascii=False`: spaces after colons and commas, nothing escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormatter)),
    };
    let failed = |source| Error::new(ErrorKind::BadSerialization, "tojson").with_source(source);
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// `", "` between elements and `": "` after keys.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
