//! Why text could not be turned into tokens, or messages into text.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why text could not be turned into tokens, or messages into text.
#[derive(Debug, Error)]
pub enum TextError {
    /// A tokenizer algorithm that is not supported.
    #[error("tokenizer model {model} is not supported (supported: {supported})")]
    UnknownModel {
        /// The file's word.
        model: String,
        /// What is.
        supported: &'static str,
    },
    /// A way of splitting text that is not known; another one would give other tokens.
    #[error("pre-tokenizer {pre_tokenizer} is not supported (supported: {supported})")]
    UnknownPreTokenizer {
        /// The file's word.
        pre_tokenizer: String,
        /// What is.
        supported: &'static str,
    },
    /// Two tokens of one text.
    #[error("tokens {first} and {second} have the same text {text:?}")]
    DuplicateToken {
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
        /// The text.
        text: String,
    },
    /// A merge that does not consist of two tokens.
    #[error("merge {index} is {merge:?}, and has to be two tokens separated by a space")]
    BadMerge {
        /// Its rank.
        index: usize,
        /// The file's text.
        merge: String,
    },
    /// SentencePiece needs a score for every token.
    #[error("the vocabulary has {tokens} tokens and {scores} scores")]
    Scores {
        /// Tokens.
        tokens: usize,
        /// Scores.
        scores: usize,
    },
    /// The file asks for a token around every prompt and does not say which.
    #[error("{key} is true, and the file names no such token")]
    NoSuchToken {
        /// The key that asks for it.
        key: &'static str,
    },
    /// The tokenizer could not be built, or not be applied.
    #[error("the tokenizer failed: {source}")]
    Tokenizer {
        /// The library's word.
        source: tokenizers::Error,
    },
    /// A `tokenizer.json` that the library does not read.
    #[error("{}: {message}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// The library's word.
        message: String,
    },
    /// A value of a `tokenizer.json` that cannot be.
    #[error("{}: {field} is {value}, and has to be {expected}", path.display())]
    TokenizerValue {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What the file says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// A part of a `tokenizer.json`'s pipeline that is not supported.
    #[error("{}: {field} {kind} is not supported (supported: {supported})", path.display())]
    TokenizerPart {
        /// The file.
        path: PathBuf,
        /// The part's field.
        field: &'static str,
        /// Its type.
        kind: String,
        /// What is.
        supported: &'static str,
    },
    /// Without a vocabulary, text is a list of token ids.
    #[error("{word:?} is no token id below {vocab}: this model has no tokenizer, and text is a list of token ids")]
    NotATokenId {
        /// The word.
        word: String,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// The text has more tokens than it may have. They were not counted to the end.
    #[error("the text has more than {limit} tokens")]
    TooManyTokens {
        /// The most.
        limit: usize,
    },
    /// Nobody waits for the tokens any more.
    #[error("the client has left")]
    Abandoned,
    /// The model file has no chat template.
    #[error("the model has no chat template: send the prompt as text")]
    NoChatTemplate,
    /// The chat template made no prompt of these messages.
    #[error("{0}")]
    ChatTemplate(TemplateError),
}

impl From<TemplateError> for TextError {
    fn from(error: TemplateError) -> TextError {
        if error == TemplateError::Abandoned { TextError::Abandoned } else { TextError::ChatTemplate(error) }
    }
}

/// Why a chat template made no prompt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// It is no template.
    #[error("the model's chat template does not compile: {message}")]
    Compile {
        /// The template engine's words.
        message: String,
    },
    /// It refuses these messages, or fails on them.
    #[error("the model's chat template: {message}")]
    Refused {
        /// The template's words, or the template engine's.
        message: String,
    },
    /// A fault of the template engine that this template meets.
    #[error("the model's chat template makes the template engine fail: {message}")]
    Engine {
        /// The template engine's words.
        message: String,
    },
    /// It did not end.
    #[error("the model's chat template took longer than {} s", limit.as_secs_f64())]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// The prompt is too long.
    #[error("the model's chat template wrote more than {bytes} bytes")]
    Output {
        /// The limit.
        bytes: usize,
    },
    /// The process that rendered it died of it.
    #[error("the model's chat template needed more than {} MiB of memory, or nested too deeply", bytes >> 20)]
    Memory {
        /// The limit.
        bytes: u64,
    },
    /// Others went first.
    #[error("other conversations were rendered for {} s, and this one had no turn", limit.as_secs_f64())]
    Busy {
        /// The limit.
        limit: Duration,
    },
    /// Nobody waits for the prompt any more.
    #[error("the client has left")]
    Abandoned,
    /// Nothing was rendered, and the template is not to blame.
    #[error("the process that renders chat templates: {reason}")]
    Process {
        /// What happened to it.
        reason: String,
    },
}
