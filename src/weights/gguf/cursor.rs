//! Reading the header of a GGUF file: little-endian fields, each checked against the file's size before use.

use std::ops::Range;

use crate::weights::Malformed;

/// A string is at most as long as this; chat templates are the longest ones that occur.
const STRING_BYTES_MAX: u64 = 16 << 20;
/// Arrays may hold arrays; no known file goes deeper than one level.
const ARRAY_DEPTH_MAX: usize = 4;

/// A position in the file.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

/// Kinds of metadata values, in GGUF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The fewest bytes that a value takes.
    fn bytes_min(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }
}

/// A metadata value. Text and arrays stay in the file and are known to lie within it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { kind: Kind, count: usize, offset: usize },
}

impl<'a> Cursor<'a> {
    pub(super) fn new(data: &'a [u8], position: usize) -> Cursor<'a> {
        Cursor { data, position }
    }

    pub(super) fn offset(&self) -> u64 {
        self.position as u64
    }

    fn remaining(&self) -> usize {
        self.data.len() - self.position
    }

    fn take(&mut self, bytes: u64, field: &'static str) -> Result<Range<usize>, Malformed> {
        if bytes > self.remaining() as u64 {
            let file_bytes = self.data.len() as u64;
            return Err(Malformed::Truncated { offset: self.offset(), field, bytes, file_bytes });
        }
        let start = self.position;
        self.position += bytes as usize;
        Ok(start..self.position)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let range = self.take(N as u64, field)?;
        Ok(std::array::from_fn(|i| self.data[range.start + i]))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number of things that take at least `bytes_min` bytes each: never more than the rest of the file can hold.
    pub(super) fn count(&mut self, field: &'static str, bytes_min: usize, limit: u64) -> Result<usize, Malformed> {
        let offset = self.offset();
        let value = self.u64(field)?;
        let limit = limit.min((self.remaining() / bytes_min) as u64);
        if value > limit {
            return Err(Malformed::Limit { offset, field, value, limit });
        }
        Ok(value as usize)
    }

    /// A length and as many bytes.
    pub(super) fn bytes(&mut self, field: &'static str, limit: u64) -> Result<Range<usize>, Malformed> {
        let offset = self.offset();
        let bytes = self.u64(field)?;
        if bytes > limit {
            return Err(Malformed::Limit { offset, field, value: bytes, limit });
        }
        self.take(bytes, field)
    }

    /// A length and as many bytes of UTF-8.
    pub(super) fn text(&mut self, field: &'static str, limit: u64) -> Result<&'a str, Malformed> {
        let offset = self.offset();
        let range = self.bytes(field, limit)?;
        std::str::from_utf8(&self.data[range]).map_err(|_| Malformed::NotUtf8 { offset, field })
    }

    /// An element of a string array.
    pub(super) fn element(&mut self) -> Result<&'a str, Malformed> {
        self.text("string", STRING_BYTES_MAX)
    }

    fn kind(&mut self) -> Result<Kind, Malformed> {
        let offset = self.offset();
        let value = self.u32("value type")?;
        let limit = Kind::ALL.len() as u64 - 1;
        let unknown = Malformed::Limit { offset, field: "value type", value: u64::from(value), limit };
        Kind::ALL.get(value as usize).copied().ok_or(unknown)
    }

    /// A type and a value of it.
    pub(super) fn typed_value(&mut self) -> Result<Value, Malformed> {
        let kind = self.kind()?;
        self.value(kind, ARRAY_DEPTH_MAX)
    }

    /// A value of a known type.
    pub(super) fn value(&mut self, kind: Kind, depth: usize) -> Result<Value, Malformed> {
        let offset = self.offset();
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u64::from(self.array::<1>("u8")?[0])),
            Kind::I8 => Value::Signed(i64::from(self.array::<1>("i8")?[0] as i8)),
            Kind::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array("u16")?))),
            Kind::I16 => Value::Signed(i64::from(i16::from_le_bytes(self.array("i16")?))),
            Kind::U32 => Value::Unsigned(u64::from(self.u32("u32")?)),
            Kind::I32 => Value::Signed(i64::from(i32::from_le_bytes(self.array("i32")?))),
            Kind::F32 => Value::Float(f64::from(f32::from_le_bytes(self.array("f32")?))),
            Kind::U64 => Value::Unsigned(self.u64("u64")?),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array("i64")?)),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array("f64")?)),
            Kind::Bool => match self.array::<1>("bool")?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(Malformed::Limit { offset, field: "bool", value: u64::from(other), limit: 1 }),
            },
            Kind::String => Value::Text(self.bytes("string", STRING_BYTES_MAX)?),
            Kind::Array => self.skip_array(depth)?,
        })
    }

    /// Steps over an array. The bytes of its elements bound the work, however the counts are chosen.
    fn skip_array(&mut self, depth: usize) -> Result<Value, Malformed> {
        let offset = self.offset();
        let Some(depth) = depth.checked_sub(1) else {
            let (value, limit) = (ARRAY_DEPTH_MAX as u64 + 1, ARRAY_DEPTH_MAX as u64);
            return Err(Malformed::Limit { offset, field: "depth of nested arrays", value, limit });
        };
        let kind = self.kind()?;
        let count = self.count("array length", kind.bytes_min(), u64::from(u32::MAX))?;
        let array = Value::Array { kind, count, offset: self.position };
        match kind {
            Kind::String => {
                for _ in 0..count {
                    self.bytes("string", STRING_BYTES_MAX)?;
                }
            }
            Kind::Array | Kind::Bool => {
                for _ in 0..count {
                    self.value(kind, depth)?;
                }
            }
            _ => {
                self.take((count * kind.bytes_min()) as u64, "array")?;
            }
        }
        Ok(array)
    }
}
