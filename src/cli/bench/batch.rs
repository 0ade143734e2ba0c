//! The workload of `vitrum bench latency`: one batch of equal requests on an engine in this process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use thiserror::Error;

use crate::bench::latency::{Iteration, LatencyArgs, NodeTable, Workload};
use crate::engine::{Engine, Profile, ProfileError, StepDone};
use crate::report::{self, Report, Table};
use crate::request::{RequestError, SamplingParams, TokenEvent, TokenId};
use crate::trace::session::SessionOptions;

/// The most steps of a batch whose times are kept.
const STEPS_MAX: usize = 1 << 16;

/// One batch of equal requests.
pub(super) struct Batch {
    engine: Engine,
    args: LatencyArgs,
    /// How to record.
    session: SessionOptions,
    /// The recording that runs.
    profile: Option<Profile>,
    steps: mpsc::Receiver<StepDone>,
}

#[derive(Debug, Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Report(#[from] report::ReportError),
    #[error("a request gave {got} tokens of {expected}")]
    Short { got: usize, expected: usize },
}

impl Batch {
    /// It records as `session` says.
    pub(super) fn new(engine: Engine, args: LatencyArgs, session: SessionOptions) -> Batch {
        let tokens = args.requests().saturating_mul((args.input_len as u64).saturating_add(args.output_len.into()));
        let steps = engine.watch_steps(tokens.min(STEPS_MAX as u64) as usize);
        Batch { engine, args, session, profile: None, steps }
    }

    pub(super) fn shutdown(self) {
        self.engine.shutdown();
    }
}

impl Workload for Batch {
    type Error = BatchError;

    fn iterate(&mut self) -> Result<Iteration, BatchError> {
        let vocab = self.engine.info().model.vocab;
        let count = self.args.requests() as usize;
        let request = |request: usize| {
            // Ids below 10,000, as vLLM's benchmark draws them; different for each prompt, which `n` requests share.
            let prompt = request / self.args.n;
            let token = |i: usize| TokenId(((prompt * 7919 + i * 104_729) % vocab.min(10_000)) as u32);
            let prompt = (0..self.args.input_len).map(token).collect();
            let sampling = SamplingParams {
                temperature: 1.0,
                max_tokens: self.args.output_len,
                ignore_eos: true,
                seed: Some(request as u64),
                ..SamplingParams::default()
            };
            (prompt, sampling)
        };
        let requests: Vec<_> = (0..count).map(request).collect();
        self.steps.try_iter().for_each(drop); // what the last batch left
        let start = Instant::now();
        for mut stream in self.engine.submit_batch(requests)? {
            let mut got = 0;
            while let Some(event) = stream.blocking_next() {
                match event {
                    TokenEvent::Token { last, .. } => {
                        got += 1;
                        if last.is_some() {
                            break;
                        }
                    }
                    TokenEvent::Failed(error) => return Err(error.into()),
                }
            }
            let expected = self.args.output_len as usize;
            if got != expected {
                return Err(BatchError::Short { got, expected });
            }
        }
        // A step is told of before its tokens are sent: those with tokens are all there.
        Ok(Iteration { elapsed: start.elapsed(), steps: self.steps.try_iter().collect() })
    }

    fn read_peak_gb_s(&mut self) -> Result<Option<f64>, BatchError> {
        // The batches have been measured: they are worth something without it.
        let peaks = self.engine.measure_peaks();
        let peaks = peaks.inspect_err(|error| tracing::warn!("the read peak could not be measured: {error}"));
        Ok(peaks.ok().and_then(|peaks| peaks.measured_memory_gb_s()))
    }

    fn start_profile(&mut self) -> Result<(), BatchError> {
        self.profile = Some(self.engine.start_profile(self.session.clone())?);
        Ok(())
    }

    fn stop_profile(&mut self) -> Result<PathBuf, BatchError> {
        let summary = self.profile.take().ok_or(ProfileError::NotRunning)?.stop()?;
        report::render(&summary.path)?;
        Ok(summary.path)
    }

    fn node_table(&mut self, recording: &Path) -> Result<NodeTable, BatchError> {
        let report = Report::load(recording)?;
        let sheet = Table::NodeSum.of(&report);
        let completeness = &report.completeness;
        let shortfall = (!completeness.complete).then(|| completeness.to_string());
        Ok(NodeTable { text: sheet.to_text(), rows: sheet.to_json(), shortfall })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("args", &self.args).finish_non_exhaustive()
    }
}
