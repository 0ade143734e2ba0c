//! A streaming writer of trace events.

use std::io::{self, Write};

const FLUSH_BYTES: usize = 256 << 10;

/// Events on their way to a file.
pub(super) struct Events<W> {
    out: W,
    bytes: Vec<u8>,
    first: bool,
}

impl<W: Write> Events<W> {
    pub(super) fn new(out: W) -> Events<W> {
        Events { out, bytes: Vec::with_capacity(FLUSH_BYTES + (64 << 10)), first: true }
    }

    /// Begins an event, on a line of its own. It is written as it is built, and ended by the next one's begin.
    pub(super) fn event(&mut self) -> io::Result<&mut Vec<u8>> {
        if self.bytes.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        let separator: &[u8] = if self.first { b"\n" } else { b",\n" };
        self.first = false;
        self.bytes.extend_from_slice(separator);
        Ok(&mut self.bytes)
    }

    /// Text outside the list of events.
    pub(super) fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Text of a serialised value, outside the list of events.
    pub(super) fn value(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let json = serde_json::to_string(value)?;
        // JSON allows a bare DEL in strings; Perfetto gives up on one in a value that it skips.
        self.bytes.extend_from_slice(json.replace('\u{7f}', "\\u007f").as_bytes());
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_without_control_characters() {
        let text = "void k<\"a\\b\">\n\t\u{1}\u{7f} é 漢 😀";
        let mut events = Events::new(Vec::new());
        events.value(&[text]).expect("a value");
        let json = events.finish().expect("bytes");
        assert!(!json.iter().any(u8::is_ascii_control));
        assert_eq!(serde_json::from_slice::<[String; 1]>(&json).expect("JSON"), [text]);
    }
}
