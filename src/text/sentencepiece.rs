//! SentencePiece's BPE: the highest-scoring piece is merged first, and spaces are written `▁`.

use std::collections::HashMap;

use tokenizers::models::bpe::Merges;

use crate::weights::{TokenKind, VocabularySpec};

/// Stands for a space.
const SPACE: char = '▁';

/// Writes text as the vocabulary spells it, replacing what `out` holds.
pub(super) fn write(text: &str, space_before: bool, out: &mut String) {
    out.clear();
    out.extend(space_before.then_some(SPACE));
    out.extend(text.chars().map(|letter| if letter == ' ' { SPACE } else { letter }));
}

/// The piece that stands for a byte.
pub(super) fn byte_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// Appends the bytes that a piece stands for.
pub(super) fn read(piece: &str, kind: TokenKind, out: &mut Vec<u8>) {
    let byte = || u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
    match kind {
        TokenKind::Byte => match byte() {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(piece.as_bytes()),
        },
        TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown => out.extend_from_slice(piece.as_bytes()),
        TokenKind::Normal | TokenKind::Unused | TokenKind::Undefined => {
            out.extend_from_slice(piece.replace(SPACE, " ").as_bytes());
        }
    }
}

/// The merges that scores stand for: every way to put a piece together from two others, the highest score first.
pub(super) fn merges(spec: &VocabularySpec) -> Merges {
    let pieces = spec.tokens.iter().zip(&spec.kinds).zip(&spec.scores).zip(0u32..);
    let pieces = pieces.filter(|(((_, kind), _), _)| **kind == TokenKind::Normal);
    let pieces: Vec<(&str, f32, u32)> = pieces.map(|(((text, _), score), id)| (text, *score, id)).collect();
    let ids: HashMap<&str, u32> = pieces.iter().map(|(text, _, id)| (*text, *id)).collect();

    let mut order: Vec<&(&str, f32, u32)> = pieces.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.cmp(&b.2)));
    let mut merges = Merges::new();
    for (text, _, _) in order {
        let cuts = text.char_indices().skip(1).map(|(cut, _)| text.split_at(cut));
        let mut pairs: Vec<_> =
            cuts.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?, left, right))).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, _, left, right)| (left.to_owned(), right.to_owned())));
    }
    merges
}
