//! What a token adds to the text, from the `decoder` of a `tokenizer.json`.
//!
//! Bytes that make no UTF-8 become U+FFFD once for each incomplete character, as everywhere here; the crate's
//! `ByteFallback` writes one for each byte of the run, also for those that would be text.

use serde_json::Value;

use super::file::File;
use crate::text::{TextError, byte_level};

const SUPPORTED: &str = "ByteLevel; Metaspace; Replace, ByteFallback, Fuse and Strip in this order";

/// How tokens are written, and how the text begins.
#[derive(Debug)]
pub(super) struct Decoder {
    spelling: Spelling,
    opening: Opening,
}

#[derive(Debug)]
enum Spelling {
    /// One letter for each byte.
    ByteLevel,
    Pieces {
        /// What is replaced, and by what.
        replaces: Vec<(String, String)>,
        /// `<0x0A>` is a byte.
        byte_fallback: bool,
    },
}

/// What is left out at the beginning of a text that was not cut out of another.
#[derive(Debug)]
enum Opening {
    Nothing,
    /// So many spaces, at most.
    Spaces(usize),
    /// All of this letter in the first token.
    Letters(String),
}

impl Decoder {
    /// Of a file's `decoder`.
    pub(super) fn new(file: &File) -> Result<Decoder, TextError> {
        let steps = file.decoders()?;
        let kind = |step: &Value| step["type"].as_str().unwrap_or("").to_owned();
        let unsupported = |kind: &str| file.unsupported("decoder", kind, SUPPORTED);
        let Some(first) = steps.first() else { return Err(unsupported("null")) };
        match (kind(first).as_str(), steps.len()) {
            ("ByteLevel", 1) => return Ok(Decoder { spelling: Spelling::ByteLevel, opening: Opening::Nothing }),
            ("Metaspace", 1) => return Decoder::metaspace(file, first),
            _ => {}
        }
        let (mut replaces, mut byte_fallback, mut opening) = (Vec::new(), false, Opening::Nothing);
        let mut stage = 0;
        for step in &steps {
            let kind = kind(step);
            let of_kind = match kind.as_str() {
                "Replace" => 1,
                "ByteFallback" => 2,
                "Fuse" => 3,
                "Strip" if stage == 3 => 4,
                _ => return Err(unsupported(&kind)),
            };
            if of_kind < stage {
                return Err(unsupported(&kind));
            }
            stage = of_kind;
            match of_kind {
                1 => replaces.push(replacement(file, step)?),
                2 => byte_fallback = true,
                4 => opening = Opening::Spaces(stripped(file, step)?),
                _ => {}
            }
        }
        Ok(Decoder { spelling: Spelling::Pieces { replaces, byte_fallback }, opening })
    }

    fn metaspace(file: &File, step: &Value) -> Result<Decoder, TextError> {
        let Some(letter) = step["replacement"].as_str() else {
            return Err(file.wrong("decoder.replacement", &step["replacement"], "a letter"));
        };
        let is_never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
        let opening = if is_never { Opening::Nothing } else { Opening::Letters(letter.to_owned()) };
        let replaces = vec![(letter.to_owned(), " ".to_owned())];
        Ok(Decoder { spelling: Spelling::Pieces { replaces, byte_fallback: false }, opening })
    }

    /// The bytes that a token adds to a text. An added token stands for itself where letters are bytes.
    pub(super) fn bytes(&self, token: &str, is_added: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.spelling {
            Spelling::ByteLevel if is_added => bytes.extend_from_slice(token.as_bytes()),
            Spelling::ByteLevel => byte_level::read(token, &mut bytes),
            Spelling::Pieces { replaces, byte_fallback } => {
                let mut text = token.to_owned();
                for (pattern, content) in replaces {
                    text = text.replace(pattern, content);
                }
                match byte(&text).filter(|_| *byte_fallback) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(text.as_bytes()),
                }
            }
        }
        bytes
    }

    /// The bytes of the first token if they are others than in the middle of a text.
    pub(super) fn first(&self, token: &str) -> Option<Vec<u8>> {
        match &self.opening {
            Opening::Letters(letter) => Some(token.replace(letter, "").into_bytes()),
            Opening::Nothing | Opening::Spaces(_) => None,
        }
    }

    /// A text without what is left out at its beginning.
    pub(super) fn opened<'a>(&self, text: &'a str) -> &'a str {
        let Opening::Spaces(spaces) = self.opening else { return text };
        let found = text.bytes().take(spaces).take_while(|byte| *byte == b' ').count();
        &text[found..]
    }
}

fn replacement(file: &File, step: &Value) -> Result<(String, String), TextError> {
    match (step["pattern"]["String"].as_str(), step["content"].as_str()) {
        (Some(pattern), Some(content)) if !pattern.is_empty() => Ok((pattern.to_owned(), content.to_owned())),
        _ => Err(file.wrong("decoder.pattern", &step["pattern"], "a string that is not empty")),
    }
}

fn stripped(file: &File, step: &Value) -> Result<usize, TextError> {
    match (step["start"].as_u64(), &step["content"], &step["stop"]) {
        (Some(start), content, stop) if content == " " && *stop == 0 => Ok(start as usize),
        _ => Err(file.wrong("decoder.Strip", step, "of spaces at the start")),
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}
