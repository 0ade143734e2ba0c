//! Columns of integers as bytes: seven bits a byte, the lowest first, as long as the eighth bit is set. Times follow
//! each other, so they are mostly written as differences. What reads them is `page/data.js`.

use serde::Serialize;

/// The largest number that is written: its double, which a signed difference may take, is exact in a JavaScript number.
/// As nanoseconds that is 52 days.
const VALUE_MAX: u64 = (1 << 52) - 1;

/// Where a column is, and how to read it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Column {
    name: &'static str,
    encoding: Encoding,
    /// Numbers in it.
    count: usize,
    /// Its first byte, from the first column's.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// The numbers.
    Plain,
    /// Twice the number, or twice its negative less one.
    Signed,
    /// The signed differences to the number before, the first to 0.
    Delta,
}

/// Columns, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Columns {
    bytes: Vec<u8>,
    index: Vec<Column>,
}

impl Columns {
    pub(super) fn plain(&mut self, name: &'static str, values: impl IntoIterator<Item = u64>) {
        self.push(name, Encoding::Plain, values.into_iter().map(|value| value.min(VALUE_MAX)));
    }

    /// For numbers that may be negative.
    pub(super) fn signed(&mut self, name: &'static str, values: impl IntoIterator<Item = i64>) {
        self.push(name, Encoding::Signed, values.into_iter().map(zigzag));
    }

    /// For numbers that follow each other.
    pub(super) fn delta(&mut self, name: &'static str, values: impl IntoIterator<Item = u64>) {
        let mut last = 0;
        let differences = values.into_iter().map(|value| {
            let value = value.min(VALUE_MAX) as i64;
            zigzag(value - std::mem::replace(&mut last, value))
        });
        self.push(name, Encoding::Delta, differences);
    }

    fn push(&mut self, name: &'static str, encoding: Encoding, values: impl Iterator<Item = u64>) {
        let at = self.bytes.len();
        let mut count = 0;
        for mut value in values {
            while value >= 0x80 {
                self.bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.bytes.push(value as u8);
            count += 1;
        }
        self.index.push(Column { name, encoding, count, at });
    }

    pub(super) fn index(&self) -> &[Column] {
        &self.index
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn zigzag(value: i64) -> u64 {
    let value = value.clamp(-(VALUE_MAX as i64), VALUE_MAX as i64);
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_these_bytes() {
        let mut columns = Columns::default();
        columns.plain("plain", [0, 127, 128, u64::MAX]);
        columns.signed("signed", [0, -1, 1, i64::MIN]);
        columns.delta("delta", [5, 3, 3, 1 << 20]);
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];
        let plain = [&[0, 127, 0x80, 1][..], &largest].concat();
        // Twice the largest number, less one.
        let signed = [&[0, 1, 2][..], &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        let delta = [10, 3, 0, 0xfa, 0xff, 0x7f];
        assert_eq!(columns.bytes(), [plain.as_slice(), &signed, &delta].concat());
        let index: Vec<_> = columns.index().iter().map(|column| (column.name, column.count, column.at)).collect();
        assert_eq!(index, [("plain", 4, 0), ("signed", 4, 12), ("delta", 4, 23)]);
    }
}
