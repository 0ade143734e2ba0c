//! The import order of src/: which top-level module may name which.

use super::source::Source;

/// Below each module, what it may name; `trace::record` is spelled out, the rest of `trace` is open to all.
/// Nothing names main, and `config` is handed down as values.
const ORDER: &[(&str, &[&str])] = &[
    ("main", &["cli", "config"]),
    (
        "cli",
        &[
            "config",
            "http",
            "bench",
            "report",
            "doctor",
            "engine",
            "step",
            "model",
            "kernels",
            "weights",
            "device",
            "formats",
            "isa",
            "text",
            "request",
            "trace::record",
            "console",
        ],
    ),
    ("config", &["http", "bench", "report", "engine", "step", "model", "weights", "device", "text", "request"]),
    ("http", &["engine", "step", "model", "weights", "device", "text", "request", "console"]),
    ("bench", &["engine", "step", "model", "weights", "device", "text", "request", "console"]),
    ("report", &["engine", "step", "model", "weights", "device", "request"]),
    ("doctor", &["step", "model", "kernels", "weights", "device", "formats", "request", "trace::record"]),
    ("engine", &["step", "model", "kernels", "device", "request", "trace::record"]),
    ("step", &["model", "kernels", "device", "request", "trace::record"]),
    ("model", &["weights", "device", "kernels", "formats", "request"]),
    ("text", &["weights", "request"]),
    ("weights", &["device", "formats", "request", "console"]),
    ("device", &["kernels", "formats", "isa", "request", "trace::record", "console"]),
    ("trace", &["request", "trace::record"]),
    ("kernels", &["formats", "isa"]),
    ("formats", &["isa"]),
    ("isa", &[]),
    ("request", &[]),
    ("console", &[]),
];

/// Modules that know devices only by their interface.
const NAME_NO_BACKEND: &[&str] = &["engine", "step", "model", "kernels"];
const BACKENDS: &[&str] = &["device::cpu", "device::null", "device::cuda"];

/// Names that break the order.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    let Some(module) = source.module().filter(|module| *module != "lib") else { return Vec::new() };
    let Some((_, below)) = ORDER.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: `{module}` has no place in the import order of tests/tidy/imports.rs", source.path)];
    };
    let mut found = Vec::new();
    for (offset, named) in named_modules(source) {
        let top = named.split("::").next().unwrap_or(&named);
        let is_record = named == "trace::record";
        let is_open = top == module || (top == "trace" && !is_record);
        if (!is_open || (is_record && module != "trace"))
            && !below.contains(&if is_record { named.as_str() } else { top })
        {
            found.push(format!("{}: `{module}` names `{named}`, which is not below it", source.at(offset)));
        }
        if NAME_NO_BACKEND.contains(&module) && BACKENDS.contains(&named.as_str()) {
            found.push(format!("{}: `{module}` names the backend `{named}`", source.at(offset)));
        }
    }
    found
}

/// Every `crate::a::b`, `crate::{a::b, c}` (in the binary, `vitrum::`), and `super::a` that leaves the module; two
/// segments of each.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let root = if source.path == "src/main.rs" { "vitrum" } else { "crate" };
    let mut found = Vec::new();
    for offset in source.words(root) {
        if let Some(rest) = source.code[offset + root.len()..].strip_prefix("::") {
            found.extend(branches(rest).into_iter().map(|path| (offset, path)));
        }
    }
    // In src/a.rs and src/a/mod.rs `super` is the crate.
    let is_top = source.path.matches('/').count() == 1
        || source.path.ends_with("/mod.rs") && source.path.matches('/').count() == 2;
    for offset in source.words("super").filter(|_| is_top) {
        if let Some(rest) = source.code[offset + 5..].strip_prefix("::") {
            let known = |path: &String| ORDER.iter().any(|(name, _)| path.starts_with(&format!("{name}::")));
            found.extend(branches(rest).into_iter().filter(known).map(|path| (offset, path)));
        }
    }
    found
}

/// The first two segments of each path that a `use` tree, or a plain path, leads to.
fn branches(tree: &str) -> Vec<String> {
    let tree = tree.trim_start();
    if let Some(inside) = tree.strip_prefix('{') {
        return split_list(inside).into_iter().flat_map(branches).collect();
    }
    let name: String = tree.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
    if name.is_empty() {
        return Vec::new();
    }
    match tree[name.len()..].strip_prefix("::") {
        Some(rest) if rest.trim_start().starts_with('{') => {
            let inside = rest.trim_start().strip_prefix('{').unwrap_or(rest);
            split_list(inside).into_iter().map(|item| format!("{name}::{}", first_segment(item))).collect()
        }
        Some(rest) => vec![format!("{name}::{}", first_segment(rest))],
        None => vec![name],
    }
}

fn first_segment(path: &str) -> String {
    path.trim_start().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The items up to the brace that closes the list.
fn split_list(inside: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                items.push(&inside[start..index]);
                start = index + 1;
            }
            '}' => {
                items.push(&inside[start..index]);
                return items;
            }
            _ => {}
        }
    }
    items
}

#[test]
fn the_order_has_no_cycle() {
    // A module is placed when all it names are: every round places one, or there is a cycle.
    let mut placed: Vec<&str> = vec!["trace::record"];
    while placed.len() <= ORDER.len() {
        let next =
            ORDER.iter().find(|(name, below)| !placed.contains(name) && below.iter().all(|b| placed.contains(b)));
        placed.push(next.unwrap_or_else(|| panic!("cycle among what is not in {placed:?}")).0);
    }
}

#[test]
fn bad_imports_are_found() {
    let cases = [
        ("src/device/cpu/mod.rs", "use crate::model::Model;", 1),
        ("src/http/mod.rs", "use crate::{engine::Engine, bench::{a::c, b}, text::Tokenizer};", 2),
        ("src/kernels/embed/mod.rs", "fn f() { crate::engine::go() } // crate::http::x", 1),
        ("src/engine/mod.rs", "use crate::device::{Device, cpu::CpuDevice};", 1),
        ("src/http/mod.rs", "use crate::trace::record::Recorder;", 1),
        ("src/http/mod.rs", "use super::bench::serve;", 1),
        ("src/surprise/mod.rs", "", 1),
        ("src/formats/q8_0.rs", "use crate::isa::Isa; use crate::kernels::params::QUANT_BLOCK;", 1),
        ("src/device/mod.rs", "use crate::config::Config;", 1),
        ("src/engine/mod.rs", "use crate::{device::Device, trace::{record::Recorder, schema::Op}, step::Step};", 0),
        ("src/bench/serve/mod.rs", "use super::stats::Sample; use crate::bench::stats;", 0),
        ("src/main.rs", "fn main() { vitrum::cli::run() }", 0),
        ("src/main.rs", "fn main() { vitrum::engine::run() }", 1),
        ("src/trace/record/mod.rs", "use crate::trace::schema::Op;", 0),
        ("src/trace/record/mod.rs", "use crate::engine::Engine;", 1),
    ];
    for (path, text, count) in cases {
        let found = violations(&Source::new(path, text));
        assert_eq!(found.len(), count, "{path}: {text}: {found:?}");
    }
}
