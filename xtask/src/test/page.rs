//! The page of the recording that part `profile-serve` made, in a browser; and of one that was cut off.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::acceptance::{folder, recording};
use super::{Outcome, Part};
use crate::process::output;
use crate::{tools, tree};

pub(super) fn page(part: &Part) -> Result<Outcome, String> {
    let spool = recording(&folder(), ".vtr")?;
    let mut stats = vitrum(&["profile", "stats", "--format", "json"], &spool);
    let tables = output("vitrum profile stats", &mut stats)?;
    let whole = browse(part, "whole", &spool.with_extension("html"), &tables)?;
    let cut = cut(&spool)?;
    let (_, tables) = fails(vitrum(&["profile", "stats", "--format", "json"], &cut))?;
    let (error, page) = fails(vitrum(&["profile", "report"], &cut))?;
    if !error.contains("cut off") {
        return Err(format!("a recording that was cut off is reported with: {error}"));
    }
    let half = browse(part, "cut", Path::new(page.trim_end()), &tables)?;
    Ok(Outcome::passed(format!("{whole}; {half}")))
}

/// Opens a page, and returns what was found in words.
fn browse(part: &Part, name: &str, page: &Path, tables: &str) -> Result<String, String> {
    let stats = part.file(&format!("{name}.json"));
    fs::write(&stats, tables).map_err(|error| format!("{}: {error}", stats.display()))?;
    let mut command = Command::new(tools::node()?);
    command.arg(tree::root().join("xtask/page.mjs")).arg(tools::chromium()?).arg(page).arg(stats);
    command.arg(part.file(name));
    let text = part.run("page.mjs", command)?;
    Ok(text.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// The first half of a recording, beside it.
fn cut(spool: &Path) -> Result<std::path::PathBuf, String> {
    let bytes = fs::read(spool).map_err(|error| format!("{}: {error}", spool.display()))?;
    let path = spool.with_file_name("cut-off.vtr");
    fs::write(&path, &bytes[..bytes.len() / 2]).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn vitrum(arguments: &[&str], spool: &Path) -> Command {
    let mut command = Command::new(tree::vitrum());
    command.args(arguments).arg(spool);
    command
}

/// What a command that has to exit with 1 says: its errors, and its output.
fn fails(mut command: Command) -> Result<(String, String), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let [errors, text] = [output.stderr, output.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.code() == Some(1) { Ok((errors, text)) } else { Err(format!("{command:?}: {}", output.status)) }
}
