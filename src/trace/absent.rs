//! The recorder of a build without feature `profiling`: the same functions on a type that has no values. An
//! `Option<Recorder>` is always `None`, so the compiler removes what would be done with one.

use std::path::Path;

use super::schema::{GraphTable, HostSpan, MemberRecord, NodeStamp, ReplayRecord, RequestRecord, StepRecord};
use super::session::{Expected, RecordError, SessionHeader, SessionOptions, SpoolSummary};
use crate::request::StepId;

/// Whether this build can record.
pub const ENABLED: bool = false;

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

    /// Whether to stamp a step's nodes.
    #[inline(always)]
    pub fn wants_step(&mut self, _: StepId) -> bool {
        match *self {}
    }

    /// A graph captured while the recording runs.
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

    /// A replay and its nodes' times.
    #[inline(always)]
    pub fn replay(&mut self, _: &ReplayRecord, _: &[NodeStamp]) {
        match *self {}
    }

    /// Ends the recording.
    #[inline(always)]
    pub fn stop(self, _: Expected) -> Result<SpoolSummary, RecordError> {
        match self {}
    }
}
