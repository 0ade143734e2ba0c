//! What each token stands for, in bytes.

use super::{byte_level, sentencepiece};
use crate::weights::{TokenKind, VocabularySpec};

/// The bytes of all tokens.
#[derive(Debug)]
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Not part of the text: control tokens and the unknown token.
    special: Vec<bool>,
}

impl Vocabulary {
    /// Byte-level BPE: text tokens are written in the alphabet of bytes, the others as they are.
    pub(super) fn byte_level(spec: &VocabularySpec) -> Vocabulary {
        Vocabulary::new(spec, |token, kind, out| match kind {
            TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown => out.extend_from_slice(token.as_bytes()),
            _ => byte_level::read(token, out),
        })
    }

    /// SentencePiece.
    pub(super) fn sentencepiece(spec: &VocabularySpec) -> Vocabulary {
        Vocabulary::new(spec, sentencepiece::read)
    }

    /// Token 17 is written ` 17`.
    pub(super) fn numeric(tokens: usize) -> Vocabulary {
        let mut vocabulary = Vocabulary { bytes: Vec::new(), ends: Vec::new(), special: vec![false; tokens] };
        for id in 0..tokens {
            vocabulary.bytes.push(b' ');
            vocabulary.bytes.extend_from_slice(id.to_string().as_bytes());
            vocabulary.ends.push(vocabulary.bytes.len());
        }
        vocabulary
    }

    /// Ids, ascending, with their bytes and whether they are special. Ids in between have no bytes.
    pub(super) fn of_ids(tokens: impl Iterator<Item = (u32, Vec<u8>, bool)>) -> Vocabulary {
        let mut vocabulary = Vocabulary { bytes: Vec::new(), ends: Vec::new(), special: Vec::new() };
        for (id, bytes, is_special) in tokens {
            vocabulary.ends.resize(id as usize, vocabulary.bytes.len());
            vocabulary.special.resize(id as usize, false);
            vocabulary.bytes.extend_from_slice(&bytes);
            vocabulary.ends.push(vocabulary.bytes.len());
            vocabulary.special.push(is_special);
        }
        vocabulary
    }

    fn new(spec: &VocabularySpec, read: impl Fn(&str, TokenKind, &mut Vec<u8>)) -> Vocabulary {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(spec.tokens.len());
        for (token, kind) in spec.tokens.iter().zip(&spec.kinds) {
            read(token, *kind, &mut bytes);
            ends.push(bytes.len());
        }
        let special = spec.kinds.iter().map(|kind| matches!(kind, TokenKind::Control | TokenKind::Unknown));
        Vocabulary { bytes, ends, special: special.collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; none for an id outside the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..*end]
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}
