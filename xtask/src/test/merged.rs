//! One trace of several servers, and what other programs say of it: the real model on the CPU, and the tiny one on the
//! GPU in software, with CUPTI's records. The recordings are those of parts `profile-serve` and `cuda-serve`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::acceptance::{self, hta_trace, lint_trace, perfetto_trace, recording};
use super::{Outcome, Part, cuda_serve};
use crate::tree;

fn trace() -> PathBuf {
    tree::target().join("xtask-test").join("merged.pt.trace.json.gz")
}

/// Merges them, and compares the trace with its rules.
pub(super) fn merge(part: &Part) -> Result<Outcome, String> {
    let folders = [vec![acceptance::folder()], cuda_serve::folders_by_cupti().into()].concat();
    let recordings = folders.iter().map(|folder| recording(folder, ".vtr")).collect::<Result<Vec<_>, String>>()?;
    fs::remove_file(trace()).ok();
    let mut command = Command::new(tree::vitrum());
    command.args(["profile", "merge"]).args(&recordings).arg("--output").arg(trace());
    part.run("vitrum profile merge", command)?;
    let linted = lint_trace(part, &trace())?;
    Ok(Outcome::passed(format!("{} recordings: {linted}", folders.len())))
}

/// Perfetto reads it without an error.
pub(super) fn perfetto(part: &Part) -> Result<Outcome, String> {
    perfetto_trace(part, &trace()).map(Outcome::passed)
}

/// HolisticTraceAnalysis comes to the same sums.
pub(super) fn hta(part: &Part) -> Result<Outcome, String> {
    hta_trace(part, &trace(), None).map(Outcome::passed)
}
