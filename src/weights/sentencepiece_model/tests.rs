//! Files that a few lines write, whole and damaged.

use std::path::Path;

use super::super::{TokenKind, VocabularySpec, WeightsError};
use super::read;

/// What a message is made of.
enum Part {
    Varint(u64, u64),
    Float(u64, f32),
    Bytes(u64, Vec<u8>),
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Varint(number, value) => {
                varint(number << 3, &mut out);
                varint(*value, &mut out);
            }
            Part::Float(number, value) => {
                varint(number << 3 | 5, &mut out);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Part::Bytes(number, bytes) => {
                varint(number << 3 | 2, &mut out);
                varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

fn text(number: u64, text: &str) -> Part {
    Part::Bytes(number, text.as_bytes().to_vec())
}

/// A piece; a type of 0 is not written.
fn piece(piece: &str, score: f32, kind: u64) -> Part {
    let mut parts = vec![text(1, piece), Part::Float(2, score)];
    parts.extend((kind > 0).then_some(Part::Varint(3, kind)));
    Part::Bytes(1, message(&parts))
}

fn pieces() -> Vec<Part> {
    let mut parts = vec![piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
    parts.push(piece("<0x0A>", 0.0, 6));
    parts.extend([piece("▁", -1.0, 0), piece("a", -2.0, 1), piece("▁a", -0.5, 0), piece("<tool>", 0.0, 4)]);
    parts.push(piece("left out", 0.0, 5));
    parts
}

/// A whole file.
pub(in crate::weights) fn file() -> Vec<u8> {
    llama(pieces(), vec![], vec![])
}

/// As Llama 2 has it: BPE with bytes, and text is not changed but for a space at its beginning.
fn llama(mut parts: Vec<Part>, trainer: Vec<Part>, normalizer: Vec<Part>) -> Vec<u8> {
    let mut of_trainer = vec![Part::Varint(3, 2), Part::Varint(4, 9), Part::Varint(35, 1), Part::Varint(43, u64::MAX)];
    of_trainer.extend(trainer);
    let mut of_normalizer =
        vec![text(1, "identity"), Part::Bytes(2, Vec::new()), Part::Varint(3, 1), Part::Varint(4, 0)];
    of_normalizer.extend(normalizer);
    parts.push(Part::Bytes(2, message(&of_trainer)));
    parts.push(Part::Bytes(3, message(&of_normalizer)));
    message(&parts)
}

fn read_bytes(bytes: &[u8]) -> Result<VocabularySpec, WeightsError> {
    read(Path::new("models/tokenizer.model"), bytes)
}

#[test]
fn a_file_is_read_as_gguf_would_have_it() {
    use TokenKind::*;
    let spec = read_bytes(&file()).expect("a file");
    let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "▁a", "<tool>", "left out"];
    let expected = VocabularySpec {
        model: "llama".to_owned(),
        tokens: tokens.into_iter().collect(),
        scores: vec![0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -0.5, 0.0, 0.0],
        kinds: vec![Unknown, Control, Control, Byte, Normal, Normal, Normal, UserDefined, Unused],
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        add_bos: Some(true),
        add_space_prefix: Some(true),
        ..VocabularySpec::default()
    };
    assert_eq!(spec, expected);
}

#[test]
fn settings_are_those_that_the_file_says_last() {
    let spec = |trainer, normalizer| read_bytes(&llama(pieces(), trainer, normalizer)).expect("a file");
    assert_eq!(spec(vec![], vec![Part::Varint(3, 0)]).add_space_prefix, Some(false));
    let none = spec(vec![Part::Varint(41, -1i64 as u64)], vec![]);
    assert_eq!((none.bos, none.eos, none.add_bos), (None, Some(2), Some(false)));
    let named = spec(vec![text(46, "</s>"), text(47, "a")], vec![]);
    assert_eq!((named.bos, named.eos), (Some(2), None), "a piece of text ends nothing");
    // Fields that change no token, of every type that there is.
    let others = vec![Part::Varint(4000, 7), Part::Float(15, 0.5), text(5, "x"), Part::Bytes(200, vec![0xFF])];
    assert_eq!(spec(others, vec![]), spec(vec![], vec![]));
}

#[test]
fn what_is_not_followed_is_refused() {
    let with = |trainer, normalizer| llama(pieces(), trainer, normalizer);
    let more = |part| {
        let mut parts = pieces();
        parts.push(part);
        llama(parts, vec![], vec![])
    };
    let denormalizer = Part::Bytes(5, message(&[Part::Bytes(2, vec![1])]));
    let cases = [
        (with(vec![Part::Varint(3, 1)], vec![]), "trainer_spec.model_type = UNIGRAM is not supported"),
        (with(vec![Part::Varint(3, 9)], vec![]), "trainer_spec.model_type = 9 is not supported"),
        (message(&pieces()), "trainer_spec.model_type = UNIGRAM"),
        (with(vec![Part::Varint(24, 1)], vec![]), "treat_whitespace_as_suffix = true"),
        (with(vec![Part::Varint(35, 0)], vec![]), "trainer_spec.byte_fallback = false"),
        (with(vec![], vec![Part::Varint(4, 1)]), "remove_extra_whitespaces = true"),
        (with(vec![], vec![Part::Varint(5, 0)]), "escape_whitespaces = false"),
        (with(vec![], vec![Part::Bytes(2, vec![0; 9])]), "normalizer_spec.precompiled_charsmap = 9 bytes"),
        (more(denormalizer), "denormalizer_spec.precompiled_charsmap = 1 bytes"),
        (more(piece("<unk2>", 0.0, 2)), "number of pieces of type UNKNOWN is 2, and has to be 1"),
        (vec![], "pieces is missing"),
    ];
    for (bytes, expected) in cases {
        assert_says(&bytes, expected);
    }
}

#[test]
fn malformed_bytes_are_refused_where_they_stand() {
    let end = message(&pieces()).len();
    let cases = [
        (piece("x", 0.0, 7), format!("type at byte {} is 7, and the limit is 6", end + 11)),
        (Part::Bytes(1, message(&[Part::Varint(3, 0)])), format!("type at byte {} is 0", end + 3)),
        (piece("x", f32::NAN, 0), format!("score at byte {} is not a number", end + 6)),
        (piece("", 0.0, 0), format!("length of a piece at byte {} is 0", end + 2)),
        (Part::Bytes(1, vec![0x0A, 1, 0xFF]), format!("piece at byte {} is not valid UTF-8", end + 3)),
        (Part::Varint(1, 3), format!("pieces at byte {} has protobuf's wire type 0", end + 1)),
        (Part::Bytes(1, vec![0x0A, 9]), format!("size of a field at byte {} is 9, and the limit is 0", end + 4)),
    ];
    for (part, expected) in cases {
        let mut parts = pieces();
        parts.push(part);
        assert_says(&llama(parts, vec![], vec![]), &expected);
    }
    assert_says(&[0x0A, 200, 1, 0], "field at byte 3 needs 200 bytes, and the file ends at byte 4");
    assert_says(b"version https://git-lfs", "field at byte 0 has protobuf's wire type 6");
    assert_says(&[0xFF; 20], "tag at byte 0 is longer than 10 bytes");
}

fn assert_says(bytes: &[u8], expected: &str) {
    let error = read_bytes(bytes).expect_err(expected).to_string();
    assert!(error.starts_with("models/tokenizer.model: ") && error.contains(expected), "{error}: {expected}");
}

#[test]
fn damaged_files_are_read_or_refused() {
    let good = llama(pieces(), vec![text(46, "<s>")], vec![]);
    for end in 0..good.len() {
        let _ = read_bytes(&good[..end]);
    }
    let (mut random, mut read) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut below = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % end
    };
    for _ in 0..20_000 {
        let mut file = good.clone();
        for _ in 0..=below(3) {
            let at = below(file.len());
            match below(4) {
                0 => file[at] ^= 1 << below(8),
                1 => file[at] = [0, 0x7F, 0x80, 0xFF][below(4)],
                2 => drop(file.drain(at..(at + 1 + below(8)).min(file.len()))),
                _ => file.splice(at..at, [0x0A, below(20) as u8]).for_each(drop),
            }
        }
        match read_bytes(&file) {
            Ok(spec) => {
                read += 1;
                let count = spec.tokens.len();
                assert!(spec.scores.len() == count && spec.kinds.len() == count);
                let ids = [spec.bos, spec.eos, spec.unknown];
                assert!(ids.into_iter().flatten().all(|id| (id as usize) < count));
            }
            Err(error) => assert!(error.to_string().starts_with("models/tokenizer.model: "), "{error}"),
        }
    }
    assert!(read > 100, "{read}: changes that are all noticed find nothing");
}
