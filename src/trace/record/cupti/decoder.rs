//! The thread that decodes: buffers of CUPTI become records of the recording, and are given back.

use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::IDENTITY;
use super::buffers::{self, FullBuffer};
use super::identity::Identity;
use super::library::Cupti;
use super::records::{Records, Seen};
use super::session::Switch;
use crate::trace::activity::{Activity, ActivityCounts};
use crate::trace::record::sink::Sink;
use crate::trace::session::{Counts, RecordedGraph};

/// So many nodes without times, and CUPTI is given up: a known failure after some 25 million records, which does not
/// end by itself. So many that are not known, and none that is: its ids are not those that are looked for.
const USELESS_MAX: u64 = 64;

/// How often buffers are asked for that are not full.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The most errors that are kept, in words.
const ERRORS_MAX: usize = 16;

pub(super) struct Decoder {
    cupti: Cupti,
    /// Of the session; `None` if there is none.
    switch: Option<Switch>,
    sink: Sink,
    counts: ActivityCounts,
    /// Nodes in the file, with and without times, by graph.
    graphs: Vec<[u64; 2]>,
}

/// What came of a session.
#[derive(Debug, Default)]
pub(in crate::trace::record) struct Decoded {
    pub(in crate::trace::record) counts: ActivityCounts,
    pub(in crate::trace::record) written: Counts,
    pub(in crate::trace::record) dropped: Counts,
    /// Nodes in the file, with and without times, by graph.
    graphs: Vec<[u64; 2]>,
}

impl Decoded {
    pub(super) fn failed(why: &str) -> Decoded {
        Decoded {
            counts: ActivityCounts { errors: vec![why.into()], ..ActivityCounts::default() },
            ..Decoded::default()
        }
    }

    /// Nodes that the file had no room for.
    pub(in crate::trace::record) fn lost_nodes(&self) -> u64 {
        self.counts.nodes + self.counts.invalid - self.graphs.iter().flatten().sum::<u64>()
    }

    /// Adds the nodes that were seen to the counts of their graphs.
    pub(in crate::trace::record) fn add_to(&self, graphs: &mut [RecordedGraph]) {
        for graph in graphs {
            if let Some([valid, invalid]) = self.graphs.get(graph.graph as usize) {
                graph.activity += valid;
                graph.activity_invalid += invalid;
            }
        }
    }
}

impl Decoder {
    pub(super) fn new(cupti: &Cupti, switch: Option<Switch>, sink: Sink) -> Decoder {
        Decoder { cupti: *cupti, switch, sink, counts: ActivityCounts::default(), graphs: Vec::new() }
    }

    /// Decodes until the session is over, and every buffer of it that has come back. From time to time it has CUPTI
    /// hand over those that are not full: so little is lost with the process, and trouble is seen soon.
    pub(super) fn run(mut self, buffers: &Receiver<FullBuffer>) -> Decoded {
        let none = Identity::default();
        let mut flushed = Instant::now();
        let take = |decoder: &mut Decoder, mut full: FullBuffer| {
            let identity = IDENTITY.read().unwrap_or_else(PoisonError::into_inner);
            decoder.decode(&mut full, identity.as_ref().unwrap_or(&none));
            drop(identity);
            buffers::give_back(full);
            decoder.give_up_if_useless();
        };
        loop {
            match buffers.recv_timeout(FLUSH_EVERY.saturating_sub(flushed.elapsed())) {
                Ok(full) => take(&mut self, full),
                Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => {
                    let failed = self.switch.as_ref().and_then(Switch::flush_complete);
                    failed.into_iter().for_each(|error| self.note(error));
                    buffers.try_iter().for_each(|full| take(&mut self, full));
                    self.give_up_if_useless();
                    self.sink.hand_over();
                    flushed = Instant::now();
                }
            }
        }
    }

    /// What came of it.
    pub(super) fn end(mut self) -> Decoded {
        self.sink.hand_over();
        let Decoder { sink, mut counts, graphs, .. } = self;
        counts.lost = sink.dropped.activity;
        Decoded { counts, written: sink.written, dropped: sink.dropped, graphs }
    }

    pub(super) fn decode(&mut self, full: &mut FullBuffer, identity: &Identity) {
        self.counts.buffers += 1;
        let (next, has_source_nodes) = (self.cupti.next_record(), self.cupti.has_source_nodes());
        // SAFETY: CUPTI handed the buffer over with so many bytes, and it is this thread's now.
        let mut records = unsafe { Records::new(next, full.buffer.as_mut_ptr(), full.bytes) };
        loop {
            match records.next(identity, has_source_nodes) {
                Ok(Some(seen)) => self.take(seen),
                Ok(None) => break,
                Err(status) => {
                    let error = self.cupti.next_record_error(status);
                    self.note(error.map_or_else(String::new, |error| error.to_string()));
                    break;
                }
            }
        }
    }

    #[inline]
    fn take(&mut self, seen: Seen) {
        let counts = &mut self.counts;
        match seen {
            Seen::Kept(Activity::Node(node)) => {
                let graph = node.graph as usize;
                if self.graphs.len() <= graph {
                    self.graphs.resize(graph + 1, [0; 2]);
                }
                let is_valid = node.is_valid();
                *(if is_valid { &mut counts.nodes } else { &mut counts.invalid }) += 1;
                // Of its graph it counts if it is in the file.
                let is_kept = self.sink.push(&node);
                self.graphs[graph][usize::from(!is_valid)] += u64::from(is_kept);
            }
            Seen::Kept(Activity::Copy(copy)) => {
                counts.copies += 1;
                self.sink.push(&copy);
            }
            Seen::Kept(Activity::Call(call)) => {
                counts.calls += 1;
                self.sink.push(&call);
            }
            Seen::Kept(Activity::Overhead(overhead)) => {
                counts.overheads += 1;
                self.sink.push(&overhead);
            }
            Seen::UnknownNode => counts.unknown += 1,
            Seen::OtherKernel => counts.other_kernels += 1,
            Seen::OtherCall | Seen::Other => counts.calls_left_out += 1,
        }
    }

    /// Gives CUPTI up if it says nothing, or nothing that is of use.
    fn give_up_if_useless(&mut self) {
        let ActivityCounts { nodes, invalid, unknown, .. } = self.counts;
        if self.counts.given_up.is_some() {
            return;
        }
        if invalid > USELESS_MAX {
            self.give_up(format!("{invalid} of {} nodes had no times", nodes + invalid));
        } else if nodes == 0 && unknown > USELESS_MAX {
            self.give_up(format!("{unknown} nodes were of graphs that are not known, and none of one that is"));
        } else if let Some(error) = self.counts.errors.first() {
            self.give_up(error.clone());
        }
    }

    fn give_up(&mut self, reason: String) {
        tracing::warn!("{} is given up, this recording goes on with stamps alone: {reason}", self.cupti.name());
        self.counts.given_up = Some(reason);
        let failed = self.switch.as_ref().map(Switch::give_up).unwrap_or_default();
        failed.into_iter().for_each(|error| self.note(error));
    }

    fn note(&mut self, error: String) {
        if self.counts.errors.len() < ERRORS_MAX && !self.counts.errors.contains(&error) {
            self.counts.errors.push(error);
        }
    }
}
