//! The fewest tokens that a text can have, from its bytes alone: a prompt that cannot fit is refused unread.

use super::vocabulary::Vocabulary;

/// Unicode's composed form of a text has at least one byte for so many of the text's. (Three syllable parts of Hangul
/// are 9 bytes and compose to 3; letters of compatibility such as U+212A are 3 bytes and stand for 1.)
const COMPOSED_SHRINKS: usize = 4;

/// What is counted of a text, and how much of it one token stands for.
#[derive(Debug)]
pub(super) struct Least {
    /// Bytes that no encoding leaves out.
    counts: [bool; 256],
    /// The most of them that one token stands for.
    token_bytes_max: usize,
}

impl Least {
    /// Of a tokenizer that leaves out all bytes but those that `keeps` says.
    pub(super) fn new(vocabulary: &Vocabulary, is_composed: bool, keeps: impl Fn(u8) -> bool) -> Least {
        let longest = (0..vocabulary.len()).map(|id| vocabulary.bytes(id as u32).len()).max().unwrap_or(0);
        Least::of(longest, is_composed, keeps)
    }

    /// The same, of tokens that stand for at most so many bytes of a text, once it is composed.
    pub(super) fn of(token_bytes_max: usize, is_composed: bool, keeps: impl Fn(u8) -> bool) -> Least {
        let longest = token_bytes_max.max(1);
        let counts = std::array::from_fn(|byte| keeps(byte as u8));
        // Which bytes a text is composed to is not known before it is.
        let keeps_all = (0..=255).filter(|byte| is_in_text(*byte)).all(keeps);
        match is_composed {
            false => Least { counts, token_bytes_max: longest },
            true if keeps_all => Least { counts, token_bytes_max: longest.saturating_mul(COMPOSED_SHRINKS) },
            true => Least::nothing_known(),
        }
    }

    /// Of a tokenizer that may leave out anything.
    pub(super) fn nothing_known() -> Least {
        Least { counts: [false; 256], token_bytes_max: 1 }
    }

    pub(super) fn tokens(&self, text: &str) -> usize {
        let counted = text.bytes().filter(|byte| self.counts[usize::from(*byte)]).count();
        counted.div_ceil(self.token_bytes_max)
    }
}

/// Whether UTF-8 has the byte at all.
pub(super) fn is_in_text(byte: u8) -> bool {
    !matches!(byte, 0xC0 | 0xC1 | 0xF5..)
}

#[cfg(test)]
mod tests {
    use tokenizers::normalizers::{NFC, NFD};
    use tokenizers::{NormalizedString, Normalizer};

    use super::*;

    #[test]
    fn composing_does_not_shrink_a_text_further() {
        let normalized = |text: &str, normalizer: &dyn Fn(&mut NormalizedString)| {
            let mut text = NormalizedString::from(text);
            normalizer(&mut text);
            text.get().to_owned()
        };
        let mut worst = 0.0_f64;
        for letter in (0..=0x10FFFF).filter_map(char::from_u32) {
            let text = letter.to_string();
            let composed = normalized(&text, &|text| NFC.normalize(text).unwrap());
            let apart = normalized(&text, &|text| NFD.normalize(text).unwrap());
            let longest = text.len().max(apart.len()) as f64;
            worst = worst.max(longest / composed.len() as f64);
        }
        assert_eq!(worst, 3.0);
        // Marks whose compatibility forms are longer may be among the parts: still below the factor.
        let text = "\u{2126}\u{0314}\u{0301}\u{0345}";
        let composed = normalized(text, &|text| NFC.normalize(text).unwrap());
        assert!(text.len() <= COMPOSED_SHRINKS * composed.len());
    }
}
