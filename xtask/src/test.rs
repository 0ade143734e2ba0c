//! `cargo xtask test`: every check of the project that needs no GPU; `--full` adds the slow ones.
//!
//! It installs what it needs, says what each part took, and ends with `N passed, N failed` alone on a line: the tests
//! that cargo counted, and one for every other part.

mod acceptance;
mod cuda_serve;
mod isa;
mod merged;
mod page;
mod parts;

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::tools::python;
use crate::{process, tree};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Add the slow checks: HTA, readers of nsys, aarch64, long random tests, changed recordings, attacks
    #[arg(long)]
    full: bool,
    /// Run only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Name the parts and stop
    #[arg(long)]
    list: bool,
}

/// How a part ended.
pub(crate) enum Outcome {
    /// Tests that cargo counted, or 1.
    Passed { count: usize, note: String },
    /// What cannot be had on this machine, with the reason: only for parts that may be left out.
    NotRun { reason: String },
}

impl Outcome {
    fn passed(note: impl Into<String>) -> Outcome {
        Outcome::Passed { count: 1, note: note.into() }
    }
}

/// What a part works with: its name and its log.
pub(crate) struct Part {
    pub(crate) name: &'static str,
}

/// A check: it passes, or says why not.
type Check = fn(&Part) -> Result<Outcome, String>;

impl Part {
    /// A file of this part.
    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        tree::target().join("xtask-test").join(format!("{}.{suffix}", self.name))
    }

    /// Runs a command, its output into this part's log.
    pub(crate) fn run(&self, what: &str, command: Command) -> Result<String, String> {
        let path = self.file("log");
        let open = |append| File::options().create(true).append(append).write(true).truncate(!append).open(&path);
        let log = open(true).map_err(|error| format!("{}: {error}", path.display()))?;
        let before = fs::metadata(&path).map_or(0, |metadata| metadata.len() as usize);
        let result = process::run(what, command, log);
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&text[before.min(text.len())..]).into_owned();
        // The log has everything in order; the tail in the error would only repeat its end.
        result.map_err(|error| format!("{}\n{text}", error.lines().next().unwrap_or_default()))?;
        Ok(text)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let parts = parts::all(args.full);
    if args.list {
        parts.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    if let Some(unknown) = args.only.iter().find(|only| parts.iter().all(|(name, _)| name != only)) {
        return Err(format!("no part is named {unknown}: see --list{}", if args.full { "" } else { " --full" }).into());
    }
    let folder = tree::target().join("xtask-test");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_asked = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let asked: Vec<(&'static str, Check)> = parts.into_iter().filter(|(name, _)| is_asked(name)).collect();
    let start = Instant::now();
    if args.full && args.only.is_empty() {
        // Whoever comes to need one and finds it not there yet waits for it, and says what is wrong with it.
        thread::spawn(|| {
            acceptance::environments().into_iter().for_each(|(name, packages)| drop(python(name, packages)))
        });
    }
    let side_by_side = |(name, _): &(&str, Check)| parts::SIDE_BY_SIDE.contains(name);
    let mut results = Vec::new();
    for group in asked.chunk_by(|part, next| side_by_side(part) && side_by_side(next)) {
        thread::scope(|scope| {
            let running: Vec<_> = group.iter().map(|part| scope.spawn(|| attempt(*part))).collect();
            results.extend(running.into_iter().map(|part| part.join().expect("a check does not panic")));
        });
    }
    let (table, failed) = report(&results, start.elapsed());
    println!("{table}");
    if failed > 0 { Err("a part failed".into()) } else { Ok(()) }
}

fn attempt((name, check): (&'static str, Check)) -> PartResult {
    eprintln!("== {name}");
    let part = Part { name };
    fs::remove_file(part.file("log")).ok();
    let start = Instant::now();
    let result = check(&part);
    if let Err(error) = &result {
        eprintln!("{error}\n== {name} FAILED");
    }
    PartResult { name, time: start.elapsed(), result }
}

struct PartResult {
    name: &'static str,
    time: Duration,
    result: Result<Outcome, String>,
}

/// The table with the closing line, and how many parts failed.
fn report(results: &[PartResult], total: Duration) -> (String, usize) {
    let (mut table, mut passed, mut failed) = (String::new(), 0, 0);
    for PartResult { name, time, result } in results {
        let (word, note) = match result {
            Ok(Outcome::Passed { count, note }) => {
                passed += count;
                ("passed", note.as_str())
            }
            Ok(Outcome::NotRun { reason }) => ("NOT RUN", reason.as_str()),
            Err(error) => {
                failed += 1;
                ("FAILED", error.lines().next().unwrap_or_default())
            }
        };
        table += &format!("{name:<18} {word:<8} {:>7.1} s  {note}\n", time.as_secs_f64());
    }
    table += &format!("{:<18} {:<8} {:>7.1} s\n\n{passed} passed, {failed} failed", "all", "", total.as_secs_f64());
    (table, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &'static str, result: Result<Outcome, String>) -> PartResult {
        PartResult { name, time: Duration::from_millis(1500), result }
    }

    #[test]
    fn the_closing_line_counts() {
        let results = [
            result("a", Ok(Outcome::Passed { count: 40, note: "40 tests".into() })),
            result("b", Ok(Outcome::passed(""))),
            result("c", Ok(Outcome::NotRun { reason: "no std".into() })),
            result("d", Err("broken\nlong story".into())),
        ];
        let (table, failed) = report(&results, Duration::from_secs(6));
        assert_eq!((table.lines().last(), failed), (Some("41 passed, 1 failed"), 1));
        assert!(table.contains("NOT RUN      1.5 s  no std") && !table.contains("long story"), "{table}");
    }
}
