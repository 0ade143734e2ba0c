//! Where a recording comes apart: steps before which everything has begun, and from which on everything begins later.
//!
//! A recording is read in windows of consecutive steps, cut at the begin of a step's iteration. Steps, batches,
//! replays and their nodes belong to a window by their step; phases, calls and moments of requests by their time. A
//! cut is clean if the two agree: every earlier step's iteration and launches lie before it, every later one's behind,
//! and so does what the device did for later steps. What it still did for earlier ones may lie behind: it is carried
//! over. Where a cut is not clean there is none, and the window is as much larger.

use crate::trace::schema::{CopyStamp, NodeStamp, ReplayRecord, StepRecord};

/// The begin of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Its first step.
    pub(super) step: u64,
    /// When that step's iteration began.
    pub(super) at_ns: u64,
}

/// What lies between two cuts that may be clean.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Its first step, and when that began, once its own record has come.
    step: u64,
    at_ns: Option<u64>,
    /// Of its steps, their launches and their replays' numbers: the lowest, and the highest.
    steps_ns: (u64, u64),
    launches_ns: (u64, u64),
    replays: (u64, u64),
    /// When the device began with something of them for the first time.
    device_ns: u64,
}

impl Stretch {
    const NOTHING: (u64, u64) = (u64::MAX, 0);

    fn from(step: u64) -> Stretch {
        let none = Stretch::NOTHING;
        Stretch { step, at_ns: None, steps_ns: none, launches_ns: none, replays: none, device_ns: u64::MAX }
    }

    fn with(self, other: &Stretch) -> Stretch {
        let both = |a: (u64, u64), b: (u64, u64)| (a.0.min(b.0), a.1.max(b.1));
        Stretch {
            step: self.step,
            at_ns: self.at_ns,
            steps_ns: both(self.steps_ns, other.steps_ns),
            launches_ns: both(self.launches_ns, other.launches_ns),
            replays: both(self.replays, other.replays),
            device_ns: self.device_ns.min(other.device_ns),
        }
    }
}

/// Finds cuts while records come by.
#[derive(Debug)]
pub(super) struct Cuts {
    /// So many records at least lie between two.
    records_min: u64,
    records: u64,
    stretches: Vec<Stretch>,
    /// The latest step that a step's own record or a replay has named.
    latest_step: Option<u64>,
}

impl Cuts {
    pub(super) fn new(records_min: u64) -> Cuts {
        Cuts { records_min, records: 0, stretches: vec![Stretch::from(0)], latest_step: None }
    }

    /// So many records came by.
    pub(super) fn count(&mut self, records: u64) {
        self.records += records;
    }

    pub(super) fn step(&mut self, record: &StepRecord) {
        self.reach(record.step);
        let stretch = self.stretch(record.step);
        if stretch.step == record.step {
            stretch.at_ns.get_or_insert(record.start_ns);
        }
        widen(&mut stretch.steps_ns, (record.start_ns, record.start_ns));
        for copy in [record.copies.upload, record.copies.download].iter().filter(|copy| CopyStamp::is_valid(copy)) {
            stretch.device_ns = stretch.device_ns.min(copy.start_ns);
        }
    }

    pub(super) fn replay(&mut self, record: &ReplayRecord) {
        self.reach(record.step);
        let stretch = self.stretch(record.step);
        widen(&mut stretch.launches_ns, (record.launch_start_ns, record.launch_end_ns));
        widen(&mut stretch.replays, (record.replay, record.replay));
    }

    /// Times of nodes of a step.
    pub(super) fn nodes(&mut self, step: u64, stamps: &[NodeStamp]) {
        let first = stamps.iter().filter(|stamp| stamp.is_valid()).map(|stamp| stamp.start_ns).min();
        let stretch = self.stretch(step);
        stretch.device_ns = stretch.device_ns.min(first.unwrap_or(u64::MAX));
    }

    /// A step is named, maybe for the first time, and by its replays sooner than by its own record.
    fn reach(&mut self, step: u64) {
        if self.records >= self.records_min && self.latest_step.is_some_and(|latest| step > latest) {
            self.records = 0;
            self.stretches.push(Stretch::from(step));
        }
        self.latest_step = self.latest_step.max(Some(step));
    }

    fn stretch(&mut self, step: u64) -> &mut Stretch {
        let behind = self.stretches.partition_point(|stretch| stretch.step <= step);
        &mut self.stretches[behind.max(1) - 1]
    }

    /// The clean ones, ascending; the first is the recording's begin.
    pub(super) fn clean(self) -> Vec<Cut> {
        let mut later = self.stretches.clone();
        for at in (1..later.len()).rev() {
            later[at - 1] = later[at - 1].with(&later[at]);
        }
        let mut cuts = vec![Cut { step: 0, at_ns: 0 }];
        let mut earlier = self.stretches[0];
        for (own, later) in self.stretches.iter().zip(&later).skip(1) {
            let is_clean = |at_ns: u64| {
                let is_before = earlier.steps_ns.1 < at_ns && earlier.launches_ns.1 < at_ns;
                let begins_ns = [later.steps_ns.0, later.launches_ns.0, later.device_ns];
                // Without replays on one side there is nothing to compare.
                let is_numbered = earlier.replays == Stretch::NOTHING || earlier.replays.1 < later.replays.0;
                is_before && begins_ns.iter().all(|ns| *ns >= at_ns) && is_numbered
            };
            cuts.extend(own.at_ns.filter(|at_ns| is_clean(*at_ns)).map(|at_ns| Cut { step: own.step, at_ns }));
            earlier = earlier.with(own);
        }
        cuts
    }
}

fn widen(range: &mut (u64, u64), by: (u64, u64)) {
    *range = (range.0.min(by.0), range.1.max(by.1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::schema::{NodeSources, StepCopies, StepSizes};

    fn cuts(steps: &[(u64, u64)], edit: impl Fn(&mut Cuts)) -> Vec<u64> {
        let mut cuts = Cuts::new(1);
        for (step, start_ns) in steps {
            cuts.count(1);
            cuts.step(&StepRecord {
                step: *step,
                start_ns: *start_ns,
                end_ns: start_ns + 9,
                done_ns: start_ns + 9,
                sizes: StepSizes::default(),
                prefill_tokens: 0,
                traced: true,
                copies: StepCopies::default(),
            });
        }
        edit(&mut cuts);
        cuts.clean().iter().map(|cut| cut.step).collect()
    }

    fn launch(cuts: &mut Cuts, replay: u64, step: u64, launch_start_ns: u64, launch_end_ns: u64) {
        let sources = NodeSources::STAMPS;
        cuts.replay(&ReplayRecord { replay, step, graph: 1, sources, launch_start_ns, launch_end_ns });
    }

    #[test]
    fn steps_in_order_come_apart_and_others_do_not() {
        let steps = [(1, 10), (2, 20), (3, 30), (4, 40)];
        assert_eq!(cuts(&steps, |_| ()), [0, 2, 3, 4]);
        assert_eq!(cuts(&[(1, 10), (2, 35), (3, 30), (4, 40)], |_| ()), [0, 4], "step 3 began before step 2");
        assert_eq!(cuts(&[(1, 10), (4, 20), (3, 30), (5, 40)], |_| ()), [0, 5], "step 3 came behind step 4");
    }

    #[test]
    fn launches_and_device_work_of_later_steps_lie_behind_a_cut() {
        let steps = [(1, 10), (2, 20), (3, 30), (4, 40)];
        assert_eq!(cuts(&steps, |cuts| launch(cuts, 1, 2, 25, 30)), [0, 2, 4], "it ends where the next step begins");
        assert_eq!(cuts(&steps, |cuts| launch(cuts, 1, 3, 29, 31)), [0, 2, 4], "it begins before its step");
        let numbers = |cuts: &mut Cuts| [(9, 1, 12), (3, 3, 32)].iter().for_each(|l| launch(cuts, l.0, l.1, l.2, l.2));
        assert_eq!(cuts(&steps, numbers), [0, 4], "numbers that go back between steps 1 and 3");
        let early = NodeStamp { start_ns: 25, end_ns: 26, wait_ns: 0 };
        assert_eq!(cuts(&steps, |cuts| cuts.nodes(3, &[early])), [0, 2, 4]);
        let late = NodeStamp { start_ns: 45, end_ns: 46, wait_ns: 0 };
        assert_eq!(cuts(&steps, |cuts| cuts.nodes(2, &[late])), [0, 2, 3, 4], "it is carried over");
    }
}
