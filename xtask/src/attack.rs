//! `cargo xtask attack`: hostile clients, models, templates, files and environments against a release build of
//! `vitrum`, over loopback only, each bounded in count and time.
//!
//! Every attack says what has to hold and gives a figure. The table of them is docs/reliability.md. Servers run in
//! process groups that end with the attack that started them; attacking threads give way to every other, so that what
//! an answer waits for is the server's doing and not the attacker's use of the cores.

mod bodies;
mod clients;
mod commands;
mod connections;
mod crowd;
mod drains;
mod gguf;
mod logs;
mod models;
mod pages;
mod protocol;
mod templates;
mod victim;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{process, tree};
use victim::Ground;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only attacks whose names begin with one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// The program to attack [default: the release build, which is made first]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Name the attacks with what has to hold, as docs/reliability.md has them, and stop
    #[arg(long)]
    list: bool,
}

/// Descriptors that the attack by idle connections needs, beside a few others.
const DESCRIPTORS: u64 = 4128 + 256;

/// What an attack found, in words: with `Ok` what has to hold did.
type Finding = Result<String, String>;

/// One attack.
struct Attack {
    name: &'static str,
    /// What is tried.
    tries: &'static str,
    /// What has to hold, with its limit.
    holds: &'static str,
    run: Box<dyn Fn(&Ground) -> Finding>,
}

impl Attack {
    fn new(
        name: &'static str,
        tries: &'static str,
        holds: &'static str,
        run: impl Fn(&Ground) -> Finding + 'static,
    ) -> Attack {
        Attack { name, tries, holds, run: Box::new(run) }
    }
}

/// Every attack, by kind.
fn all() -> Vec<Attack> {
    let kinds = [
        logs::attacks(),
        commands::attacks(),
        bodies::attacks(),
        clients::attacks(),
        pages::attacks(),
        templates::attacks(),
        connections::attacks(),
        drains::attacks(),
        models::attacks(),
        protocol::attacks(),
    ];
    kinds.into_iter().flatten().collect()
}

pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut attacks = all();
    if let Some(unknown) = args.only.iter().find(|only| !attacks.iter().any(|attack| attack.name.starts_with(*only))) {
        return Err(format!("no attack's name begins with {unknown}: see --list").into());
    }
    attacks.retain(|attack| args.only.is_empty() || args.only.iter().any(|only| attack.name.starts_with(only)));
    if args.list {
        attacks.iter().for_each(|attack| println!("{}", row(attack)));
        return Ok(());
    }
    let binary = match &args.binary {
        Some(path) => path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?,
        None => build()?,
    };
    let descriptors = process::raise_descriptor_limit()?;
    if descriptors < DESCRIPTORS {
        return Err(format!("this process may open {descriptors} files, and the attacks need {DESCRIPTORS}").into());
    }
    let ground = Ground::new(binary)?;
    let start = Instant::now();
    let failed = attacks.iter().filter(|attack| !attempt(attack, &ground)).count();
    ground.clear();
    println!("\n{} held, {failed} failed, in {:.0} s", attacks.len() - failed, start.elapsed().as_secs_f64());
    if failed > 0 { Err("an attack succeeded".into()) } else { Ok(()) }
}

fn build() -> Result<PathBuf, String> {
    let args = ["build", "--release", "-p", "vitrum", "--bin", "vitrum", "--features", "profiling"];
    process::run("cargo build", tree::cargo(&args), std::io::stderr())?;
    Ok(tree::vitrum())
}

/// Makes an attack and prints its row; whether what has to hold did.
fn attempt(attack: &Attack, ground: &Ground) -> bool {
    let start = Instant::now();
    let finding = (attack.run)(ground);
    let (word, figure) = match &finding {
        Ok(figure) => ("held", figure.as_str()),
        Err(why) => ("FAILED", why.as_str()),
    };
    println!("{:<26} {word:<6} {:>6.1} s  {}", attack.name, start.elapsed().as_secs_f64(), figure.replace('\n', " | "));
    finding.is_ok()
}

/// The row of docs/reliability.md, which goes on with what was measured.
fn row(attack: &Attack) -> String {
    format!("| `{}` | {} | {} |", attack.name, attack.tries, attack.holds)
}

/// An error for what took longer than it may.
fn within(what: &str, took: Duration, limit: Duration) -> Finding {
    let words = format!("{what} {:.2} s", took.as_secs_f64());
    if took <= limit { Ok(words) } else { Err(format!("{words}, at most {:.1} s", limit.as_secs_f64())) }
}

/// Writes a file, or says which could not be written.
fn write(path: &std::path::Path, bytes: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "## What `cargo xtask attack` tries";

    #[test]
    fn the_documentation_has_every_attack_and_no_other() {
        let path = tree::root().join("docs").join("reliability.md");
        let text = fs::read_to_string(&path).expect("docs/reliability.md");
        let section = text.split_once(SECTION).expect("the section of the attacks").1;
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        let written: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let rows: Vec<String> = all().iter().map(row).collect();
        assert_eq!(written.len(), rows.len(), "`cargo xtask attack --list` prints the rows");
        for (written, row) in written.iter().zip(&rows) {
            assert!(written.starts_with(row), "{written}\nis to begin with\n{row}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let attacks = all();
        for (index, attack) in attacks.iter().enumerate() {
            assert!(attacks[..index].iter().all(|other| other.name != attack.name), "{} twice", attack.name);
        }
    }
}
