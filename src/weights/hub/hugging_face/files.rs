//! Which of a repository's files make a model.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::error::{HuggingFaceError, ModelAt};
use super::names::is_hex;
use crate::weights::hub::fetch::hash_into;
use crate::weights::hub::progress::progress_bar;

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// What else is fetched where the repository has it.
const OPTIONAL: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// How many names an error lists.
const NAMES_SHOWN: usize = 8;

/// A file of a repository.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    /// Its size, where the hub says it.
    pub(super) bytes: Option<u64>,
    /// The name of its content in the cache, where the hub says it.
    pub(super) etag: Option<String>,
    /// The SHA-256 of its content in hexadecimal, which the hub knows of large files.
    sha256: Option<String>,
}

impl RemoteFile {
    /// A file as the hub describes it. Hashes that are none are as good as none.
    pub(super) fn new(name: String, bytes: Option<u64>, blob: Option<String>, sha256: Option<String>) -> RemoteFile {
        let sha256 = sha256.filter(|hash| hash.len() == 64 && is_hex(hash));
        let etag = sha256.clone().or(blob).filter(|etag| is_hex(etag));
        RemoteFile { name, bytes, etag, sha256 }
    }

    /// Whether a snapshot has it, with its size.
    pub(super) fn is_in(&self, snapshot: &Path) -> bool {
        let found = fs::metadata(snapshot.join(&self.name));
        found.is_ok_and(|found| found.is_file() && self.bytes.is_none_or(|bytes| bytes == found.len()))
    }

    /// Whether a fetched file is what the hub said; else what is wrong.
    pub(super) fn check(&self, path: &Path) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let found = fs::metadata(path).map_err(unreadable)?.len();
        if let Some(bytes) = self.bytes.filter(|bytes| *bytes != found) {
            return Err(format!("it has {found} bytes, and the hub says {bytes}"));
        }
        let Some(expected) = &self.sha256 else { return Ok(()) };
        let bar = progress_bar(found, format!("checking {}", self.name));
        let hash = File::open(path).and_then(|file| hash_into(bar.wrap_read(file), &mut io::sink()));
        bar.finish_and_clear();
        match hash.map_err(unreadable)? {
            found if found == *expected => Ok(()),
            found => Err(format!("it has SHA-256 {found}, and the hub says {expected}")),
        }
    }
}

/// The files of a model.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    /// All but the weights, the index of weights among them.
    pub(super) small: Vec<&'a RemoteFile>,
    /// The one file with all weights; `None` if an index names them.
    pub(super) weights: Option<&'a RemoteFile>,
}

impl<'a> Selection<'a> {
    /// The model in a repository.
    pub(super) fn of(files: &'a [RemoteFile], at: &ModelAt) -> Result<Selection<'a>, HuggingFaceError> {
        let find = |name: &str| files.iter().find(|file| file.name == name);
        let (weights, index) = (find(WEIGHTS), find(INDEX));
        if weights.is_none() && index.is_none() {
            let ending =
                |end: &str| list(files.iter().map(|file| file.name.as_str()).filter(|name| name.ends_with(end)));
            return Err(match ending(".gguf") {
                Some(files) => HuggingFaceError::OnlyGguf { at: at.clone(), files },
                None => {
                    HuggingFaceError::Lacks { at: at.clone(), missing: "model.safetensors, nor an index of shards" }
                }
            });
        }
        let Some(config) = find(CONFIG) else {
            return Err(HuggingFaceError::Lacks { at: at.clone(), missing: CONFIG });
        };
        let index = index.filter(|_| weights.is_none());
        // An empty file says nothing, and a part of it cannot be asked for.
        let optional = OPTIONAL.into_iter().filter_map(find).filter(|file| file.bytes != Some(0));
        Ok(Selection { small: std::iter::once(config).chain(optional).chain(index).collect(), weights })
    }
}

/// Some names in a row; `None` if there are none.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len() {
        0 => None,
        1..=NAMES_SHOWN => Some(shown),
        all => Some(format!("{shown} and {} more", all - NAMES_SHOWN)),
    }
}

/// An index of weights: which file a tensor is in.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::HashMap<String, String>,
}

/// The files that an index names, or what is wrong with it.
pub(super) fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: Index = serde_json::from_slice(index).map_err(|error| format!("it is no index of weights: {error}"))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    let is_plain = |name: &String| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(known)
    };
    match shards.iter().find(|name| !is_plain(name)) {
        Some(name) => Err(format!("it names {name:?}, which is no plain name of a .safetensors file")),
        None if shards.is_empty() => Err("it names no file".into()),
        None => Ok(shards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        names.iter().map(|name| RemoteFile::new((*name).into(), None, None, None)).collect()
    }

    fn selected(names: &[&str]) -> Result<Vec<String>, String> {
        let files = files(names);
        let selection = Selection::of(&files, &ModelAt::default()).map_err(|error| error.to_string())?;
        Ok(selection.small.iter().chain(&selection.weights).map(|file| file.name.clone()).collect())
    }

    #[test]
    fn a_model_is_its_config_its_tokenizer_and_its_weights() {
        let whole = ["README.md", "pytorch_model.bin", WEIGHTS, "a.gguf", "tokenizer.json", CONFIG, "original/x.pth"];
        assert_eq!(selected(&whole), Ok(vec![CONFIG.into(), "tokenizer.json".into(), WEIGHTS.into()]));
        assert_eq!(selected(&[CONFIG, INDEX, "x.safetensors"]), Ok(vec![CONFIG.into(), INDEX.into()]));
        let says = |names: &[&str], words: &str| {
            let error = selected(names).expect_err("no model");
            assert!(error.contains(words), "{error}");
        };
        says(&[WEIGHTS], "has no config.json");
        says(&[CONFIG, "pytorch_model.bin"], "has no model.safetensors");
        says(&[CONFIG, "q4.gguf", "q8.gguf"], "q4.gguf, q8.gguf");
        let many: Vec<String> = (0..11).map(|n| format!("{n}.gguf")).collect();
        says(&many.iter().map(String::as_str).collect::<Vec<_>>(), "7.gguf and 3 more");
    }

    #[test]
    fn an_index_names_plain_files() {
        let of = |shard: &str| shards(format!(r#"{{"metadata": {{}}, "weight_map": {{"t": "{shard}"}}}}"#).as_bytes());
        assert_eq!(of("a.safetensors"), Ok(BTreeSet::from(["a.safetensors".into()])));
        for bad in ["../a.safetensors", "/a.safetensors", "b/a.safetensors", ".a.safetensors", "a.bin", ""] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(shards(br#"{"weight_map": {}}"#).is_err());
        assert!(shards(b"[]").is_err());
    }
}
