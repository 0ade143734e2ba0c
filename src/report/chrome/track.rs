//! All lanes of one recording, filled window by window, and what all windows came to.

use std::io::{self, Read, Seek, Write};

use super::calls::{self, OtherThreads};
use super::engine;
use super::events::Events;
use super::lanes::{Lanes, Nesting};
use super::nodes::DeviceLanes;
use super::ranges::RangeLane;
use super::requests;
use crate::report::account::Accounting;
use crate::report::completeness::{Found, Whole};
use crate::report::layout::Layout;
use crate::report::lives::Lives;
use crate::report::model::{Window, Windows};
use crate::report::perturbation::Pairs;
use crate::report::stats::SourceComparison;
use crate::report::{Account, Completeness, Perturbation};

/// What a recording came to in a trace.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether the recording holds what the engine counted.
    pub completeness: Completeness,
    /// Where the steps' time went, without the account of each step.
    pub account: Account,
    /// What recording cost, if the recording was toggled.
    pub perturbation: Option<Perturbation>,
    /// Set where two sources timed the same nodes.
    pub source_comparison: Option<SourceComparison>,
    /// Steps in the trace.
    pub steps: u64,
    /// Node times in it.
    pub nodes: u64,
    /// Parts of the recording that were in memory one after the other.
    pub windows: u64,
    /// Slices that came out of the order of time.
    pub late: u64,
}

pub(super) struct Track {
    engine: Lanes,
    threads: OtherThreads,
    device: DeviceLanes,
    ranges: [RangeLane; 2],
    overheads: Lanes,
    lives: Lives,
    found: Found,
    accounting: Accounting,
    /// Of a toggled recording.
    pairs: Option<Pairs>,
    nodes: u64,
    windows: u64,
}

impl Track {
    pub(super) fn new<R: Read + Seek>(windows: &Windows<'_, R>, layout: &Layout) -> Track {
        let recording = windows.recording();
        Track {
            engine: Lanes::new(Nesting::Nested),
            threads: OtherThreads::new(),
            device: DeviceLanes::new(&recording.graphs, layout),
            ranges: [RangeLane::layers(), RangeLane::steps()],
            overheads: Lanes::new(Nesting::Nested),
            lives: Lives::new(windows.survey(), recording.span()),
            found: Found::default(),
            accounting: Accounting::default(),
            pairs: recording.header.toggle_seed.map(|_| Pairs::default()),
            nodes: 0,
            windows: 0,
        }
    }

    pub(super) fn write<W: Write>(
        &mut self,
        window: &Window<'_>,
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let recording = window.recording;
        self.found.add(recording);
        self.accounting.add(recording, |_| ());
        self.pairs.iter_mut().for_each(|pairs| pairs.add(recording));
        self.nodes += recording.nodes.len() as u64;
        self.windows += 1;
        let has_copies = calls::has_copies(recording);
        engine::engine_thread(recording, &has_copies, layout, &mut self.engine, events)?;
        self.threads.write(recording, &has_copies, layout, events)?;
        self.device.write(window, layout, events)?;
        self.ranges.iter_mut().try_for_each(|lane| lane.write(window, layout, events))?;
        calls::overheads(recording, layout, &mut self.overheads, events)?;
        self.lives.window(window, |life, lane| requests::write(life, lane, layout, events))
    }

    /// Writes what is known at the end alone.
    pub(super) fn end<R: Read + Seek, W: Write>(
        mut self,
        windows: &Windows<'_, R>,
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<Summary> {
        self.lives.end(|life, lane| requests::write(life, lane, layout, events))?;
        engine::end_engine_thread(layout, &self.engine, events)?;
        self.threads.end(layout, events)?;
        self.device.end(layout, events)?;
        calls::end_overheads(layout, &self.overheads, events)?;
        requests::end(self.lives.lanes(), layout, events)?;
        let lanes = self.engine.late() + self.threads.late() + self.device.late() + self.overheads.late();
        let late = lanes + self.lives.late() + self.ranges.iter().map(|lane| lane.late).sum::<u64>();
        let (recording, survey) = (windows.recording(), windows.survey());
        let [orphans, unresolved, unlaunched_copies] = windows.left_over();
        let whole = Whole {
            header: &recording.header,
            graphs: &recording.graphs,
            closing: survey.closing.as_ref(),
            lost: survey.lost.as_ref(),
            orphans,
            unresolved,
            unlaunched_copies,
        };
        Ok(Summary {
            completeness: Completeness::new(&self.found, &whole),
            account: self.accounting.account,
            perturbation: self.pairs.and_then(Pairs::compare),
            source_comparison: self.device.comparison.end().remove(&()),
            steps: survey.steps,
            nodes: self.nodes,
            windows: self.windows,
            late,
        })
    }
}
