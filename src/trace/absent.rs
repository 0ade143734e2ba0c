//! The recorder of a build without feature `profiling`: the same functions on types that have no values. An
//! `Option<Recorder>` is always `None`, so the compiler removes what would be done with one.

use std::ffi::c_void;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::activity::Watched;
use super::progress::Progress;
use super::sample::{By, NodeTimeSeries, SampleReading, SampleTotals};
use super::schema::{
    GraphKey, GraphTable, HostSpan, MemberRecord, NodeSources, NodeStamp, ReplayRecord, RequestRecord, StepRecord,
    StepSizes,
};
use super::session::{
    Expected, RecordError, SessionHeader, SessionOptions, SessionPeaks, SessionSources, SpoolSummary, TraceSource,
};
use crate::request::StepId;

/// Whether this build can record.
pub const ENABLED: bool = false;

/// What the driver's profiling library is called.
pub const ACTIVITY_NAME: &str = "profiling library";

/// What the flag for sources says of itself.
pub const SOURCE_HELP: &str = "Refused: this build has no recorder";

/// No word names a source.
pub fn parse_source(_: &str) -> Result<TraceSource, String> {
    Err(RecordError::NotCompiledIn.to_string())
}

/// The driver's profiling library, which is not used.
#[derive(Clone, Copy, Debug)]
pub enum ActivityLibrary {}

impl ActivityLibrary {
    /// Refuses.
    #[inline(always)]
    pub fn prepare(_: &[PathBuf], _: fn() -> u64) -> Result<ActivityLibrary, String> {
        Err(RecordError::NotCompiledIn.to_string())
    }

    /// There is none.
    #[inline(always)]
    pub fn get() -> Result<ActivityLibrary, String> {
        Err(RecordError::NotCompiledIn.to_string())
    }

    /// Begins to keep its records in memory.
    #[inline(always)]
    pub fn watch(&self) -> Result<Watch, String> {
        match *self {}
    }

    /// Its name and version.
    #[inline(always)]
    pub fn library(&self) -> String {
        match *self {}
    }

    /// The id of a node.
    ///
    /// # Safety
    /// It cannot be called.
    #[inline(always)]
    pub unsafe fn node_id(&self, _: *mut c_void) -> u64 {
        match *self {}
    }

    /// What a node has for an id that nobody can ask for.
    #[inline(always)]
    pub fn unnamed(&self, _: &str) -> u64 {
        match *self {}
    }

    /// Makes the nodes of a graph known.
    ///
    /// # Safety
    /// It cannot be called.
    #[inline(always)]
    pub unsafe fn know(&self, _: *mut c_void, _: u32, _: Vec<u64>) -> KnownGraph {
        match *self {}
    }
}

/// A graph whose nodes are known, of which there is none.
#[derive(Debug)]
pub enum KnownGraph {}

impl KnownGraph {
    /// The ordinal of the node that has this id in the executable graph.
    #[inline(always)]
    pub fn in_executable(&self, _: u64) -> Option<u32> {
        match *self {}
    }

    /// The ordinal of the node that had this id when it was captured.
    #[inline(always)]
    pub fn at_capture(&self, _: u64) -> Option<u32> {
        match *self {}
    }
}

/// Records that are kept in memory, of which there are none.
#[derive(Debug)]
pub enum Watch {}

impl Watch {
    /// Ends it.
    #[inline(always)]
    pub fn stop(self) -> Watched {
        match self {}
    }
}

/// A recording under way, of which there is none.
#[derive(Debug)]
pub enum Recorder {}

impl Recorder {
    /// Refuses, and says how to get a build that records.
    #[inline(always)]
    pub fn start(_: &SessionOptions, _: &SessionHeader, _: &[&GraphTable]) -> Result<Recorder, RecordError> {
        Err(RecordError::NotCompiledIn)
    }

    /// The recording's name.
    #[inline(always)]
    pub fn id(&self) -> &str {
        match *self {}
    }

    /// The recording's file.
    #[inline(always)]
    pub fn path(&self) -> &Path {
        match *self {}
    }

    /// What times the nodes.
    #[inline(always)]
    pub fn sources(&self) -> &SessionSources {
        match *self {}
    }

    /// How far it is.
    #[inline(always)]
    pub fn progress(&self) -> &Arc<Progress> {
        match *self {}
    }

    /// The profiling library records from here on.
    #[inline(always)]
    pub fn begin(&mut self) -> Result<(), String> {
        match *self {}
    }

    /// What is to time a step's nodes.
    #[inline(always)]
    pub fn wants_step(&mut self, _: StepId) -> NodeSources {
        match *self {}
    }

    /// Whether there is no room.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        match *self {}
    }

    /// A graph that is going to be replayed.
    #[inline(always)]
    pub fn graph(&mut self, _: &GraphTable) {
        match *self {}
    }

    /// A step.
    #[inline(always)]
    pub fn step(&mut self, _: &StepRecord) {
        match *self {}
    }

    /// A row of a batch's composition.
    #[inline(always)]
    pub fn member(&mut self, _: &MemberRecord) {
        match *self {}
    }

    /// A host phase.
    #[inline(always)]
    pub fn span(&mut self, _: &HostSpan) {
        match *self {}
    }

    /// A moment of a request.
    #[inline(always)]
    pub fn request(&mut self, _: &RequestRecord) {
        match *self {}
    }

    /// A request's name.
    #[inline(always)]
    pub fn name(&mut self, _: u64, _: &str) {
        match *self {}
    }

    /// What is launched from now on is not seen.
    #[inline(always)]
    pub fn quiesce(&mut self) {
        match *self {}
    }

    /// A replay and its nodes' times.
    #[inline(always)]
    pub fn replay(&mut self, _: &ReplayRecord, _: &[NodeStamp]) {
        match *self {}
    }

    /// Ends a recording that has not begun.
    #[inline(always)]
    pub fn discard(self) {
        match self {}
    }

    /// Ends the recording.
    #[inline(always)]
    pub fn stop(self, _: Expected) -> Result<SpoolSummary, RecordError> {
        match self {}
    }
}

/// Decides which steps are timed for as long as a server runs. There is none.
#[derive(Debug)]
pub enum Sampler {}

impl Sampler {
    /// Refuses, and says how to get a build that samples.
    #[inline(always)]
    pub fn start(_: NonZeroU32, _: u64) -> Result<Sampler, RecordError> {
        Err(RecordError::NotCompiledIn)
    }

    /// The histograms.
    #[inline(always)]
    pub fn samples(&self) -> Samples {
        match *self {}
    }

    /// A graph was captured.
    #[inline(always)]
    pub fn know(&mut self, _: &GraphTable) {
        match *self {}
    }

    /// The device's roofs were measured.
    #[inline(always)]
    pub fn set_peaks(&self, _: SessionPeaks) {
        match *self {}
    }

    /// What is to time the next step's nodes.
    #[inline(always)]
    pub fn decide(&mut self, _: Option<NodeSources>) -> NodeSources {
        match *self {}
    }

    /// A step was submitted.
    #[inline(always)]
    pub fn submitted(&mut self, _: StepId, _: NodeSources, _: (StepSizes, u64), _: [Option<&GraphTable>; 2]) {
        match *self {}
    }

    /// The engine waits.
    #[inline(always)]
    pub fn paused(&mut self) {
        match *self {}
    }

    /// A step's tokens have been read.
    #[inline(always)]
    pub fn finished(&mut self, _: StepId, _: &[NodeStamp], _: u64) {
        match *self {}
    }
}

/// Histograms, of which there are none.
#[derive(Clone, Debug)]
pub enum Samples {}

impl Samples {
    /// Everything that was sampled.
    #[inline(always)]
    pub fn read(&self, _: By, _: Option<GraphKey>) -> SampleReading {
        match *self {}
    }

    /// Empties the histograms.
    #[inline(always)]
    pub fn reset(&self) -> u64 {
        match *self {}
    }

    /// Counts since the start.
    #[inline(always)]
    pub fn totals(&self) -> SampleTotals {
        match *self {}
    }

    /// Node times by op and kind of graph.
    #[inline(always)]
    pub fn series(&self) -> Vec<NodeTimeSeries> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_recorder() {
        let options = SessionOptions::new("/");
        let refusal = Recorder::start(&options, &SessionHeader::default(), &[]).expect_err("no recorder");
        assert!(refusal.to_string().contains("rebuild with --features profiling"), "{refusal}");
        assert_eq!(size_of::<Option<Recorder>>(), 0, "holding none takes no room");
        let refusal = Sampler::start(NonZeroU32::MIN, 1).expect_err("no sampler");
        assert!(refusal.to_string().contains("rebuild with --features profiling"), "{refusal}");
        assert_eq!(size_of::<Option<Sampler>>() + size_of::<Option<Samples>>(), 0);
    }
}
