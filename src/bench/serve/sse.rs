//! Server-sent events out of the pieces in which a body arrives.

use thiserror::Error;

/// An event longer than this is not a token.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What makes a stream unreadable.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SseError {
    /// One event grew without end.
    #[error("an event is longer than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    /// An event that is not UTF-8.
    #[error("an event is not UTF-8")]
    Encoding,
}

/// Collects lines until a blank one ends an event. Fields other than `data`, and comments, are passed over.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl SseParser {
    /// Takes the next piece of the body and calls `on_event` with the data of each event that it completes.
    pub(super) fn push<E: From<SseError>>(
        &mut self,
        piece: &[u8],
        mut on_event: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(SseError::TooLong.into());
            }
            let Some(line) = self.line.strip_suffix(b"\n") else { return Ok(()) };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(value) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            } else if line.is_empty() && !self.data.is_empty() {
                on_event(std::str::from_utf8(&self.data).map_err(|_| SseError::Encoding)?)?;
                self.data.clear();
            }
            self.line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        ": ping\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:{\"b\":\"ü\"}\r\n\r\ndata: two\ndata: lines\n\ndata: [DONE]\n\n"
            .as_bytes();
    const EVENTS: [&str; 4] = [r#"{"a":1}"#, "{\"b\":\"ü\"}", "two\nlines", "[DONE]"];

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, SseError> {
        let (mut parser, mut events) = (SseParser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, |event| {
                events.push(event.to_owned());
                Ok::<(), SseError>(())
            })?;
        }
        Ok(events)
    }

    #[test]
    fn events_do_not_depend_on_where_the_body_is_cut() {
        for cut in 0..=STREAM.len() {
            assert_eq!(events(&[&STREAM[..cut], &STREAM[cut..]]).unwrap(), EVENTS, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(events(&bytes).unwrap(), EVENTS);
    }

    #[test]
    fn an_event_without_its_blank_line_is_not_an_event() {
        assert!(events(&[b"data: cut off\n"]).unwrap().is_empty());
    }

    #[test]
    fn bad_streams_are_refused() {
        assert_eq!(events(&[b"data: \xff\n\n"]), Err(SseError::Encoding));
        assert_eq!(events(&[&vec![b'x'; EVENT_BYTES_MAX + 1]]), Err(SseError::TooLong));
    }
}
