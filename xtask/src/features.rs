//! `cargo xtask features`: features.md, what there is, where it is, and the test that proves it.
//!
//! The table is data in `features/table.rs`. `--check` compares the committed page with it and looks for every file and
//! test function that it names, so the page can neither promise what is not there nor outlive what was removed.

mod table;

use std::error::Error;
use std::fs;

use self::table::{Proof, SECTIONS, Section};
use crate::tree;

const HEAD: &str = "# What there is, where, and what proves it\n\n\
    Written by `cargo xtask features` from xtask/src/features/table.rs; `--check` holds it to the tree: every file and \
    test named here exists. What is not there yet says so.\n";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare with the committed page, and look for what it names, instead of writing it
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let (page, path) = (page(SECTIONS), tree::root().join("features.md"));
    let missing = missing(SECTIONS, |file| fs::read_to_string(tree::root().join(file)).ok());
    if !missing.is_empty() {
        return Err(format!("features.md names what is not there:\n  {}", missing.join("\n  ")).into());
    }
    if !args.check {
        fs::write(&path, page)?;
    } else if fs::read_to_string(&path).ok().as_ref() != Some(&page) {
        return Err("features.md is not what its table gives: run `cargo xtask features`".into());
    }
    let rows = || SECTIONS.iter().flat_map(|section| section.rows);
    let absent = rows().filter(|row| matches!(row.proof, Proof::NotYet)).count();
    println!("{} rows: {} with a test, {absent} not yet", rows().count(), rows().count() - absent);
    Ok(())
}

fn page(sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    for section in sections {
        page += &format!("\n## {}\n\n| {} | file | test |\n| --- | --- | --- |\n", section.title, section.column);
        for row in section.rows {
            let proof = match row.proof {
                Proof::Test(file, function) if file == row.file => format!("`{function}`"),
                Proof::Test(file, function) => format!("`{file}`: `{function}`"),
                Proof::Task(task) => format!("`cargo xtask {task}`"),
                Proof::NotYet => "**not yet**".to_owned(),
            };
            let file = if row.file.is_empty() { String::new() } else { format!("`{}`", row.file) };
            page += &format!("| {} | {file} | {proof} |\n", row.what);
        }
    }
    page
}

/// What the table names and the tree has not.
fn missing(sections: &[Section], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for row in sections.iter().flat_map(|section| section.rows) {
        if !matches!(row.proof, Proof::NotYet) && read(row.file).is_none() {
            missing.push(format!("{}: no file {}", row.what, row.file));
        }
        if let Proof::Test(file, function) = row.proof {
            match read(file) {
                None => missing.push(format!("{}: no file {file}", row.what)),
                Some(text) if !text.contains(&format!("fn {function}(")) => {
                    missing.push(format!("{}: no test {function} in {file}", row.what));
                }
                Some(_) => {}
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::table::Row;
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        const ROWS: &[Row] = &[
            Row { what: "good", file: "a.rs", proof: Proof::Test("a.rs", "works") },
            Row { what: "no test", file: "a.rs", proof: Proof::Test("a.rs", "work") },
            Row { what: "no file", file: "b.rs", proof: Proof::Task("test") },
            Row { what: "later", file: "", proof: Proof::NotYet },
        ];
        let sections = [Section { title: "T", column: "what", rows: ROWS }];
        let read = |file: &str| (file == "a.rs").then(|| "#[test]\nfn works() {}".to_owned());
        assert_eq!(missing(&sections, read), ["no test: no test work in a.rs", "no file: no file b.rs"]);
        let page = page(&sections);
        assert!(
            page.contains("| good | `a.rs` | `works` |\n") && page.contains("| later |  | **not yet** |"),
            "{page}"
        );
    }
}
