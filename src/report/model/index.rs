//! What is in which block of a recording's file, so that a window reads the blocks that it needs and no others.

use crate::trace::activity::Activity;
use crate::trace::schema::is_time;
use crate::trace::spool::{Place, Record};

/// A block with what it holds: some 120 bytes for 64 KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) place: Place,
    /// Steps that are named by steps, batches, replays, and the nodes of replays.
    pub(super) steps: Bounds,
    /// Begins of phases, calls and overheads, and moments of requests.
    pub(super) times: Bounds,
    /// Of nodes and copies that the driver's profiling library saw.
    pub(super) correlations: Bounds,
    /// Requests that it has names of.
    pub(super) names: Bounds,
}

/// The lowest and the highest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    low: u64,
    high: u64,
}

impl Bounds {
    pub(super) const NONE: Bounds = Bounds { low: u64::MAX, high: 0 };

    /// From one number up to another one, both included.
    pub(super) fn between(low: u64, high: u64) -> Bounds {
        Bounds { low, high }
    }

    pub(super) fn of(numbers: impl Iterator<Item = u64>) -> Bounds {
        let mut bounds = Bounds::NONE;
        numbers.for_each(|number| bounds.note(number));
        bounds
    }

    pub(super) fn note(&mut self, number: u64) {
        self.low = self.low.min(number);
        self.high = self.high.max(number);
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.low <= number && number <= self.high
    }

    pub(super) fn meets(&self, other: &Bounds) -> bool {
        self.low <= other.high && other.low <= self.high && self.low <= self.high && other.low <= other.high
    }
}

impl Block {
    pub(super) fn new(place: Place) -> Block {
        let none = Bounds::NONE;
        Block { place, steps: none, times: none, correlations: none, names: none }
    }

    /// Notes a record; of node times the step of their replay is known to the caller.
    pub(super) fn note(&mut self, record: &Record<'_>, step: Option<u64>) {
        match record {
            Record::Step(step) => self.steps.note(step.step),
            Record::Member(member) => self.steps.note(member.step),
            Record::Replay(replay) => self.steps.note(replay.step),
            Record::Nodes { .. } => step.into_iter().for_each(|step| self.steps.note(step)),
            Record::Span(span) => self.times.note(span.start_ns),
            Record::Request(request) => self.times.note(request.at_ns),
            Record::Name { request, .. } => self.names.note(*request),
            Record::Activity(Activity::Node(node)) => self.correlations.note(node.correlation.into()),
            Record::Activity(Activity::Copy(copy)) if is_time(copy.start_ns, copy.end_ns) => {
                self.correlations.note(copy.correlation.into());
            }
            Record::Activity(Activity::Call(call)) if is_time(call.start_ns, call.end_ns) => {
                self.times.note(call.start_ns);
            }
            Record::Activity(Activity::Overhead(overhead)) if is_time(overhead.start_ns, overhead.end_ns) => {
                self.times.note(overhead.start_ns);
            }
            Record::Activity(_) | Record::Graph(_) | Record::Closing(_) => {}
        }
    }
}

/// A set of correlations, in pages: those of one recording mostly follow each other.
#[derive(Debug, Default)]
pub(super) struct Correlations {
    pages: std::collections::HashMap<u32, Box<[u64; 64]>>,
}

impl Correlations {
    pub(super) fn has(&self, correlation: u32) -> bool {
        let (page, word, bit) = Correlations::at(correlation);
        self.pages.get(&page).is_some_and(|words| words[word] & bit != 0)
    }

    pub(super) fn add(&mut self, correlation: u32) {
        let (page, word, bit) = Correlations::at(correlation);
        self.pages.entry(page).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
    }

    fn at(correlation: u32) -> (u32, usize, u64) {
        (correlation >> 12, (correlation >> 6 & 63) as usize, 1 << (correlation & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_meet_where_they_share_a_number() {
        let span = Bounds::of([3, 7].into_iter());
        assert!(span.has(5) && !span.has(8));
        assert!(span.meets(&Bounds::between(7, 9)) && !span.meets(&Bounds::between(8, 9)));
        assert!(!span.meets(&Bounds::NONE) && !Bounds::NONE.meets(&Bounds::between(0, u64::MAX)));
    }

    #[test]
    fn correlations_are_remembered_one_by_one() {
        let mut set = Correlations::default();
        let some = [0, 63, 64, 4095, 4096, u32::MAX];
        some.iter().for_each(|number| set.add(*number));
        assert!(some.iter().all(|number| set.has(*number)));
        assert!(![1, 65, 4097, u32::MAX - 1].iter().any(|number| set.has(*number)));
    }
}
