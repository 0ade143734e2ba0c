//! The first pass over a recording's file: what has to be known before its first window is read, and which block has
//! what.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{Read, Seek};

use super::activity::is_launch;
use super::cuts::{Cut, Cuts};
use super::index::Block;
use super::ring::{Lost, Sieve};
use crate::trace::activity::Activity;
use crate::trace::schema::{CopyStamp, GraphTable, RequestMoment, RequestRecord, is_time};
use crate::trace::session::Closing;
use crate::trace::spool::{Context, Reader, Record, SpoolError};

/// What a recording has in all.
#[derive(Debug)]
pub(in crate::report) struct Survey {
    pub(super) blocks: Vec<Block>,
    pub(super) cuts: Vec<Cut>,
    /// The first step that is kept, in a ring.
    pub(super) first_step: u64,
    /// Graphs that were captured while recording, and before.
    pub(super) graphs: Vec<GraphTable>,
    pub(in crate::report) closing: Option<Closing>,
    pub(in crate::report) lost: Option<Lost>,
    /// Node times that are not behind their replay.
    pub(super) orphans: u64,
    /// First and last moment that any record names.
    pub(in crate::report) moments: Option<(u64, u64)>,
    /// The lowest and the highest number of a replay.
    pub(in crate::report) replays: Option<(u64, u64)>,
    /// Of each graph its first replay's number, and when that was launched.
    pub(in crate::report) first_of: BTreeMap<u32, (u64, u64)>,
    /// Requests that were there before the recording.
    pub(in crate::report) elders: BTreeSet<u64>,
    pub(in crate::report) steps: u64,
    /// Records of nodes by the driver's profiling library, and its valid copies.
    pub(super) seen_nodes: u64,
    pub(super) seen_copies: u64,
    pub(super) has_calls: bool,
    /// The engine's thread made launches under its own number.
    pub(super) has_own_launch: bool,
}

impl Survey {
    /// Reads a whole file. `go_on` is asked before each of its blocks.
    pub(super) fn of<R: Read + Seek, E: From<SpoolError>>(
        reader: &mut Reader<R>,
        window_records: u64,
        go_on: impl Fn() -> Result<(), E>,
    ) -> Result<Survey, E> {
        let header = reader.header();
        let (engine_tid, graphs) = (header.session.engine_tid, header.graphs.clone());
        let mut surveyor = Surveyor {
            sieve: Sieve::default(),
            cuts: Cuts::new(window_records),
            known: KnownRequests::default(),
            engine_tid,
            survey: Survey::nothing(graphs),
        };
        while let Some((record, context)) = reader.read_in_context()? {
            if surveyor.is_new_block(&context) {
                go_on()?;
            }
            surveyor.take(record, &context);
        }
        Ok(surveyor.end())
    }

    fn nothing(graphs: Vec<GraphTable>) -> Survey {
        Survey {
            blocks: Vec::new(),
            cuts: Vec::new(),
            first_step: 0,
            graphs,
            closing: None,
            lost: None,
            orphans: 0,
            moments: None,
            replays: None,
            first_of: BTreeMap::new(),
            elders: BTreeSet::new(),
            steps: 0,
            seen_nodes: 0,
            seen_copies: 0,
            has_calls: false,
            has_own_launch: false,
        }
    }

    fn moment(&mut self, start_ns: u64, end_ns: u64) {
        let (first, last) = self.moments.unwrap_or((u64::MAX, 0));
        self.moments = Some((first.min(start_ns), last.max(end_ns).max(start_ns)));
    }

    fn activity(&mut self, activity: &Activity, engine_tid: u32) {
        let times = match activity {
            Activity::Node(node) => {
                self.seen_nodes += 1;
                (node.start_ns, node.end_ns)
            }
            Activity::Copy(copy) => {
                self.seen_copies += u64::from(is_time(copy.start_ns, copy.end_ns));
                (copy.start_ns, copy.end_ns)
            }
            Activity::Call(call) => {
                self.has_calls = true;
                let is_valid = is_time(call.start_ns, call.end_ns);
                self.has_own_launch |= is_valid && is_launch(call) && call.thread == engine_tid;
                (call.start_ns, call.end_ns)
            }
            Activity::Overhead(overhead) => (overhead.start_ns, overhead.end_ns),
        };
        if is_time(times.0, times.1) {
            self.moment(times.0, times.1);
        }
    }
}

struct Surveyor {
    sieve: Sieve,
    cuts: Cuts,
    known: KnownRequests,
    engine_tid: u32,
    survey: Survey,
}

impl Surveyor {
    /// Whether the record is the first of a block of records.
    fn is_new_block(&mut self, context: &Context) -> bool {
        let Some(place) = context.place else { return false };
        let is_new = self.survey.blocks.last().is_none_or(|last| !last.place.is(&place));
        if is_new {
            self.survey.blocks.push(Block::new(place));
        }
        is_new
    }

    fn take(&mut self, record: Record<'_>, context: &Context) {
        if !self.sieve.keeps(&record, context.seam) {
            return;
        }
        let step = self.sieve.owner().map(|owner| owner.step);
        let Surveyor { cuts, known, engine_tid, survey, .. } = self;
        if let Some(block) = survey.blocks.last_mut().filter(|_| context.place.is_some()) {
            block.note(&record, step);
        }
        cuts.count(if let Record::Nodes { stamps, .. } = &record { stamps.len() as u64 } else { 1 });
        match record {
            Record::Graph(table) => survey.graphs.push(table),
            Record::Step(step) => {
                survey.steps += 1;
                cuts.step(&step);
                survey.moment(step.start_ns, step.end_ns.max(step.done_ns));
                let copies = [step.copies.upload, step.copies.download];
                copies
                    .iter()
                    .filter(|copy| CopyStamp::is_valid(copy))
                    .for_each(|c| survey.moment(c.start_ns, c.end_ns));
            }
            Record::Member(member) => known.member(member.request, &mut survey.elders),
            Record::Span(span) => survey.moment(span.start_ns, span.end_ns),
            Record::Request(request) => {
                known.moment(&request, &mut survey.elders);
                survey.moment(request.at_ns, request.at_ns);
            }
            Record::Name { .. } => {}
            Record::Replay(replay) => {
                cuts.replay(&replay);
                survey.moment(replay.launch_start_ns, replay.launch_end_ns);
                let number = replay.replay;
                let (first, last) = survey.replays.unwrap_or((number, number));
                survey.replays = Some((first.min(number), last.max(number)));
                let first = survey.first_of.entry(replay.graph).or_insert((number, replay.launch_start_ns));
                if number < first.0 {
                    *first = (number, replay.launch_start_ns);
                }
            }
            Record::Nodes { stamps, .. } => {
                step.into_iter().for_each(|step| cuts.nodes(step, stamps));
                let valid = stamps.iter().filter(|stamp| stamp.is_valid());
                valid.for_each(|stamp| survey.moment(stamp.start_ns, stamp.end_ns));
            }
            Record::Activity(activity) => survey.activity(&activity, *engine_tid),
            Record::Closing(closing) => survey.closing = Some(*closing),
        }
    }

    fn end(self) -> Survey {
        let Surveyor { sieve, cuts, mut survey, .. } = self;
        survey.graphs.sort_by_key(|graph| graph.id);
        survey.graphs.dedup_by_key(|graph| graph.id);
        survey.first_step = sieve.first_step();
        // Node times behind another replay than theirs are told from others only where every block is read.
        survey.cuts = if sieve.has_strays() { vec![Cut { step: 0, at_ns: 0 }] } else { cuts.clean() };
        (survey.lost, survey.orphans) = sieve.end();
        survey
    }
}

/// So many requests that have ended are remembered: their last batch may be written down behind their end.
const ENDED_MAX: usize = 1 << 14;

/// Requests as they come by: those that are running, and the last ones that were.
#[derive(Debug, Default)]
struct KnownRequests {
    running: HashSet<u64>,
    ended: HashSet<u64>,
    ended_in_order: VecDeque<u64>,
}

impl KnownRequests {
    fn member(&mut self, request: u64, elders: &mut BTreeSet<u64>) {
        if !self.ended.contains(&request) && self.running.insert(request) {
            elders.insert(request);
        }
    }

    fn moment(&mut self, record: &RequestRecord, elders: &mut BTreeSet<u64>) {
        let request = record.request;
        let is_new = self.running.insert(request) && !self.ended.contains(&request);
        match record.moment {
            // Its first moment, though a batch with it was written down before.
            RequestMoment::Queued => _ = elders.remove(&request),
            _ if is_new => _ = elders.insert(request),
            _ => {}
        }
        if matches!(record.moment, RequestMoment::Finished | RequestMoment::Aborted) {
            self.running.remove(&request);
            if self.ended.insert(request) {
                self.ended_in_order.push_back(request);
            }
            if self.ended_in_order.len() > ENDED_MAX
                && let Some(oldest) = self.ended_in_order.pop_front()
            {
                self.ended.remove(&oldest);
            }
        }
    }
}
