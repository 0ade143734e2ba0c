//! The rules that one file can break by itself. Each takes a file and says `path:line: what is wrong`.

use super::functions::functions;
use super::source::Source;

pub(crate) const FILE_LINES_MAX: usize = 500;
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
pub(crate) const KERNEL_LINES_MAX: usize = 150;
pub(crate) const COLUMNS_MAX: usize = 120;

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &[
    "src/device/",
    "src/kernels/",
    "src/formats/",
    "src/isa/",
    "src/weights/",
    "src/trace/record/cupti/",
    "src/trace/absent.rs",
    "xtask/src/process.rs",
];
/// Where the argument list and the environment may be read.
const ENVIRONMENT_ALLOWED: &[&str] = &["src/config.rs", "build.rs", "xtask/", "tests/", "benches/", "examples/"];
/// Where code may be async; the engine's token stream is what http awaits.
const ASYNC_ALLOWED: &[&str] = &["src/http/", "src/bench/", "src/engine/stream.rs", "tests/"];
/// Written by `cargo xtask bindings`.
const GENERATED: &[&str] = &["src/kernels/params.rs"];
const NAMES_BANNED: &[&str] = &["utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"];

/// A rule and its name.
pub(crate) type Rule = (&'static str, fn(&Source) -> Vec<String>);

pub(crate) const RULES: &[Rule] = &[
    ("length", length),
    ("header", header),
    ("unsafe", unsafe_place),
    ("environment", environment),
    ("async", asynchronous),
    ("output", output),
    ("names", names),
    ("leftovers", leftovers),
    ("machine", machine),
];

fn starts(path: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|place| path.starts_with(place))
}

/// Lines of files and functions, columns of lines.
fn length(source: &Source) -> Vec<String> {
    if !(source.is_rust() || source.is_c()) || GENERATED.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
    }
    let is_kernel = source.is_c() || starts(&source.path, &["src/kernels/", "tests/kernels_"]);
    let limit = if is_kernel { KERNEL_LINES_MAX } else { FUNCTION_LINES_MAX };
    for function in functions(source).into_iter().filter(|function| function.lines > limit) {
        let at = source.at(function.offset);
        found.push(format!("{at}: `{}` has {} lines, at most {limit}", function.name, function.lines));
    }
    for (index, line) in source.text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX) {
        found.push(format!("{}:{}: {} columns, at most {COLUMNS_MAX}", source.path, index + 1, line.chars().count()));
    }
    found
}

/// A Rust file begins with what it is for.
fn header(source: &Source) -> Vec<String> {
    let has = !source.is_rust() || source.text.starts_with("//! ");
    if has { Vec::new() } else { vec![format!("{}: does not begin with //!", source.path)] }
}

fn unsafe_place(source: &Source) -> Vec<String> {
    // Tests and benches of single kernels and allocators hand raw memory to the device: they are not shipped.
    if !source.is_rust() || starts(&source.path, &["tests/", "benches/"]) || starts(&source.path, UNSAFE_ALLOWED) {
        return Vec::new();
    }
    source
        .words("unsafe")
        .map(|offset| format!("{}: unsafe outside of {UNSAFE_ALLOWED:?}", source.at(offset)))
        .collect()
}

fn environment(source: &Source) -> Vec<String> {
    if !source.is_rust() || starts(&source.path, ENVIRONMENT_ALLOWED) {
        return Vec::new();
    }
    let reads = ["env::var", "env::vars", "env::var_os", "env::vars_os", "env::args", "env::args_os", "env::set_var"];
    let reads = reads.iter().flat_map(|read| source.words(read));
    // clap reads the environment too: #[arg(env = "…")]
    let clap = source.words("env").filter(|&offset| source.code[offset + 3..].trim_start().starts_with('='));
    reads.chain(clap).map(|offset| format!("{}: reads the environment or arguments", source.at(offset))).collect()
}

fn asynchronous(source: &Source) -> Vec<String> {
    if !source.is_rust() || starts(&source.path, ASYNC_ALLOWED) {
        return Vec::new();
    }
    let words = ["async", "await"].iter().flat_map(|word| source.words(word));
    words.map(|offset| format!("{}: async outside of http and bench", source.at(offset))).collect()
}

/// `println!` and its kin panic where a write fails, which a full disk or a reader that has left brings about.
fn output(source: &Source) -> Vec<String> {
    let is_test = source.path.ends_with("tests.rs");
    if !source.is_rust() || !source.path.starts_with("src/") || is_test {
        return Vec::new();
    }
    let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
    let macros = ["println", "print", "eprintln", "eprint"]
        .iter()
        .flat_map(|word| source.words(word).map(move |at| (at, *word)));
    let used = macros.filter(|(at, word)| *at < code.len() && source.code[at + word.len()..].starts_with('!'));
    used.map(|(at, word)| format!("{}: {word}!, where `console` is what ends nothing", source.at(at))).collect()
}

/// Names that say nothing.
fn names(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let path = source.path.trim_end_matches(".rs");
    let banned = path.split('/').filter(|name| NAMES_BANNED.contains(name));
    let declared = source.words("mod").filter_map(|offset| {
        let name = source.code[offset + 3..].trim_start().split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?;
        NAMES_BANNED.contains(&name).then(|| format!("{}: a module named {name}", source.at(offset)))
    });
    banned.map(|name| format!("{}: a file or folder named {name}", source.path)).chain(declared).collect()
}

/// What is to be done before a commit.
fn leftovers(source: &Source) -> Vec<String> {
    let notes = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    let notes = notes.iter().flat_map(|word| source.text.match_indices(word));
    let mut found: Vec<String> = notes.map(|(offset, word)| format!("{}: {word}", source.at(offset))).collect();
    for word in ["todo", "unimplemented", "dbg"].iter().filter(|_| source.is_rust()) {
        let macros = source.words(word).filter(|&offset| source.code[offset + word.len()..].starts_with('!'));
        found.extend(macros.map(|offset| format!("{}: {word}!", source.at(offset))));
    }
    found
}

/// What is true of one machine, one registry or one way of writing this, and not of the project.
fn machine(source: &Source) -> Vec<String> {
    let folders = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/t", "mp")];
    let words = [
        concat!("../sha", "red"),
        concat!("session ", "helper"),
        concat!("sub", "agent"),
        concat!("work", "tree"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("crates", ".io"),
        concat!("npmjs", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let bytes = source.text.as_bytes();
    let is_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-*}>)".contains(byte);
    let folders = folders.iter().flat_map(|word| source.text.match_indices(word)).filter(|(offset, word)| {
        let before = offset.checked_sub(1).map(|index| &bytes[index]);
        let after = bytes.get(offset + word.len());
        !before.is_some_and(is_path) && !after.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    });
    let words = words.iter().flat_map(|word| source.text.match_indices(word));
    folders.chain(words).map(|(offset, word)| format!("{}: names {word}", source.at(offset))).collect()
}

#[test]
fn bad_samples_are_found_and_good_ones_are_not() {
    let many_lines = "//! a\n".repeat(FILE_LINES_MAX + 1);
    let long_function = format!("//! a\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX - 1));
    let kernel = format!("void f() {{\n{}}}\n", "  g();\n".repeat(KERNEL_LINES_MAX - 1));
    let wide = format!("//! {}", "ü".repeat(COLUMNS_MAX));
    let folder = concat!("see /wo", "rk/x and \"/t", "mp\"");
    let note = concat!("// FIX", "ME: x");
    let cases: &[(&str, &str, &str, usize)] = &[
        ("length", "src/a.rs", &many_lines, 1),
        ("length", "src/a.rs", &long_function, 1),
        ("length", "src/kernels/a.rs", &long_function, 0),
        ("length", "csrc/a.cu", &kernel, 1),
        ("length", "src/a.rs", &wide, 1),
        ("length", "src/kernels/params.rs", &wide, 0),
        ("header", "src/a.rs", "use b;\n//! late", 1),
        ("header", "src/a.rs", "//! for this", 0),
        ("unsafe", "src/http/a.rs", "fn f() { unsafe { g() } }", 1),
        ("unsafe", "src/device/a.rs", "unsafe fn f() {}", 0),
        ("unsafe", "src/http/a.rs", "// unsafe\nlet s = \"unsafe\";", 0),
        ("environment", "src/http/a.rs", "std::env::var(\"A\"); std::env::args()", 2),
        ("environment", "src/http/a.rs", "#[arg(long, env = \"A\")]", 1),
        ("environment", "src/config.rs", "std::env::var(\"A\")", 0),
        ("environment", "src/http/a.rs", "env!(\"CARGO_PKG_VERSION\")", 0),
        ("async", "src/engine/mod.rs", "async fn f() { g().await }", 2),
        ("async", "src/bench/a.rs", "async fn f() {}", 0),
        ("output", "src/http/a.rs", "fn f() { println!(\"a\"); eprint!(\"b\") }", 2),
        ("output", "src/http/a.rs", "fn f() { print(a) } #[cfg(test)] mod tests { fn g() { println!() } }", 0),
        ("output", "xtask/src/a.rs", "fn f() { println!() }", 0),
        ("names", "src/http/utils.rs", "", 1),
        ("names", "src/http/mod.rs", "mod helpers;", 1),
        ("names", "src/http/mod.rs", "mod manage; mod sse;", 0),
        ("leftovers", "README.md", note, 1),
        ("leftovers", "src/a.rs", "dbg!(x); todo!()", 2),
        ("leftovers", "src/a.rs", "// dbg!(x)\nlet todo = 1;", 0),
        ("machine", "README.md", folder, 2),
        ("machine", "a.py", concat!("pypi", ".org"), 1),
        ("machine", "README.md", "src/kernels/cpu/worker.rs target/tmp/x https://a/root", 0),
    ];
    for (name, path, text, count) in cases {
        let (_, rule) = RULES.iter().find(|(rule, _)| rule == name).expect("a rule of that name");
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), *count, "{name} on {path}: {found:?}");
    }
    for (name, _) in RULES {
        assert!(cases.iter().any(|case| case.0 == *name && case.3 > 0), "{name} has no bad sample");
    }
}
