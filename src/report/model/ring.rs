//! What a ring has lost to later records: steps of which some records are gone are left out as a whole.

use std::collections::BTreeMap;

use crate::trace::session::{Counts, Overwritten};
use crate::trace::spool::{Record, Seam};

/// What is not in the file any more, and what was left out because of that.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// As the oldest block in the file says it.
    pub overwritten: Overwritten,
    /// Records of steps of which others are gone. They are in no other field; of node times the valid ones.
    pub trimmed: Counts,
    /// Replays and valid node times among them, by graph.
    pub trimmed_of: BTreeMap<u32, [u64; 2]>,
}

/// Says of each record, in the order of the file, whether it is part of the recording: not what a ring has of steps
/// that are not whole, and no node times that do not stand behind their replay.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    seam: Option<Seam>,
    /// The last replay.
    last: Option<Owner>,
    /// Node times in front of every replay, and others that are not behind their own.
    leading: u64,
    stray: u64,
    trimmed: Counts,
    trimmed_of: BTreeMap<u32, [u64; 2]>,
}

/// A replay whose node times may follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    replay: u64,
    graph: u32,
    pub(super) step: u64,
    is_kept: bool,
}

impl Sieve {
    /// Whether the record is kept.
    pub(super) fn keeps(&mut self, record: &Record<'_>, seam: Option<Seam>) -> bool {
        self.seam = self.seam.or(seam.filter(|seam| seam.before.total() > 0));
        let from = self.first_step();
        let keeps = |step: u64, count: &mut u64| {
            *count += u64::from(step < from);
            step >= from
        };
        match record {
            Record::Step(step) => keeps(step.step, &mut self.trimmed.steps),
            Record::Member(member) => keeps(member.step, &mut self.trimmed.members),
            Record::Span(span) => keeps(span.step, &mut self.trimmed.spans),
            Record::Replay(record) => {
                let is_kept = keeps(record.step, &mut self.trimmed.replays);
                if !is_kept {
                    self.trimmed_of.entry(record.graph).or_default()[0] += 1;
                }
                self.last = Some(Owner { replay: record.replay, graph: record.graph, step: record.step, is_kept });
                is_kept
            }
            Record::Nodes { replay, stamps, .. } => match self.last {
                Some(owner) if owner.replay == *replay => {
                    if !owner.is_kept {
                        let valid = stamps.iter().filter(|stamp| stamp.is_valid()).count() as u64;
                        self.trimmed.nodes += valid;
                        self.trimmed_of.entry(owner.graph).or_default()[1] += valid;
                    }
                    owner.is_kept
                }
                last => {
                    *(if last.is_none() { &mut self.leading } else { &mut self.stray }) += stamps.len() as u64;
                    false
                }
            },
            _ => true,
        }
    }

    /// The first step that is kept.
    pub(super) fn first_step(&self) -> u64 {
        self.seam.map_or(0, |seam| seam.whole_from_step)
    }

    /// The last replay.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.last
    }

    /// Whether node times stand behind a replay that is not theirs.
    pub(super) fn has_strays(&self) -> bool {
        self.stray > 0
    }

    /// What a ring has lost, and how many node times have no replay.
    pub(super) fn end(self) -> (Option<Lost>, u64) {
        let Some(Seam { before, whole_from_step }) = self.seam else { return (None, self.leading + self.stray) };
        let records = Counts { nodes: before.nodes.saturating_add(self.leading), ..before };
        let overwritten = Overwritten { records, whole_from_step };
        (Some(Lost { overwritten, trimmed: self.trimmed, trimmed_of: self.trimmed_of }), self.stray)
    }
}
