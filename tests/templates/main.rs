//! Chat templates by processes of the real binary: a template is a program from anywhere, and whatever it does, its
//! rendering ends in time and in bounded memory, in a text or in a sentence, and the next one is served.

mod bounds;
mod hostile;
mod processes;
mod serving;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;

use vitrum::text::{ChatLimits, ChatMessage, ChatRenderer, TemplateSource};

pub(crate) const GOOD: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' \
     + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}";
/// Of `hi`, by [`GOOD`].
pub(crate) const GOOD_TEXT: &str = "<|im_start|>user\nhi<|im_end|>\n<s>";

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_vitrum"))
}

pub(crate) fn source(template: &str) -> TemplateSource {
    TemplateSource { template: template.to_owned(), bos_token: Some("<s>".to_owned()), eos_token: None }
}

pub(crate) fn renderer(template: &str, limits: ChatLimits) -> ChatRenderer {
    ChatRenderer::new(program(), source(template), limits)
}

pub(crate) fn user(content: &str) -> ChatMessage {
    ChatMessage { role: "user".to_owned(), content: content.to_owned() }
}
