//! `vitrum template-worker`: what a server starts to have its model's chat template rendered.

use clap::Args;

use super::CommandResult;
use crate::text::{WorkerLimits, run_worker};

/// Renders chat templates.
#[derive(Args, Debug)]
pub(super) struct TemplateWorkerArgs {
    /// Bytes of memory that it may write to
    memory_bytes: u64,
    /// Seconds on a processor that one request may take
    cpu_seconds: u64,
}

pub(super) fn run(args: &TemplateWorkerArgs) -> CommandResult {
    Ok(run_worker(WorkerLimits { memory_bytes: args.memory_bytes, cpu_seconds: args.cpu_seconds })?)
}
