//! What goes between the server and a process that renders: a byte that says what it is, a length (u32, little-endian),
//! and as many bytes. Requests are JSON; answers are text.

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;

const HEAD_BYTES: usize = 5;
/// Room that is made before bytes have come: a length alone costs nothing.
const ROOM_BYTES: usize = 64 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Request, the first: a `TemplateSource` to compile.
    Compile = 1,
    /// Request: a `Rendering`.
    Render,
    /// Answer: the template is compiled.
    Ready,
    /// Answer: it does not compile, and why.
    Invalid,
    /// Answer: the prompt.
    Text,
    /// Answer: the template refuses these messages, or fails on them, and why.
    Refused,
    /// Answer: the prompt has more bytes than were allowed.
    TooLong,
    /// Answer, the last: the template engine panicked, and its words.
    Panicked,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Compile,
        Kind::Render,
        Kind::Ready,
        Kind::Invalid,
        Kind::Text,
        Kind::Refused,
        Kind::TooLong,
        Kind::Panicked,
    ];
}

/// Writes a request; how many bytes it has.
pub(super) fn write_json(out: &mut impl Write, kind: Kind, value: &impl Serialize) -> io::Result<usize> {
    let mut frame = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut frame, value)?;
    let bytes = frame.len();
    finish(out, kind, frame)?;
    Ok(bytes)
}

/// Writes an answer.
pub(super) fn write_text(out: &mut impl Write, kind: Kind, text: &str) -> io::Result<()> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + text.len());
    frame.resize(HEAD_BYTES, 0);
    frame.extend_from_slice(text.as_bytes());
    finish(out, kind, frame)
}

/// Fills in the head, and writes all in one piece.
fn finish(out: &mut impl Write, kind: Kind, mut frame: Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(frame.len() - HEAD_BYTES);
    let length = length.map_err(|_| invalid(format!("a message of {} bytes", frame.len())))?;
    frame[0] = kind as u8;
    frame[1..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    out.write_all(&frame)
}

/// Reads a frame of at most so many bytes; `None` if the other side has closed between frames.
pub(super) fn read(input: &mut impl Read, bytes_max: usize) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0; HEAD_BYTES];
    let first = loop {
        match input.read(&mut head) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            first => break first?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    input.read_exact(&mut head[first..])?;
    let [kind, length @ ..] = head;
    let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
    let kind = kind.ok_or_else(|| invalid(format!("a message of an unknown kind, {}", head[0])))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(invalid(format!("a message of {length} bytes where {bytes_max} are allowed")));
    }
    let mut content = Vec::with_capacity(length.min(ROOM_BYTES));
    input.take(length as u64).read_to_end(&mut content)?;
    if content.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((kind, content)))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        for kind in Kind::ALL {
            write_text(&mut bytes, kind, "é".repeat(kind as usize).as_str()).expect("memory");
        }
        let mut input = bytes.as_slice();
        for kind in Kind::ALL {
            let (read_kind, content) = read(&mut input, 16).expect("a frame").expect("not the end");
            assert_eq!((read_kind, content), (kind, "é".repeat(kind as usize).into_bytes()));
        }
        assert!(read(&mut input, 16).expect("the end").is_none());
    }

    #[test]
    fn what_is_no_frame_is_refused_before_its_bytes_are_kept() {
        let cases: [(&[u8], ErrorKind, &str); 5] = [
            (&[0, 1, 0, 0, 0, 65], ErrorKind::InvalidData, "unknown kind, 0"),
            (&[9, 1, 0, 0, 0, 65], ErrorKind::InvalidData, "unknown kind, 9"),
            (&[5, 255, 255, 255, 255], ErrorKind::InvalidData, "4294967295 bytes where 16 are allowed"),
            (&[5, 1, 0], ErrorKind::UnexpectedEof, ""),
            (&[5, 3, 0, 0, 0, 65], ErrorKind::UnexpectedEof, ""),
        ];
        for (mut bytes, kind, words) in cases {
            let error = read(&mut bytes, 16).expect_err("no frame");
            assert!(error.kind() == kind && error.to_string().contains(words), "{error:?}");
        }
    }
}
