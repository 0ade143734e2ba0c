//! Between text and tokens: tokenizer, incremental detokenizer with stop strings, chat templates.
//!
//! Everything is made from a [`TokenizerSpec`](crate::weights::TokenizerSpec), the plain data that a model file holds.

mod byte_level;
mod chat;
mod clock;
mod detokenizer;
mod error;
mod hugging_face;
mod least;
mod sentencepiece;
mod split;
mod stop;
mod tokenizer;
mod vocabulary;

pub use self::chat::{
    ChatLimits, ChatMessage, ChatRenderer, ChatTemplate, TemplateSource, WORKER_COMMAND, WorkerLimits, run_worker,
};
pub use self::detokenizer::{Detokenizer, Piece};
pub use self::error::{TemplateError, TextError};
pub use self::tokenizer::Tokenizer;
