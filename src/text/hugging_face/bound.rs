//! The fewest tokens of a text, for the pipelines that are known not to lose any of it.
//!
//! Every byte of a text that counts is still there, in one spelling or another, when words are merged; a merged token
//! stands for no more of it than its own spelling is long. Added tokens may take whitespace around them away, of any
//! length; then whitespace does not count.

use serde_json::Value;

use super::Added;
use super::file::File;
use crate::text::least::{self, Least};
use crate::text::{byte_level, sentencepiece};

/// The largest character that is whitespace.
const WHITESPACE_LAST: char = '\u{3000}';

/// `nothing_known` if a part of the pipeline may lose text, or if it is not known here.
pub(super) fn least(file: &File, added: &[Added]) -> Least {
    bounded(file, added).unwrap_or_else(Least::nothing_known)
}

/// What happens to a text before words are merged.
#[derive(Default)]
struct Spelling {
    is_composed: bool,
    /// Spaces are written as something else.
    replaces_spaces: bool,
    byte_levels: usize,
}

fn bounded(file: &File, added: &[Added]) -> Option<Least> {
    let spelling = spelling(file)?;
    let model = &file.json()["model"];
    let is_plain = |field: &str| matches!(model[field].as_str(), None | Some(""));
    if !is_plain("continuing_subword_prefix") || !is_plain("end_of_word_suffix") {
        return None;
    }
    let is_byte_level = match (spelling.byte_levels, spelling.replaces_spaces) {
        (0, _) => false,
        (1, false) => true,
        _ => return None,
    };
    let covered = |token: &str| if is_byte_level { byte_level::spelled_bytes(token) } else { token.len() };
    let added_texts = added.iter().flat_map(|added| [&*added.token.content, &*added.pattern]).map(str::len);
    let longest = file.vocabulary().map(|(token, _)| covered(token)).chain(added_texts).max()?;
    // What has no token may be left out, or be one unknown token together with its neighbours.
    let spelled: [bool; 256] = if is_byte_level {
        byte_level::spelled(file.vocabulary().map(|(token, _)| token))
    } else {
        let falls_back = model["byte_fallback"] == true;
        std::array::from_fn(|byte| falls_back && !model["vocab"][sentencepiece::byte_token(byte as u8)].is_null())
    };
    let is_all = (0..=255).filter(|byte| least::is_in_text(*byte)).all(|byte| spelled[usize::from(byte)]);
    if !is_byte_level && !is_all {
        return None;
    }
    let strips = added.iter().any(|added| added.token.lstrip || added.token.rstrip);
    let whitespace = if strips { bytes_of_whitespace() } else { [false; 256] };
    let keeps = |byte: u8| spelled[usize::from(byte)] && !whitespace[usize::from(byte)];
    Some(Least::of(longest, spelling.is_composed, keeps))
}

/// `None` if it may lose text.
fn spelling(file: &File) -> Option<Spelling> {
    let mut spelling = Spelling::default();
    let [normalizers, pre_tokenizers] = file.spellers().ok()?;
    for normalizer in normalizers {
        match normalizer["type"].as_str()? {
            "NFC" => spelling.is_composed = true,
            "Prepend" => {}
            "Replace" if replaces_spaces(normalizer) => spelling.replaces_spaces = true,
            _ => return None,
        }
    }
    for pre_tokenizer in pre_tokenizers {
        match pre_tokenizer["type"].as_str()? {
            "Split" | "Punctuation" if pre_tokenizer["behavior"] != "Removed" => {}
            "Digits" => {}
            "Metaspace" => spelling.replaces_spaces = true,
            "ByteLevel" => spelling.byte_levels += 1,
            _ => return None,
        }
    }
    Some(spelling)
}

/// Whether each space becomes something else that is no shorter, and nothing else is replaced.
fn replaces_spaces(normalizer: &Value) -> bool {
    let content = normalizer["content"].as_str();
    normalizer["pattern"]["String"] == " " && content.is_some_and(|content| !content.is_empty())
}

/// By byte: whether UTF-8 has it in any whitespace.
fn bytes_of_whitespace() -> [bool; 256] {
    let mut bytes = [false; 256];
    for letter in ('\0'..=WHITESPACE_LAST).filter(|letter| letter.is_whitespace()) {
        let mut buffer = [0; 4];
        letter.encode_utf8(&mut buffer).bytes().for_each(|byte| bytes[usize::from(byte)] = true);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_whitespace_lies_beyond_the_last() {
        assert!((WHITESPACE_LAST..=char::MAX).skip(1).all(|letter| !letter.is_whitespace()));
        let bytes = bytes_of_whitespace();
        assert!(bytes[usize::from(b' ')] && bytes[0xE3] && !bytes[usize::from(b'a')]);
    }
}
