//! A source file with its comments and literals blanked out, so that rules see code only.

/// A text file of the tree.
pub(crate) struct Source {
    /// From the tree's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with the insides of comments, strings and character literals as spaces; as long, line for line.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_c(&self) -> bool {
        [".h", ".cc", ".cu", ".cuh"].iter().any(|end| self.path.ends_with(end))
    }

    /// The top-level module of a file in src/: `src/http/sse.rs` and `src/http.rs` are in `http`.
    pub(crate) fn module(&self) -> Option<&str> {
        self.path.strip_prefix("src/").map(|rest| rest.split(['/', '.']).next().unwrap_or(rest))
    }

    /// `path:line`, for a byte offset.
    pub(crate) fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line(offset))
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Where `word` stands in the code, not as a part of a longer name.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
            let before = offset.checked_sub(1).map(|index| &bytes[index]);
            !before.is_some_and(is_name) && !bytes.get(offset + word.len()).is_some_and(is_name)
        })
    }
}

/// Blanks comments and literals. Bytes of characters beyond ASCII become spaces too, so offsets stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code: Vec<u8> = bytes.iter().map(|&byte| if byte.is_ascii() { byte } else { b' ' }).collect();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'r' if !follows_name(bytes, at) || is_byte_prefix(bytes, at) => raw_string_end(bytes, at).unwrap_or(at),
            b'"' => quoted_end(bytes, at, b'"'),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end > at {
            for byte in &mut code[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("only ASCII is left")
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

/// The `b` of `br"…"`, itself not the end of a name.
fn is_byte_prefix(bytes: &[u8], at: usize) -> bool {
    bytes[at - 1] == b'b' && !follows_name(bytes, at - 1)
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> usize {
    bytes[from..].windows(needle.len()).position(|window| window == needle).map_or(bytes.len(), |index| from + index)
}

/// Block comments nest in Rust.
fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// `r"…"`, `r#"…"#`; not `r#type`.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    Some((find(bytes, open + 1, &close) + close.len()).min(bytes.len()))
}

/// A character literal; a lifetime has no second quote after one character.
fn char_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start + 1) == Some(&b'\\') {
        return Some(quoted_end(bytes, start, b'\''));
    }
    let character = std::str::from_utf8(&bytes[start + 1..(start + 5).min(bytes.len())])
        .unwrap_or_else(|error| std::str::from_utf8(&bytes[start + 1..start + 1 + error.valid_up_to()]).unwrap_or(""))
        .chars()
        .next()?;
    let end = start + 1 + character.len_utf8();
    (bytes.get(end) == Some(&b'\'')).then_some(end + 1)
}

#[test]
fn comments_and_literals_are_blank() {
    let cases = [
        ("a // b {\nc", "a       \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("{ \" }") g"#, r#"f(        ) g"#),
        ("r#\"a\"b\"# c", "         c"),
        ("br\"a\" c", "b     c"),
        ("var\"a\" r#type", "var    r#type"),
        ("'{' 'a x: &'a str '\\'' b'\"'", "    'a x: &'a str      b   "),
        ("'ü' ü", "        "),
    ];
    for (text, code) in cases {
        let blanked = blank(text);
        assert_eq!(blanked.trim_end(), code.trim_end(), "{text}");
        assert_eq!(blanked.len(), text.len());
    }
}

#[test]
fn words_are_whole() {
    let source = Source::new("src/a.rs", "unsafe fn a() { not_unsafe(); } // unsafe\n#[deny(unsafe_code)]");
    assert_eq!(source.words("unsafe").count(), 1);
}
