//! `cargo xtask verify-off`: a build without feature `profiling` has no trace of the recorder.
//!
//! The release binary is built twice in one copy of the tree: with `src/trace/record` there, and with it removed. The
//! two have to be equal, byte for byte, and hold none of the recorder's own words, nor the name of CUPTI in any symbol
//! or string. That the comparison sees anything is
//! shown by a build with the feature: it differs, it holds those words, and it fails without the folder.
//!
//! vitrum's own code is not optimised in these builds. So the optimiser is given the same in both, and nothing is equal
//! only because it took the recorder out.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::{process, tree};

/// What has to leave no trace.
const RECORDER: &str = "src/trace/record";
/// How vitrum itself is compiled here.
const UNOPTIMISED: [&str; 2] = ["--config", "profile.release.package.vitrum.opt-level=0"];
/// The profiling library: in small letters, as it is looked for in any.
const LIBRARY: &str = "cupti";
/// Pieces of the recorder's strings that are shorter could stand anywhere.
const WORD_BYTES_MIN: usize = 12;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    if !tree::root().join(RECORDER).is_dir() {
        return Err(format!("{RECORDER} is no folder: there is nothing to compare").into());
    }
    let words = recorder_words()?;
    let copy = Copy::make()?;
    let with_folder = copy.build(&[])?;
    let with_feature = copy.build(&["--features", "profiling"])?;
    fs::remove_dir_all(copy.root.join(RECORDER))?;
    let without_folder = copy.build(&[])?;

    if with_folder != without_folder {
        return Err(format!(
            "the builds differ: {} with {RECORDER}, {} without",
            sha(&with_folder),
            sha(&without_folder)
        )
        .into());
    }
    if with_folder == with_feature {
        return Err("a build with the feature is the same: this comparison shows nothing".into());
    }
    let mut check = copy.cargo(&["build", "--features", "profiling"]);
    if check.output()?.status.success() {
        return Err(format!("feature profiling builds without {RECORDER}: this comparison shows nothing").into());
    }
    let (off, on): (Vec<&String>, Vec<&String>) = (
        words.iter().filter(|w| holds(&with_folder, w)).collect(),
        words.iter().filter(|w| holds(&with_feature, w)).collect(),
    );
    if on.is_empty() {
        return Err(format!("the build with the feature has none of {} words of {RECORDER}", words.len()).into());
    }
    if !off.is_empty() {
        return Err(format!("the build without the feature has words of {RECORDER}: {off:?}").into());
    }
    if !names_library(&with_feature) {
        return Err(format!("the build with the feature does not name {LIBRARY}: this comparison shows nothing").into());
    }
    if names_library(&with_folder) {
        return Err(format!("the build without the feature names {LIBRARY}").into());
    }
    println!(
        "equal with and without {RECORDER}: {} bytes, sha256 {}; none of {} recorder words that the other build has",
        with_folder.len(),
        &sha(&with_folder)[..16],
        on.len()
    );
    Ok(())
}

/// Whether a binary has the profiling library's name in it, in small or capital letters.
fn names_library(binary: &[u8]) -> bool {
    let name = LIBRARY.as_bytes();
    binary.windows(name.len()).any(|bytes| bytes.eq_ignore_ascii_case(name))
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds(binary: &[u8], word: &str) -> bool {
    memchr_all(binary, word.as_bytes()[0]).any(|at| binary[at..].starts_with(word.as_bytes()))
}

fn memchr_all(bytes: &[u8], first: u8) -> impl Iterator<Item = usize> + '_ {
    bytes.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at)
}

/// A copy of the tree, built with the target folder that everything else uses: the dependencies are the same.
struct Copy {
    root: PathBuf,
    /// What stood at the binary's place before.
    saved: Option<PathBuf>,
}

impl Copy {
    fn make() -> io::Result<Copy> {
        let root = tree::target().join("verify-off");
        fs::remove_dir_all(&root)
            .or_else(|error| (error.kind() == io::ErrorKind::NotFound).then_some(()).ok_or(error))?;
        for file in tree::files()? {
            let to = root.join(&file);
            fs::create_dir_all(to.parent().expect("inside"))?;
            fs::copy(tree::root().join(file), to)?;
        }
        let saved = tree::vitrum().with_extension("saved");
        let saved = fs::rename(tree::vitrum(), &saved).is_ok().then_some(saved);
        Ok(Copy { root, saved })
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = tree::cargo(args);
        command.args(UNOPTIMISED).args(["--release", "-p", "vitrum", "--bin", "vitrum"]).current_dir(&self.root);
        command.env("CARGO_TARGET_DIR", tree::target());
        command
    }

    /// The binary that these flags give.
    fn build(&self, features: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
        // Without the feature cargo does not know of the folder: have it look again.
        fs::File::options().append(true).open(self.root.join("src/lib.rs"))?.set_modified(SystemTime::now())?;
        process::run("cargo build", self.cargo(&[&["build"], features].concat()), io::stderr())?;
        Ok(fs::read(tree::vitrum())?)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved
            && let Err(error) = fs::rename(saved, tree::vitrum())
        {
            eprintln!("could not put {} back: {error}", tree::vitrum().display());
        }
    }
}

/// Pieces of string literals that only the recorder has, and the names of its files.
fn recorder_words() -> io::Result<Vec<String>> {
    let (mut own, mut others) = (Vec::new(), String::new());
    for file in tree::files()?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let text = fs::read_to_string(tree::root().join(&file))?;
        let is_test = file.file_name().is_some_and(|name| name == "tests.rs");
        if file.starts_with(RECORDER) && !is_test {
            own.push((file, text));
        } else if file.starts_with("src") {
            others += &text;
        }
    }
    let mut words: Vec<String> = own.iter().flat_map(|(file, text)| literals(file, text)).collect();
    words.retain(|word| !others.contains(word.as_str()));
    words.sort();
    words.dedup();
    Ok(words)
}

/// The literal pieces of a file's strings, between escapes and placeholders, up to its tests.
fn literals(file: &Path, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let pieces = code.split('"').skip(1).step_by(2).flat_map(|literal| literal.split(['{', '}', '\\', '\n']));
    let named = pieces.filter(|piece| piece.len() >= WORD_BYTES_MIN && piece.is_ascii()).map(str::to_owned);
    named.chain([file.to_string_lossy().into_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_constant_pieces() {
        let text = "//! \"in a comment, not in the binary\"\n\
                    fn f() { panic!(\"could not write {path}: x\"); g(\"short\") }\n\
                    #[cfg(test)]\nmod tests { const A: &str = \"only in the tests of it\"; }";
        assert_eq!(literals(Path::new("src/a.rs"), text), ["could not write ", "src/a.rs"]);
        assert!(names_library(b"x CuPti y") && names_library(b"libcupti.so") && !names_library(b"cupt i"));
        assert!(holds(b"xxcould not write yy", "could not write ") && !holds(b"xxcould not", "could not write "));
    }
}
