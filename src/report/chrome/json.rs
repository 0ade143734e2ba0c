//! A streaming writer of trace events. Numbers come from integers: nanoseconds are printed as microseconds with three
//! decimals, so no double rounds them.

use std::fmt::Write as _;
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

    /// Text of a serialised value, outside the list of events or inside one.
    pub(super) fn value(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.bytes, value).map_err(io::Error::from)
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

/// What an event is made of.
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
                '\n' => self.extend_from_slice(b"\\n"),
                '\t' => self.extend_from_slice(b"\\t"),
                control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                    let mut escape = String::with_capacity(6);
                    let _ = write!(escape, "\\u{:04x}", u32::from(control));
                    self.extend_from_slice(escape.as_bytes());
                }
                other => self.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.push(b'"');
        self
    }
}
