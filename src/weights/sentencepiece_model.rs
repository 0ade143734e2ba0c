//! SentencePiece's `tokenizer.model`: a protobuf message `ModelProto`, read as GGUF would have it.
//!
//! The numbers of fields are those of SentencePiece's `sentencepiece_model.proto`. Fields that change no token are
//! stepped over; settings that the algorithm here does not follow are refused.

use std::ops::Range;
use std::path::Path;

use super::{DIMENSION_MAX, Malformed, TokenKind, VocabularySpec, WeightsError};

/// `TrainerSpec.model_type`, from 1 on.
const MODEL_TYPES: [&str; 4] = ["UNIGRAM", "BPE", "WORD", "CHAR"];

/// What a `tokenizer.model` says, with the defaults of the format.
struct Model<'a> {
    path: &'a Path,
    vocabulary: VocabularySpec,
    /// UNIGRAM is the format's default.
    model_type: u64,
    byte_fallback: bool,
    treat_whitespace_as_suffix: bool,
    /// Negative if there is none.
    bos_id: i32,
    eos_id: i32,
    bos_piece: &'a str,
    eos_piece: &'a str,
    normalizer: Normalizer,
    /// Applied to decoded text.
    denormalizer_bytes: usize,
}

struct Normalizer {
    charsmap_bytes: usize,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

/// Reads the file of these bytes.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<VocabularySpec, WeightsError> {
    let mut model = Model {
        path,
        vocabulary: VocabularySpec::default(),
        model_type: 1,
        byte_fallback: false,
        treat_whitespace_as_suffix: false,
        bos_id: 1,
        eos_id: 2,
        bos_piece: "<s>",
        eos_piece: "</s>",
        normalizer: Normalizer {
            charsmap_bytes: 0,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        },
        denormalizer_bytes: 0,
    };
    let malformed = |cause| WeightsError::Malformed { path: path.to_owned(), cause };
    model.fields(&mut Message::new(bytes)).map_err(malformed)?;
    model.check()?;
    Ok(model.into_vocabulary())
}

impl<'a> Model<'a> {
    fn fields(&mut self, message: &mut Message<'a>) -> Result<(), Malformed> {
        while let Some(field) = message.next()? {
            match field.number {
                1 => self.piece(&mut field.message("pieces")?)?,
                2 => self.trainer(&mut field.message("trainer_spec")?)?,
                3 => self.normalizer(&mut field.message("normalizer_spec")?)?,
                5 => self.denormalizer(&mut field.message("denormalizer_spec")?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn piece(&mut self, message: &mut Message<'a>) -> Result<(), Malformed> {
        let offset = message.offset();
        let (mut piece, mut score, mut kind) = ("", 0.0, TokenKind::Normal);
        while let Some(field) = message.next()? {
            match field.number {
                1 => piece = field.text("piece")?,
                2 => score = field.float("score")?,
                3 => {
                    let number = field.number_up_to("type", TokenKind::Byte as u64)?;
                    let known = TokenKind::from_gguf(number as i32).filter(|_| number > 0);
                    kind = known.ok_or(Malformed::Zero { offset: field.offset, field: "type" })?;
                }
                _ => {}
            }
        }
        if piece.is_empty() {
            return Err(Malformed::Zero { offset, field: "length of a piece" });
        }
        let tokens = &mut self.vocabulary.tokens;
        if tokens.len() == DIMENSION_MAX {
            let (value, limit) = (DIMENSION_MAX as u64 + 1, DIMENSION_MAX as u64);
            return Err(Malformed::Limit { offset, field: "number of pieces", value, limit });
        }
        tokens.push(piece);
        self.vocabulary.scores.push(score);
        self.vocabulary.kinds.push(kind);
        Ok(())
    }

    fn trainer(&mut self, message: &mut Message<'a>) -> Result<(), Malformed> {
        while let Some(field) = message.next()? {
            match field.number {
                3 => self.model_type = field.varint("model_type")?,
                24 => self.treat_whitespace_as_suffix = field.bool("treat_whitespace_as_suffix")?,
                35 => self.byte_fallback = field.bool("byte_fallback")?,
                // Signed numbers are written as if they had 64 bits.
                41 => self.bos_id = field.varint("bos_id")? as i32,
                42 => self.eos_id = field.varint("eos_id")? as i32,
                46 => self.bos_piece = field.text("bos_piece")?,
                47 => self.eos_piece = field.text("eos_piece")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, message: &mut Message<'a>) -> Result<(), Malformed> {
        let normalizer = &mut self.normalizer;
        while let Some(field) = message.next()? {
            match field.number {
                2 => normalizer.charsmap_bytes = field.bytes("precompiled_charsmap")?.len(),
                3 => normalizer.add_dummy_prefix = field.bool("add_dummy_prefix")?,
                4 => normalizer.remove_extra_whitespaces = field.bool("remove_extra_whitespaces")?,
                5 => normalizer.escape_whitespaces = field.bool("escape_whitespaces")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn denormalizer(&mut self, message: &mut Message<'a>) -> Result<(), Malformed> {
        while let Some(field) = message.next()? {
            if field.number == 2 {
                self.denormalizer_bytes = field.bytes("precompiled_charsmap")?.len();
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), WeightsError> {
        let unsupported = |key: &str, value: String| {
            Err(WeightsError::UnsupportedKey { path: self.path.to_owned(), key: key.to_owned(), value })
        };
        let kinds = &self.vocabulary.kinds;
        if kinds.is_empty() {
            return Err(WeightsError::MissingKey { path: self.path.to_owned(), key: "pieces".to_owned() });
        }
        if self.model_type != 2 {
            let index = usize::try_from(self.model_type).ok().and_then(|number| number.checked_sub(1));
            let name = index.and_then(|index| MODEL_TYPES.get(index)).map(|name| (*name).to_owned());
            return unsupported("trainer_spec.model_type", name.unwrap_or_else(|| self.model_type.to_string()));
        }
        if self.treat_whitespace_as_suffix {
            return unsupported("trainer_spec.treat_whitespace_as_suffix", "true".to_owned());
        }
        // Pieces of bytes are always used here if there are any.
        if !self.byte_fallback && kinds.contains(&TokenKind::Byte) {
            return unsupported("trainer_spec.byte_fallback", "false".to_owned());
        }
        let normalizer = &self.normalizer;
        // A map, even of few characters, makes other text; of no bytes, it is the identity.
        for (key, bytes) in [
            ("normalizer_spec.precompiled_charsmap", normalizer.charsmap_bytes),
            ("denormalizer_spec.precompiled_charsmap", self.denormalizer_bytes),
        ] {
            if bytes > 0 {
                return unsupported(key, format!("{bytes} bytes"));
            }
        }
        // Runs of spaces stay here, as the models that are served were trained.
        if normalizer.remove_extra_whitespaces {
            return unsupported("normalizer_spec.remove_extra_whitespaces", "true".to_owned());
        }
        if !normalizer.escape_whitespaces {
            return unsupported("normalizer_spec.escape_whitespaces", "false".to_owned());
        }
        self.check_unknown()
    }

    fn check_unknown(&self) -> Result<(), WeightsError> {
        let unknown = self.vocabulary.kinds.iter().filter(|kind| **kind == TokenKind::Unknown).count();
        if unknown != 1 {
            return Err(WeightsError::KeyValue {
                path: self.path.to_owned(),
                key: "number of pieces of type UNKNOWN".to_owned(),
                value: unknown.to_string(),
                expected: "1".into(),
            });
        }
        Ok(())
    }

    /// SentencePiece, too, finds these tokens by their pieces and types, not by the ids that the trainer was given.
    fn into_vocabulary(self) -> VocabularySpec {
        let mut spec = self.vocabulary;
        let control = |piece: &str| {
            let mut tokens = spec.tokens.iter().zip(&spec.kinds);
            tokens.position(|(text, kind)| text == piece && *kind == TokenKind::Control).map(|id| id as u32)
        };
        let bos = control(self.bos_piece).filter(|_| self.bos_id >= 0);
        let eos = control(self.eos_piece).filter(|_| self.eos_id >= 0);
        spec.unknown = spec.kinds.iter().position(|kind| *kind == TokenKind::Unknown).map(|id| id as u32);
        spec.model = "llama".to_owned();
        spec.add_bos = Some(bos.is_some());
        spec.add_space_prefix = Some(self.normalizer.add_dummy_prefix);
        (spec.bos, spec.eos) = (bos, eos);
        spec
    }
}

/// The fields of a protobuf message, in order.
struct Message<'a> {
    file: &'a [u8],
    rest: Range<usize>,
}

/// A field of a message.
struct Field<'a> {
    file: &'a [u8],
    number: u64,
    /// Where its value begins in the file.
    offset: u64,
    value: Value,
}

enum Value {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(Range<usize>),
}

impl<'a> Message<'a> {
    fn new(file: &'a [u8]) -> Message<'a> {
        Message { file, rest: 0..file.len() }
    }

    fn offset(&self) -> u64 {
        self.rest.start as u64
    }

    fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let begin = self.offset();
        let tag = self.varint("tag")?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        let offset = self.offset();
        let value = match wire_type {
            0 => Value::Varint(self.varint("number")?),
            1 => self.take(8, "number").map(|_| Value::Fixed64)?,
            2 => {
                let bytes = self.varint("length")?;
                Value::Bytes(self.take(bytes, "field")?)
            }
            5 => {
                let range = self.take(4, "number")?;
                Value::Fixed32(std::array::from_fn(|i| self.file[range.start + i]))
            }
            _ => return Err(Malformed::WireType { offset: begin, field: "field", wire_type }),
        };
        Ok(Some(Field { file: self.file, number, offset, value }))
    }

    fn take(&mut self, bytes: u64, field: &'static str) -> Result<Range<usize>, Malformed> {
        let (offset, left) = (self.offset(), self.rest.len() as u64);
        if bytes > left && self.rest.end == self.file.len() {
            return Err(Malformed::Truncated { offset, field, bytes, file_bytes: self.file.len() as u64 });
        } else if bytes > left {
            return Err(Malformed::Limit { offset, field: "size of a field", value: bytes, limit: left });
        }
        let start = self.rest.start;
        self.rest.start += bytes as usize;
        Ok(start..self.rest.start)
    }

    /// Seven bits in each byte, the lowest first; bits above the 64th are dropped, as protobuf does.
    fn varint(&mut self, field: &'static str) -> Result<u64, Malformed> {
        let offset = self.offset();
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.file[self.take(1, field)?.start];
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint { offset, field })
    }
}

impl<'a> Field<'a> {
    fn wrong<T>(&self, field: &'static str) -> Result<T, Malformed> {
        let wire_type = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64 => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        Err(Malformed::WireType { offset: self.offset, field, wire_type })
    }

    fn varint(&self, field: &'static str) -> Result<u64, Malformed> {
        if let Value::Varint(value) = self.value { Ok(value) } else { self.wrong(field) }
    }

    fn bool(&self, field: &'static str) -> Result<bool, Malformed> {
        Ok(self.varint(field)? != 0)
    }

    fn number_up_to(&self, field: &'static str, limit: u64) -> Result<u64, Malformed> {
        let (value, offset) = (self.varint(field)?, self.offset);
        if value > limit { Err(Malformed::Limit { offset, field, value, limit }) } else { Ok(value) }
    }

    fn float(&self, field: &'static str) -> Result<f32, Malformed> {
        let Value::Fixed32(bytes) = self.value else { return self.wrong(field) };
        let value = f32::from_le_bytes(bytes);
        if value.is_nan() { Err(Malformed::NotANumber { offset: self.offset, field }) } else { Ok(value) }
    }

    fn range(&self, field: &'static str) -> Result<Range<usize>, Malformed> {
        if let Value::Bytes(range) = &self.value { Ok(range.clone()) } else { self.wrong(field) }
    }

    fn bytes(&self, field: &'static str) -> Result<&'a [u8], Malformed> {
        Ok(&self.file[self.range(field)?])
    }

    fn text(&self, field: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Malformed::NotUtf8 { offset: self.offset, field })
    }

    fn message(&self, field: &'static str) -> Result<Message<'a>, Malformed> {
        Ok(Message { file: self.file, rest: self.range(field)? })
    }
}

#[cfg(test)]
pub(in crate::weights) mod tests;
