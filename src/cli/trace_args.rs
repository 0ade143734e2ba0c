//! The flags of every command that records: what times the nodes, and what a record is of.

use std::path::PathBuf;

use clap::Args;

use super::engine_args::{EngineArgs, FlagError};
use crate::device::{DeviceChoice, cuda};
use crate::trace::record::{ENABLED, SOURCE_HELP, parse_source};
use crate::trace::session::{Granularity, TraceSource};

/// How recordings are made.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct TraceArgs {
    #[arg(long, value_name = "SOURCE", value_parser = parse_source, help = SOURCE_HELP)]
    trace_source: Option<TraceSource>,
    /// What a record is of: every `node`, or a whole `graph`, one record for each of its replays [default: node]
    #[arg(long, value_enum)]
    graph_trace: Option<Granularity>,
}

/// A source, with the driver's profiling library prepared if it may be one.
#[derive(Debug)]
pub(super) struct PreparedSource {
    asked: Option<TraceSource>,
    usual: TraceSource,
    /// The library's name, or why there is none; `None`: it was not looked for.
    library: Option<Result<String, String>>,
}

impl TraceArgs {
    /// Whether one of the flags was given.
    pub(super) fn is_given(self) -> bool {
        self.trace_source.is_some() || self.graph_trace.is_some()
    }

    /// What a record is of.
    pub(super) fn granularity(self) -> Granularity {
        self.graph_trace.unwrap_or_default()
    }

    /// Looks for the driver's profiling library, if it may be a source: before anything initialises the driver. On a
    /// GPU, and where the flag is not given, the source is `usual`.
    pub(super) fn prepare(
        self,
        engine: &EngineArgs,
        toolkits: &[PathBuf],
        usual: TraceSource,
    ) -> Result<PreparedSource, FlagError> {
        let asked = self.trace_source;
        if asked.is_some_and(TraceSource::has_activity) && !engine.may_use_gpu() {
            return Err(FlagError::SourceNeedsGpu);
        }
        let is_wanted = ENABLED && engine.may_use_gpu() && asked.unwrap_or(usual).has_activity();
        Ok(PreparedSource { asked, usual, library: is_wanted.then(|| cuda::prepare_activity(toolkits)) })
    }
}

impl PreparedSource {
    /// The source of recordings on a device: what was asked for, else on a GPU what is usual. What will be missing is
    /// said in the log.
    pub(super) fn on(&self, device: DeviceChoice) -> Result<TraceSource, FlagError> {
        if device != DeviceChoice::Cuda {
            let source = self.asked.unwrap_or_default();
            return if source.has_activity() { Err(FlagError::SourceNeedsGpu) } else { Ok(source) };
        }
        match &self.library {
            Some(Ok(library)) => tracing::info!("recordings: {library}"),
            Some(Err(reason)) if self.asked.is_some() => {
                tracing::warn!("recordings will have stamps alone: {reason}");
            }
            Some(Err(reason)) => tracing::info!("recordings will have stamps alone: {reason}"),
            None => {}
        }
        Ok(self.asked.unwrap_or(self.usual))
    }

    /// Whether the nodes of graphs are to be named to the library.
    pub(super) fn names_nodes(&self) -> bool {
        matches!(self.library, Some(Ok(_)))
    }
}
