//! What the hub allows as the name of a model and of a revision. Both become parts of paths and addresses.

use std::fmt;

/// A model's name on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId(String);

/// The most characters of a model's name, with its owner.
const ID_CHARS_MAX: usize = 96;
const REVISION_CHARS_MAX: usize = 200;

impl ModelId {
    /// Takes `owner/name`, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<ModelId, &'static str> {
        let Some((owner, name)) = text.split_once('/').filter(|(_, name)| !name.contains('/')) else {
            return Err("it has to be owner/name, with one slash");
        };
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_edge = |c: char| "-.".contains(c);
        match () {
            () if owner.is_empty() || name.is_empty() => Err("owner and name may not be empty"),
            () if text.len() > ID_CHARS_MAX => Err("it has more than 96 characters"),
            () if !owner.chars().chain(name.chars()).all(is_known) => {
                Err("only letters, digits and -, _, . are allowed around the slash")
            }
            () if [owner, name].iter().any(|part| part.starts_with(is_edge) || part.ends_with(is_edge)) => {
                Err("owner and name may neither begin nor end with - or .")
            }
            () if text.contains("..") || text.contains("--") => Err(".. and -- are not allowed"),
            () if text.ends_with(".git") => Err("it may not end with .git"),
            () => Ok(ModelId(text.to_owned())),
        }
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The branch that is meant where none is named.
    pub fn main() -> Revision {
        Revision("main".into())
    }

    /// Takes a revision's name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Revision, &'static str> {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
        match () {
            () if text.is_empty() => Err("it is empty"),
            () if text.len() > REVISION_CHARS_MAX => Err("it has more than 200 characters"),
            () if !text.chars().all(is_known) => Err("only letters, digits and -, _, ., +, / are allowed"),
            () if text.split('/').any(|part| part.is_empty() || part.starts_with('.')) => {
                Err("no part between slashes may be empty or begin with a dot")
            }
            () => Ok(Revision(text.to_owned())),
        }
    }

    /// Whether it is a full commit hash, whose files never change.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a full hash of Git's.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether a text is hexadecimal, and so a plain file name.
pub(super) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_hub_allows() {
        for good in ["a/b", "HuggingFaceTB/SmolLM2-135M-Instruct", "01-ai/Yi-1.5_x", "a_/_b"] {
            assert_eq!(ModelId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        let long = format!("a/{}", "b".repeat(95));
        let bad = ["", "a", "/", "a/", "/b", "a/b/c", "/a/b", "../b", "a/..", "a/b..c", "./b", "a/.b", "-a/b", "a/b-"];
        let bad = bad.into_iter().chain(["a b/c", "a/b\\c", "a/b%2f", "ä/b", "a--b/c", "a/b.git", "a/b\n", &long]);
        for bad in bad {
            assert!(ModelId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["main", "v1.0", "refs/pr/1", "gptq-4bit_True", "a+b"] {
            assert!(Revision::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/main", "main/", "a//b", "..", "a/../b", ".hidden", "a b", "a%2fb", "a?b", "ä"] {
            assert!(Revision::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Revision::parse(&"0a".repeat(20)).is_ok_and(|revision| revision.is_commit()));
        assert!(!Revision::main().is_commit());
    }
}
