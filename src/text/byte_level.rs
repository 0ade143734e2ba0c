//! The alphabet of byte-level BPE: every byte is written as one printable character.

use std::sync::LazyLock;

/// Bytes that stand for themselves (as Latin-1); the others follow one another from U+0100 on.
fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// By byte: its character.
static ALPHABET: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut others = '\u{100}'..;
    std::array::from_fn(|index| {
        let byte = index as u8;
        if is_itself(byte) { char::from(byte) } else { others.next().unwrap_or('\u{100}') }
    })
});

/// By character: its byte. The last character in use is U+0143.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, letter) in (0..=255u8).zip(ALPHABET.iter()) {
        bytes[*letter as usize] = Some(byte);
    }
    bytes
});

/// By byte: whether the vocabulary has a token for it alone. Text leaves out those that it has none for.
pub(super) fn spelled<'a>(tokens: impl Iterator<Item = &'a str>) -> [bool; 256] {
    let mut spelled = [false; 256];
    for token in tokens {
        let mut letters = token.chars();
        if let (Some(letter), None) = (letters.next(), letters.next())
            && let Some(byte) = BYTES.get(letter as usize).copied().flatten()
        {
            spelled[usize::from(byte)] = true;
        }
    }
    spelled
}

/// Writes text in the alphabet, replacing what `out` holds.
pub(super) fn write(text: &str, out: &mut String) {
    out.clear();
    out.extend(text.bytes().map(|byte| ALPHABET[usize::from(byte)]));
}

/// The most bytes of a text that a token stands for: its letters are bytes, or it is found as such.
pub(super) fn spelled_bytes(token: &str) -> usize {
    let is_spelled = token.chars().all(|letter| matches!(BYTES.get(letter as usize), Some(Some(_))));
    if is_spelled { token.chars().count() } else { token.len() }
}

/// Appends the bytes that a token stands for; the token itself if it is not written in the alphabet.
pub(super) fn read(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for letter in token.chars() {
        match BYTES.get(letter as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}
