//! How text is split into words before byte-level BPE, by the name that GGUF files give.
//!
//! The patterns are those of the models' own tokenizers. They end in `\s+(?!\S)|\s+`: a run of spaces gives its last
//! one to the word that follows. The `regex` crate has no look-ahead, so that it finds `\s+` and the last character
//! is given back afterwards; in return it takes linear time and no stack on any text.

use std::borrow::Cow;

use regex::Regex;
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

/// The names that are known.
pub(super) const SUPPORTED: &str = "default, gpt-2, smollm, llama-bpe, llama3, llama-v3, qwen2";

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+"
);

/// A compiled way of splitting.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Each splits what the one before left.
    stages: Vec<Stage>,
    /// Text is brought into Unicode's composed form first.
    pub(super) compose: bool,
    /// Words of the vocabulary are taken whole, without merges.
    pub(super) ignore_merges: bool,
    /// Prompts begin with the beginning-of-sequence token unless the file says otherwise.
    pub(super) add_bos: bool,
}

#[derive(Debug)]
struct Stage {
    regex: Regex,
    gives_back: GivesBack,
}

/// Which runs of whitespace give their last character to the word that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum GivesBack {
    Never,
    /// All of more than one character.
    Always,
    /// The same, but runs that end in a line break are matched by another alternative, which has no look-ahead.
    UnlessLineBreak,
}

impl Splitter {
    /// The splitter of this name; `None` if it is not known.
    pub(super) fn named(name: &str) -> Option<Splitter> {
        use GivesBack::*;
        let (stages, compose, llama3) = match name {
            "gpt-2" => (vec![(GPT2, Always)], false, false),
            "smollm" => (vec![(r"\p{N}", Never), (GPT2, Always)], false, false),
            "llama-bpe" | "llama3" | "llama-v3" => (vec![(LLAMA3, UnlessLineBreak)], false, true),
            "qwen2" => (vec![(QWEN2, UnlessLineBreak)], true, false),
            // Of files converted before the key existed; the rule is llama.cpp's.
            "default" => {
                let punctuation = (r"[\p{P}\$\+<=>\^~\|]+", Never);
                (vec![punctuation, (GPT2, Always), (r"\p{N}+", Never), ("[0-9][0-9][0-9]", Never)], false, false)
            }
            _ => return None,
        };
        let compile = |(pattern, gives_back)| Some(Stage { regex: Regex::new(pattern).ok()?, gives_back });
        let stages = stages.into_iter().map(compile).collect::<Option<Vec<_>>>()?;
        Some(Splitter { stages, compose, ignore_merges: llama3, add_bos: llama3 })
    }

    /// Calls `word` with each word of the text in order.
    pub(super) fn split<E>(&self, text: &str, word: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let text = if self.compose { composed(text) } else { Cow::Borrowed(text) };
        split_by(&self.stages, &text, word)
    }
}

fn split_by<E>(stages: &[Stage], text: &str, word: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let Some((stage, rest)) = stages.split_first() else { return word(text) };
    let mut position = 0;
    while position < text.len() {
        let (start, end) = stage.next(text, position);
        if position < start {
            split_by(rest, &text[position..start], word)?;
        }
        if start < end {
            split_by(rest, &text[start..end], word)?;
        }
        position = end;
    }
    Ok(())
}

impl Stage {
    /// The next match from `position` on; an empty one at the end if there is none.
    fn next(&self, text: &str, position: usize) -> (usize, usize) {
        let Some(found) = self.regex.find_at(text, position) else { return (text.len(), text.len()) };
        let mut last_two = found.as_str().chars().rev();
        // In each pattern, no alternative but `\s+` ends in whitespace, line breaks aside.
        let last = last_two.next().filter(|last| match self.gives_back {
            GivesBack::Never => false,
            GivesBack::Always => last.is_whitespace(),
            GivesBack::UnlessLineBreak => last.is_whitespace() && !matches!(last, '\r' | '\n'),
        });
        match last {
            Some(last) if last_two.next().is_some() && found.end() < text.len() => {
                (found.start(), found.end() - last.len_utf8())
            }
            _ => (found.start(), found.end()),
        }
    }
}

fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut normalized = NormalizedString::from(text);
    match NFC.normalize(&mut normalized) {
        Ok(()) => Cow::Owned(normalized.get().to_owned()),
        Err(_) => Cow::Borrowed(text),
    }
}
