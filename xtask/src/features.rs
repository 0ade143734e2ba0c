//! `cargo xtask features`: features.md, what there is, where it is, and the test that proves it.
//!
//! The rows are in `xtask/features.txt`. Both the page and `--check` look for every file and test function that a row
//! names, so the page can neither promise what is not there nor outlive what was removed.

use std::error::Error;
use std::fs;

use crate::tree;

const ROWS: &str = include_str!("../features.txt");
const HEAD: &str = "# What there is, where, and what proves it\n\n\
    Written by `cargo xtask features` from xtask/features.txt; `--check` holds it to the tree: every file and test\n\
    named here exists. What is not there yet says so.\n";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed page instead of writing it
    #[arg(long)]
    check: bool,
}

/// A line of features.txt.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Section { title: &'a str, column: &'a str },
    Row { what: &'a str, file: &'a str, proof: Proof<'a> },
    NotYet { what: &'a str },
}

/// What shows that a row is true.
#[derive(Debug, PartialEq)]
enum Proof<'a> {
    Test { file: &'a str, function: &'a str },
    Task(&'a str),
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let lines = parse(ROWS)?;
    let missing = missing(&lines, |file| fs::read_to_string(tree::root().join(file)).ok());
    if !missing.is_empty() {
        return Err(format!("features.txt names what is not there:\n  {}", missing.join("\n  ")).into());
    }
    let (page, path) = (page(&lines), tree::root().join("features.md"));
    if !args.check {
        fs::write(&path, page)?;
    } else if fs::read_to_string(&path).ok().as_ref() != Some(&page) {
        return Err("features.md is not what xtask/features.txt gives: run `cargo xtask features`".into());
    }
    let count = |is: fn(&Line) -> bool| lines.iter().filter(|line| is(line)).count();
    let (proved, absent) =
        (count(|line| matches!(line, Line::Row { .. })), count(|l| matches!(l, Line::NotYet { .. })));
    println!("{proved} features with what proves them, {absent} not yet");
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Line<'_>>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| parse_line(line).ok_or(format!("features.txt:{}: not a row: {line}", at + 1))).collect()
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let parts: Vec<&str> = line.split(" | ").collect();
    if let Some(title) = line.strip_prefix("== ") {
        let (title, column) = title.split_once(" | ")?;
        return Some(Line::Section { title, column });
    }
    match parts[..] {
        [what, "not yet"] => Some(Line::NotYet { what }),
        [what, file, proof] => {
            let proof = match proof.split_once(' ')? {
                ("task", task) => Proof::Task(task),
                ("test", test) => {
                    let (test_file, function) = test.split_once(' ')?;
                    Proof::Test { file: if test_file == "-" { file } else { test_file }, function }
                }
                _ => return None,
            };
            Some(Line::Row { what, file, proof })
        }
        _ => None,
    }
}

fn page(lines: &[Line<'_>]) -> String {
    let mut page = HEAD.to_owned();
    for line in lines {
        page += &match line {
            Line::Section { title, column } => {
                format!("\n## {title}\n\n| {column} | file | test |\n| --- | --- | --- |\n")
            }
            Line::Row { what, file, proof: Proof::Task(task) } => {
                format!("| {what} | `{file}` | `cargo xtask {task}` |\n")
            }
            Line::Row { what, file, proof: Proof::Test { file: test_file, function } } if file == test_file => {
                format!("| {what} | `{file}` | `{function}` |\n")
            }
            Line::Row { what, file, proof: Proof::Test { file: test_file, function } } => {
                format!("| {what} | `{file}` | `{test_file}`: `{function}` |\n")
            }
            Line::NotYet { what } => format!("| {what} | | **not yet** |\n"),
        };
    }
    page
}

/// What the rows name and the tree has not.
fn missing(lines: &[Line<'_>], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for line in lines {
        let Line::Row { what, file, proof } = line else { continue };
        if read(file).is_none() {
            missing.push(format!("{what}: no file {file}"));
        }
        if let Proof::Test { file, function } = proof
            && !read(file).is_some_and(|text| is_test(&text, function))
        {
            missing.push(format!("{what}: no test {function} in {file}"));
        }
    }
    missing
}

/// Whether a function of this name stands under a test attribute, or in `proptest!`, or is the test's own main.
fn is_test(text: &str, function: &str) -> bool {
    text.split_once(&format!("fn {function}(")).is_some_and(|(before, _)| before.contains("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let rows = "# a comment\n== T | what\ngood | a.rs | test - works\nno test | a.rs | test a.rs work\n\n\
                    no file | b.rs | task test --full\nlater | not yet\n";
        let lines = parse(rows).unwrap();
        let read = |file: &str| (file == "a.rs").then(|| "#[test]\nfn works() {}".to_owned());
        assert_eq!(missing(&lines, read), ["no test: no test work in a.rs", "no file: no file b.rs"]);
        let page = page(&lines);
        for row in
            ["\n## T\n", "| good | `a.rs` | `works` |\n", "`cargo xtask test --full`", "| later | | **not yet** |"]
        {
            assert!(page.contains(row), "{row} is not in {page}");
        }
        assert!(parse("a row | without proof").unwrap_err().contains("features.txt:1"));
    }
}
