//! A recording as one window of consecutive steps after the other, each resolved as a whole recording is, in memory
//! that depends on the window alone.
//!
//! The file is read twice and more: once to see which block has what ([`Survey`]), then for each window the blocks that
//! have something of it. Of a recording as it is written those are neighbours; where records come late, as those of the
//! driver's profiling library do, they are found by their index, however late they are. Windows are cut where the
//! recording comes apart cleanly ([`super::cuts`]); one that does not is one window.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::activity::KnownCalls;
use super::index::{Bounds, Correlations};
use super::resolve::Raw;
use super::survey::Survey;
use super::{NODES_MAX, Recording, Seen};
use crate::report::ReportError;
use crate::trace::activity::Activity;
use crate::trace::schema::{RequestMoment, is_time};
use crate::trace::spool::{Reader, Record, SpoolHeader};

/// Records of a window, node times among them, at least: a window takes some 150 bytes for each.
pub const WINDOW_RECORDS: u64 = 1 << 16;

/// A recording's windows.
#[derive(Debug)]
pub struct Windows<'c, R> {
    path: PathBuf,
    reader: Reader<R>,
    survey: Survey,
    /// The window that was read last.
    recording: Recording,
    next: usize,
    known: KnownCalls,
    /// Of the calls of the windows so far.
    correlations: Correlations,
    /// Of the profiling library's nodes those that are some window's; copies in the same way.
    taken: [u64; 2],
    cancel: &'c AtomicBool,
}

/// A window.
#[derive(Debug)]
pub(in crate::report) struct Window<'a> {
    /// Steps of the window and what belongs to them; phases, calls, overheads and moments of its time.
    pub(in crate::report) recording: &'a Recording,
    /// Where the next one begins; `None`: it is the last.
    pub(in crate::report) until_ns: Option<u64>,
}

impl<'c> Windows<'c, BufReader<File>> {
    /// Surveys a file. Once `cancel` is set, this and everything else here is an error.
    pub fn open(path: &Path, cancel: &'c AtomicBool) -> Result<Windows<'c, BufReader<File>>, ReportError> {
        let reader = Reader::open(path).map_err(|source| ReportError::Spool { path: path.into(), source })?;
        Windows::new(path, reader, WINDOW_RECORDS, cancel)
    }
}

impl<'c, R: Read + Seek> Windows<'c, R> {
    /// The same of a reader that has read nothing; `path` is what errors name, and windows have so many records at
    /// least.
    pub fn new(
        path: &Path,
        mut reader: Reader<R>,
        window_records: u64,
        cancel: &'c AtomicBool,
    ) -> Result<Windows<'c, R>, ReportError> {
        let survey = Survey::of(&mut reader, window_records, || check(cancel)).map_err(|error| error.at(path))?;
        let mut recording = Recording::empty(reader.header().clone());
        recording.graphs.clone_from(&survey.graphs);
        recording.moments = survey.moments;
        let known = KnownCalls { has_own_launch: survey.has_own_launch, ..KnownCalls::default() };
        let mut windows = Windows {
            path: path.into(),
            reader,
            survey,
            recording,
            next: 0,
            known,
            correlations: Correlations::default(),
            taken: [0; 2],
            cancel,
        };
        windows.find_engine_thread()?;
        Ok(windows)
    }

    /// Where the engine's thread is not known by its number, its first launch tells.
    fn find_engine_thread(&mut self) -> Result<(), ReportError> {
        if !self.survey.has_calls || self.survey.has_own_launch {
            return Ok(());
        }
        while self.known.engine_thread.is_none() && self.load()? {
            let launch = self.recording.seen.calls.iter().find(|call| call.replay.is_some());
            self.known.engine_thread = launch.map(|call| call.record.thread);
        }
        (self.next, self.correlations, self.taken) = (0, Correlations::default(), [0; 2]);
        Ok(())
    }

    /// What the recording begins with.
    pub fn header(&self) -> &SpoolHeader {
        &self.recording.header
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.survey.cuts.len()
    }

    pub(in crate::report) fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Header and graphs, and of the rest what the last window had.
    pub(in crate::report) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Behind the last window: node times without a replay, nodes of the profiling library without one, and copies
    /// without a call, all but the orphans that windows had.
    pub(in crate::report) fn left_over(&self) -> [u64; 3] {
        let Survey { orphans, seen_nodes, seen_copies, .. } = self.survey;
        let [nodes, copies] = self.taken;
        [orphans, seen_nodes.saturating_sub(nodes), seen_copies.saturating_sub(copies)]
    }

    /// The next window.
    pub(in crate::report) fn next(&mut self) -> Result<Option<Window<'_>>, ReportError> {
        let is_there = self.load()?;
        let until_ns = self.survey.cuts.get(self.next).map(|cut| cut.at_ns);
        Ok(is_there.then_some(Window { recording: &self.recording, until_ns }))
    }

    fn load(&mut self) -> Result<bool, ReportError> {
        let Some(cut) = self.survey.cuts.get(self.next).copied() else { return Ok(false) };
        let end = self.survey.cuts.get(self.next + 1);
        let steps = Bounds::between(
            cut.step.max(self.survey.first_step),
            end.map_or(u64::MAX, |end| end.step.saturating_sub(1)),
        );
        let times = Bounds::between(cut.at_ns, end.map_or(u64::MAX, |end| end.at_ns.saturating_sub(1)));
        self.clear();
        let mut raw = Raw::default();
        self.read_records(&mut raw, &steps, &times)?;
        let own = self.own_correlations(&raw);
        let loaded = self.read_activity(&mut raw, &own)?;
        self.read_names(&steps, &times)?;
        self.recording.resolve(raw, &self.known);
        self.taken[0] += loaded.saturating_sub(self.recording.seen.unresolved);
        self.taken[1] += self.recording.seen.copies.len() as u64;
        self.next += 1;
        Ok(true)
    }

    fn clear(&mut self) {
        let recording = &mut self.recording;
        recording.steps.clear();
        recording.members.clear();
        recording.spans.clear();
        recording.requests.clear();
        recording.names.clear();
        recording.replays.clear();
        recording.nodes.clear();
        recording.nodes_by_start.clear();
        recording.orphans = 0;
        recording.seen = Seen::default();
    }

    /// Everything but what calls name.
    fn read_records(&mut self, raw: &mut Raw, steps: &Bounds, times: &Bounds) -> Result<(), ReportError> {
        let Windows { survey, reader, recording, .. } = self;
        // The replay whose node times may follow. In blocks between two of its own there is none.
        let mut open = None;
        for block in survey.blocks.iter().filter(|block| block.steps.meets(steps) || block.times.meets(times)) {
            check(self.cancel).map_err(|error| error.at(&self.path))?;
            let each = |record: Record<'_>| {
                let is_own = match &record {
                    Record::Step(step) => steps.has(step.step),
                    Record::Member(member) => steps.has(member.step),
                    Record::Span(span) => times.has(span.start_ns) && span.step >= survey.first_step,
                    Record::Request(request) => times.has(request.at_ns),
                    Record::Name { .. } => true,
                    Record::Replay(replay) => {
                        open = steps.has(replay.step).then_some(replay.replay);
                        open.is_some()
                    }
                    Record::Nodes { replay, .. } => open == Some(*replay),
                    Record::Activity(Activity::Call(call)) => {
                        is_time(call.start_ns, call.end_ns) && times.has(call.start_ns)
                    }
                    Record::Activity(Activity::Overhead(overhead)) => times.has(overhead.start_ns),
                    Record::Activity(_) | Record::Graph(_) | Record::Closing(_) => false,
                };
                if is_own {
                    recording.take(record, raw);
                }
            };
            reader.revisit(&block.place, each).map_err(|error| Stop::Spool(error).at(&self.path))?;
            if raw.nodes() > NODES_MAX {
                let (path, limit) = (self.path.clone(), NODES_MAX as u64);
                return Err(ReportError::TooLarge { path, what: "node times that do not come apart by time", limit });
            }
        }
        Ok(())
    }

    /// Of the window's calls, those that no earlier window has, ascending.
    fn own_correlations(&mut self, raw: &Raw) -> Vec<u32> {
        let correlations = raw.activity.correlations();
        let (foreign, own) = correlations.into_iter().partition(|number| self.correlations.has(*number));
        self.known.foreign = foreign;
        let own: Vec<u32> = own;
        own.iter().for_each(|number| self.correlations.add(*number));
        own
    }

    /// Nodes and copies that the window's calls asked for, wherever they stand. Returns how many nodes.
    fn read_activity(&mut self, raw: &mut Raw, own: &[u32]) -> Result<u64, ReportError> {
        let wanted = Bounds::of(own.iter().map(|number| u64::from(*number)));
        let Windows { survey, reader, recording, .. } = self;
        let mut nodes = 0;
        for block in survey.blocks.iter().filter(|block| block.correlations.meets(&wanted)) {
            check(self.cancel).map_err(|error| error.at(&self.path))?;
            let each = |record: Record<'_>| {
                let is_own = |correlation: u32| own.binary_search(&correlation).is_ok();
                let is_wanted = match &record {
                    Record::Activity(Activity::Node(node)) => {
                        let is_own = is_own(node.correlation);
                        nodes += u64::from(is_own);
                        is_own
                    }
                    Record::Activity(Activity::Copy(copy)) => is_own(copy.correlation),
                    _ => false,
                };
                if is_wanted {
                    recording.take(record, raw);
                }
            };
            reader.revisit(&block.place, each).map_err(|error| Stop::Spool(error).at(&self.path))?;
        }
        Ok(nodes)
    }

    /// What clients call the requests that begin in the window, where that stands in blocks that have nothing else of
    /// it.
    fn read_names(&mut self, steps: &Bounds, times: &Bounds) -> Result<(), ReportError> {
        let Windows { survey, reader, recording, .. } = self;
        let begins = recording.requests.iter().filter(|request| request.moment == RequestMoment::Queued);
        let elders = survey.elders.iter().filter(|_| self.next == 0);
        let begins = begins.map(|request| request.request).chain(elders.copied());
        let mut missing: Vec<u64> = begins.filter(|request| !recording.names.contains_key(request)).collect();
        missing.sort_unstable();
        let wanted = Bounds::of(missing.iter().copied());
        let is_left = |block: &&super::index::Block| !block.steps.meets(steps) && !block.times.meets(times);
        for block in survey.blocks.iter().filter(is_left).filter(|block| block.names.meets(&wanted)) {
            check(self.cancel).map_err(|error| error.at(&self.path))?;
            let each = |record: Record<'_>| {
                if let Record::Name { request, name } = record
                    && missing.binary_search(&request).is_ok()
                {
                    recording.names.insert(request, name);
                }
            };
            reader.revisit(&block.place, each).map_err(|error| Stop::Spool(error).at(&self.path))?;
        }
        Ok(())
    }
}

/// Why reading ended early.
enum Stop {
    Spool(crate::trace::spool::SpoolError),
    Cancelled,
}

impl From<crate::trace::spool::SpoolError> for Stop {
    fn from(error: crate::trace::spool::SpoolError) -> Stop {
        Stop::Spool(error)
    }
}

impl Stop {
    fn at(self, path: &Path) -> ReportError {
        match self {
            Stop::Spool(source) => ReportError::Spool { path: path.into(), source },
            Stop::Cancelled => ReportError::Cancelled { path: path.into() },
        }
    }
}

fn check(cancel: &AtomicBool) -> Result<(), Stop> {
    if cancel.load(Ordering::Relaxed) { Err(Stop::Cancelled) } else { Ok(()) }
}
