//! One trace of several servers, and what other programs say of it: the real model on the CPU, and the tiny one on the
//! GPU in software, with CUPTI's records. The recordings are those of parts `profile-serve` and `cuda-serve`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::acceptance::{self, hta_trace, lint_trace, perfetto_trace, recording};
use super::{Outcome, Part, cuda_serve};
use crate::tree;

fn trace() -> PathBuf {
    tree::target().join("xtask-test").join("merged.pt.trace.json.gz")
}

/// Merges them, compares the trace with its rules, and one of the recordings with itself.
pub(super) fn merge(part: &Part) -> Result<Outcome, String> {
    let folders = [vec![acceptance::folder()], cuda_serve::folders_by_cupti().into()].concat();
    let recordings = folders.iter().map(|folder| recording(folder, ".vtr")).collect::<Result<Vec<_>, String>>()?;
    fs::remove_file(trace()).ok();
    let mut command = Command::new(tree::vitrum());
    command.args(["profile", "merge"]).args(&recordings).arg("--output").arg(trace());
    part.run("vitrum profile merge", command)?;
    let linted = lint_trace(part, &trace())?;
    let mut diff = Command::new(tree::vitrum());
    diff.args(["profile", "diff", "--by", "node", "--format", "json", "--fail-above", "0"]);
    diff.args([&recordings[0], &recordings[0]]);
    let nodes = judge(&part.run("vitrum profile diff", diff)?)?;
    Ok(Outcome::passed(format!("{} recordings: {linted}; {nodes} nodes do not differ from themselves", folders.len())))
}

/// Of a recording that was compared with itself: nothing changed. Says how many rows there are.
fn judge(text: &str) -> Result<usize, String> {
    let rows: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("no rows: {error}"))?;
    let changed = rows.iter().find(|row| row["Delta (us)"].as_f64() != Some(0.0));
    match changed {
        None if rows.is_empty() => Err("nothing was compared".into()),
        None => Ok(rows.len()),
        Some(row) => Err(format!("a node that differs from itself: {row}")),
    }
}

/// Perfetto reads it without an error.
pub(super) fn perfetto(part: &Part) -> Result<Outcome, String> {
    perfetto_trace(part, &trace()).map(Outcome::passed)
}

/// HolisticTraceAnalysis comes to the same sums.
pub(super) fn hta(part: &Part) -> Result<Outcome, String> {
    hta_trace(part, &trace(), None).map(Outcome::passed)
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn what_differs_from_itself_is_found() {
        assert_eq!(judge(r#"[{"Delta (us)": 0.0}, {"Delta (us)": -0.0}]"#), Ok(2));
        for bad in ["[]", "no JSON", r#"[{"Delta (us)": 0.0}, {"Delta (us)": 0.001}]"#, r#"[{"Op": "embed"}]"#] {
            assert!(judge(bad).is_err(), "{bad} passes");
        }
    }
}
