//! How long functions are: found in blanked code by matching braces.

use super::source::Source;

/// A function: where it begins, and its lines from `fn` to the closing brace.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) lines: usize,
}

/// The functions of a Rust or C file that have a body.
pub(crate) fn functions(source: &Source) -> Vec<Function> {
    if source.is_rust() { rust(source) } else { c(source) }
}

fn rust(source: &Source) -> Vec<Function> {
    let code = source.code.as_bytes();
    let mut found = Vec::new();
    for offset in source.words("fn") {
        let name: String = source.code[offset + 2..].trim_start().chars().take_while(is_name).collect();
        if name.is_empty() {
            continue; // a function pointer's type
        }
        // The body is the first brace outside of parentheses and brackets: before a `;` there is none.
        let mut depth = 0;
        let body = (offset..code.len()).find(|&at| {
            match code[at] {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(code[at], b'{' | b';')
        });
        if let Some(open) = body.filter(|&at| code[at] == b'{') {
            found.push(Function { name, offset, lines: lines(source, offset, closing(code, open)) });
        }
    }
    found
}

/// A block after `)` that is in no other block but of namespaces, linkages and types.
fn c(source: &Source) -> Vec<Function> {
    let code = source.code.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(open) = code[at..].iter().position(|&byte| byte == b'{').map(|index| at + index) {
        let before = source.code[..open].trim_end();
        let before =
            ["const", "noexcept", "override"].iter().fold(before, |text, word| text.trim_end_matches(word).trim_end());
        at = open + 1;
        if before.ends_with(')') {
            let close = closing(code, open);
            let start = source.code[..open].rfind(['}', ';', '{']).map_or(0, |index| index + 1);
            let start = start + source.code[start..].len() - source.code[start..].trim_start().len();
            let head = source.code[start..open].split('(').next().unwrap_or("");
            let name = head.rsplit([' ', '*', '\n']).next().unwrap_or("").to_owned();
            found.push(Function { name, offset: start, lines: lines(source, start, close) });
            at = close;
        }
    }
    found
}

fn is_name(character: &char) -> bool {
    character.is_alphanumeric() || *character == '_'
}

fn closing(code: &[u8], open: usize) -> usize {
    let mut depth = 0;
    let close = (open..code.len()).find(|&at| {
        match code[at] {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    close.unwrap_or(code.len() - 1)
}

fn lines(source: &Source, start: usize, end: usize) -> usize {
    source.line(end) - source.line(start) + 1
}

#[test]
fn rust_functions() {
    let text = "fn short() {}\ntrait T { fn none(&self); }\n\
        fn long<'a>(\n    x: [u8; 2],\n) -> fn(u8) -> u8 {\n    let s = \"}\"; // }\n\
        \x20   match '{' {\n        _ => {}\n    }\n}\n";
    let found: Vec<_> = functions(&Source::new("a.rs", text)).into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(found, [("short".to_owned(), 1), ("long".to_owned(), 8)]);
}

#[test]
fn c_functions() {
    let text = "namespace a {\nstruct P { int x; };\n\
        __global__ void kernel(const P p) {\n  if (p.x) {\n    f();\n  }\n}\n}\nint g() { return 1; }\n";
    let found: Vec<_> = functions(&Source::new("a.cu", text)).into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(found, [("kernel".to_owned(), 5), ("g".to_owned(), 1)]);
}
