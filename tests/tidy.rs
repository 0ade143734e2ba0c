//! The rules of the code, held by a test: import order, places of `unsafe`, async and the environment, lengths, names.
//!
//! A rule is a test or it is not a rule; and each rule is itself tried on a bad sample, in the file that defines it.

#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use vitrum::kernels::KernelParams;

use self::source::Source;

/// Files that may hold `cfg(feature …)`, and how many there may be in all.
const FEATURE_FILES: &[&str] = &["src/trace/mod.rs"];
const FEATURE_SITES_MAX: usize = 6;

const TEXT_ENDS: &[&str] = &[".rs", ".h", ".cc", ".cu", ".cuh", ".py", ".mjs", ".md", ".toml", ".sh", "/run"];
const PASSED_OVER: &[&str] = &["target", ".git", "Cargo.lock"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the tree.
fn tree() -> Vec<Source> {
    let (mut folders, mut sources) = (vec![root().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
            let from_root = path.strip_prefix(root()).expect("inside").to_str().expect("UTF-8").replace('\\', "/");
            if PASSED_OVER.contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if TEXT_ENDS.iter().any(|end| from_root.ends_with(end)) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{from_root}: {error}"));
                sources.push(Source::new(&from_root, &text));
            }
        }
    }
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_file_keeps_the_rules() {
    let sources = tree();
    none(rules::RULES.iter().flat_map(|(_, rule)| sources.iter().flat_map(rule)).collect());
}

#[test]
fn imports_keep_the_order() {
    none(tree().iter().filter(|source| source.is_rust()).flat_map(imports::violations).collect());
}

#[test]
fn features_are_decided_in_few_places() {
    let sources: Vec<Source> = tree().into_iter().filter(|source| source.path.starts_with("src/")).collect();
    none(feature_sites(&sources));
}

/// Places of `cfg(feature …)` that are not listed, or too many of them.
fn feature_sites(sources: &[Source]) -> Vec<String> {
    let is_cfg = |source: &Source, offset: usize| {
        let line_start = source.code[..offset].rfind('\n').map_or(0, |index| index + 1);
        ["cfg(", "cfg!(", "cfg_attr("].iter().any(|word| source.code[line_start..offset].contains(word))
    };
    let sites: Vec<(&Source, usize)> = sources
        .iter()
        .filter(|source| source.is_rust())
        .flat_map(|source| source.words("feature").map(move |offset| (source, offset)))
        .filter(|(source, offset)| is_cfg(source, *offset))
        .collect();
    let mut found: Vec<String> = sites
        .iter()
        .filter(|(source, _)| !FEATURE_FILES.contains(&source.path.as_str()))
        .map(|(source, offset)| format!("{}: decides by a feature", source.at(*offset)))
        .collect();
    if sites.len() > FEATURE_SITES_MAX {
        found.push(format!("{} places decide by a feature, at most {FEATURE_SITES_MAX}", sites.len()));
    }
    found
}

/// Every kernel of the list has all that an op consists of, and is in the tables that go over kernels.
#[test]
fn ops_are_whole() {
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    let tables = [("src/doctor/kernels.rs", "\"kernel ", "\""), ("xtask/src/soak.rs", "\"", ".cu\""), (SASS, "\"", "")];
    let lacks = |op: &str| {
        let files = ["mod.rs", "cpu.rs", "cuda.rs"].map(|file| format!("src/kernels/{op}/{file}"));
        let files = files.into_iter().chain([format!("csrc/{op}.cu")]).filter(|path| !root().join(path).exists());
        let unlisted =
            tables.iter().filter(|(path, before, after)| !text(path).contains(&format!("{before}{op}{after}")));
        files.chain(unlisted.map(|(path, ..)| format!("{op} in {path}"))).collect::<Vec<_>>()
    };
    none(KernelParams::NAMES.into_iter().flat_map(lacks).collect());
    assert_eq!(lacks("no_such_op").len(), 4 + tables.len());
}

/// Which instructions kernels have to hold.
const SASS: &str = "xtask/src/kernels/sass.rs";

#[test]
fn paths_of_the_architecture_page_exist() {
    let page = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let exists = |path: &str| root().join(path).exists() || root().join("src").join(path).exists();
    none(named_paths(&page).into_iter().filter(|path| !exists(path)).collect());
}

/// Words between backticks in the crate's documentation that look like paths.
fn named_paths(page: &str) -> Vec<String> {
    let docs: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let docs = docs.join("\n");
    let quoted = docs.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let known_end = [".rs", ".md", ".h", ".py", ".toml"].iter().any(|end| word.ends_with(end));
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        plain && (word.contains('/') || known_end) && !word.starts_with('/') && *word != "."
    };
    quoted.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn the_rules_of_the_whole_tree_see_bad_samples() {
    let bad = [Source::new("src/a.rs", "#[cfg(not(feature = \"profiling\"))]\nfn f() {}")];
    assert_eq!(feature_sites(&bad).len(), 1);
    let many = [Source::new("src/trace/mod.rs", &"#[cfg(feature = \"profiling\")]\n".repeat(FEATURE_SITES_MAX + 1))];
    assert_eq!(feature_sites(&many).len(), 1);
    let good = [Source::new("src/a.rs", "// cfg(feature)\n#[target_feature(enable = \"avx2\")]\nlet feature = 1;")];
    assert!(feature_sites(&good).is_empty());
    assert_eq!(
        named_paths("//! See `src/no/such.rs`, `engine`, `a b/c`\n//! and `http/`.\n// `x/y`"),
        ["src/no/such.rs", "http/"]
    );
}
