//! What JSON is made of, as bytes. Numbers come from integers: nanoseconds are printed as microseconds with three
//! decimals, so no double rounds them.

/// Pieces of JSON, one behind the other.
pub(super) trait Json {
    /// Text that is JSON already.
    fn raw(&mut self, text: &str) -> &mut Self;
    /// An integer.
    fn int(&mut self, value: u64) -> &mut Self;
    /// Nanoseconds as microseconds, `12.345`.
    fn us(&mut self, ns: u64) -> &mut Self;
    /// A string with its quotes, escaped.
    fn string(&mut self, text: &str) -> &mut Self;
}

impl Json for Vec<u8> {
    #[inline]
    fn raw(&mut self, text: &str) -> &mut Self {
        self.extend_from_slice(text.as_bytes());
        self
    }

    #[inline]
    fn int(&mut self, value: u64) -> &mut Self {
        self.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self
    }

    #[inline]
    fn us(&mut self, ns: u64) -> &mut Self {
        self.int(ns / 1000);
        let rest = (ns % 1000) as u32;
        let digit = |divisor: u32| b'0' + (rest / divisor % 10) as u8;
        self.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.push(b'"');
        for character in text.chars() {
            match character {
                '"' => self.extend_from_slice(b"\\\""),
                '\\' => self.extend_from_slice(b"\\\\"),
                control @ ('\0'..='\u{1f}' | '\u{7f}') => {
                    let digit = |shift: u32| b"0123456789abcdef"[(u32::from(control) >> shift & 0xf) as usize];
                    self.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(4), digit(0)]);
                }
                other => self.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.push(b'"');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_without_control_characters() {
        let text = "void k<\"a\\b\">\n\t\u{1}\u{7f} é 漢 😀";
        let mut json = Vec::new();
        json.string(text);
        assert!(!json.iter().any(u8::is_ascii_control));
        assert_eq!(serde_json::from_slice::<String>(&json).expect("JSON"), text);
    }

    #[test]
    fn times_are_exact() {
        for (ns, us) in
            [(0, "0.000"), (1, "0.001"), (999, "0.999"), (1_000, "1.000"), (u64::MAX, "18446744073709551.615")]
        {
            let mut json = Vec::new();
            json.us(ns);
            assert_eq!(String::from_utf8_lossy(&json), us);
        }
    }
}
