//! Chat templates: a model's Jinja template turns messages into a prompt, as Hugging Face's libraries render it.
//!
//! A template comes with a model, from anywhere, and is a program: it may run for ever, ask for all memory, or nest
//! values until the stack is full, which ends the process that runs it. [`ChatTemplate`] is what a rendering is;
//! [`ChatRenderer`] is how one is had: from a process of its own, which may die.

mod frame;
mod process;
mod renderer;
mod worker;

use std::io;
use std::sync::LazyLock;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use regex::Regex;
use serde::{Deserialize, Serialize};

pub use self::renderer::{ChatLimits, ChatRenderer};
pub use self::worker::{WORKER_COMMAND, WorkerLimits, run_worker};
use super::{TemplateError, TextError, clock};
use crate::weights::TokenizerSpec;

const NAME: &str = "chat_template";

/// Instructions that one rendering may take: some hundred times what long conversations need. What filters do and
/// what is printed is not counted.
const FUEL: u64 = 50_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A model's chat template as text, with the tokens that it may write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSource {
    /// The template.
    pub template: String,
    /// The text of the token that begins a sequence, if the model has one.
    pub bos_token: Option<String>,
    /// The text of the token that ends a sequence, if the model has one.
    pub eos_token: Option<String>,
}

impl TemplateSource {
    /// What a model file holds.
    pub fn from_spec(spec: &TokenizerSpec) -> Result<TemplateSource, TextError> {
        let template = spec.chat_template().ok_or(TextError::NoChatTemplate)?.to_owned();
        let text = |text: Option<&str>| text.map(str::to_owned);
        Ok(TemplateSource { template, bos_token: text(spec.bos_text()), eos_token: text(spec.eos_text()) })
    }
}

/// A model's chat template, compiled into this process: for templates that are trusted, and for the process that may
/// die of one.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Value,
    eos_token: Value,
}

impl ChatTemplate {
    /// Compiles a template.
    pub fn compile(source: &TemplateSource) -> Result<ChatTemplate, TemplateError> {
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
            .add_template_owned(NAME, without_generation_tags(&source.template))
            .map_err(|error| TemplateError::Compile { message: message(&error) })?;
        let token = |text: &Option<String>| text.as_deref().map_or(Value::UNDEFINED, Value::from);
        Ok(ChatTemplate { environment, bos_token: token(&source.bos_token), eos_token: token(&source.eos_token) })
    }

    /// Writes messages as a prompt of at most so many bytes. `add_generation_prompt` begins the assistant's answer.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
        bytes_max: usize,
    ) -> Result<String, TemplateError> {
        let refused = |error: Error| TemplateError::Refused { message: message(&error) };
        let template = self.environment.get_template(NAME).map_err(refused)?;
        let variables = context! {
            messages,
            add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => (),
            documents => (),
        };
        let mut prompt = Prompt { bytes: Vec::new(), bytes_max, is_refused: false };
        match template.render_captured_to(variables, &mut prompt) {
            _ if prompt.is_refused => Err(TemplateError::Output { bytes: bytes_max }),
            Err(error) => Err(refused(error)),
            Ok(_) => Ok(String::from_utf8(prompt.bytes).expect("pieces of text are text")),
        }
    }
}

/// What a template has written.
struct Prompt {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// There was more than that.
    is_refused: bool,
}

impl io::Write for Prompt {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.bytes_max - self.bytes.len() {
            self.is_refused = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error of the template engine with its causes, which its own sentence may leave out.
fn message(error: &Error) -> String {
    const CAUSES_MAX: usize = 8; // a template that includes itself has as many as it got deep
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.take(CAUSES_MAX).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
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
