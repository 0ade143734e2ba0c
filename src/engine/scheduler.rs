//! Which rows the next step has: decode rows first, then prompt chunks, first come first served.
//!
//! Pages are taken as sequences grow. When they run out, the youngest running sequence gives its pages back and starts
//! again from its tokens (recompute), bit-equal to what it would have been.

use std::collections::VecDeque;

use super::pages::PagePool;
use super::sequence::Sequence;
use crate::kernels::params::PAGE_TOKENS;
use crate::request::StepId;
use crate::step::StepLimits;

/// What the scheduler holds: requests in order of arrival, and the pool of pages.
#[derive(Debug)]
pub(super) struct Scheduler {
    limits: StepLimits,
    /// The most prompt rows of one sequence in one step.
    prompt_chunk: usize,
    /// Not in a step yet, or preempted (those come first).
    pub(super) waiting: VecDeque<Sequence>,
    /// In order of admission.
    pub(super) running: Vec<Sequence>,
    pub(super) pages: PagePool,
    free_slots: Vec<u32>,
    /// Slots to be free again once a step has completed.
    released_slots: VecDeque<(StepId, u32)>,
    /// The last submitted step, while it is under way.
    under_way: Option<StepId>,
}

/// Rows of one running sequence in the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedRows {
    /// Index into [`Scheduler::running`].
    pub(super) sequence: usize,
    pub(super) rows: usize,
    /// The last row draws a token.
    pub(super) draws: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Submit the rows in the list.
    Step,
    /// Nothing can run before a step under way has completed.
    Wait,
}

impl Scheduler {
    pub(super) fn new(limits: &StepLimits, prompt_chunk: usize) -> Scheduler {
        Scheduler {
            limits: *limits,
            prompt_chunk,
            waiting: VecDeque::new(),
            running: Vec::with_capacity(limits.max_seqs),
            pages: PagePool::new(limits.kv_pages),
            free_slots: (0..limits.max_seqs as u32).rev().collect(),
            released_slots: VecDeque::with_capacity(limits.max_seqs),
            under_way: None,
        }
    }

    /// Plans the next step into `rows`. Sequences that had to give their pages back are counted in `preempted`.
    pub(super) fn plan(&mut self, rows: &mut Vec<PlannedRows>, preempted: &mut Vec<Sequence>) -> Plan {
        rows.clear();
        let mut budget = self.limits.max_tokens;
        // Rows that continue a sequence by one token come first, so that prompts do not stall them.
        for decode in [true, false] {
            let mut index = 0;
            while index < self.running.len() && budget > 0 {
                let count = self.rows_for(index, budget);
                if count == 0 || (self.running[index].uncomputed() == 1) != decode {
                    index += 1;
                    continue;
                }
                if self.grow(index, count) {
                    budget -= count;
                    rows.push(self.planned(index, count));
                    index += 1;
                } else if self.pages.is_releasing() || self.youngest_is_under_way() {
                    return self.step_or_wait(rows);
                } else {
                    self.preempt(rows, preempted);
                }
            }
        }
        if preempted.is_empty() {
            self.admit(rows, budget);
        }
        self.step_or_wait(rows)
    }

    /// The planned step was submitted.
    pub(super) fn step_submitted(&mut self, step: StepId) {
        self.under_way = Some(step);
    }

    /// A step has completed: pages and slots that waited for it are free.
    pub(super) fn step_completed(&mut self, step: StepId) {
        self.under_way = self.under_way.filter(|last| *last > step);
        self.pages.step_completed(step);
        while self.released_slots.front().is_some_and(|(last, _)| *last <= step) {
            self.free_slots.extend(self.released_slots.pop_front().map(|(_, slot)| slot));
        }
    }

    /// Takes a sequence out of the running ones; its pages and slot become free when no step names them any more.
    pub(super) fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.pages.release(&mut sequence.pages, self.under_way);
        match self.under_way {
            None => self.free_slots.push(sequence.slot),
            Some(step) => self.released_slots.push_back((step, sequence.slot)),
        }
        sequence
    }

    fn step_or_wait(&self, rows: &[PlannedRows]) -> Plan {
        if rows.is_empty() { Plan::Wait } else { Plan::Step }
    }

    /// How many rows of a running sequence the next step could hold.
    fn rows_for(&self, index: usize, budget: usize) -> usize {
        let sequence = &self.running[index];
        match sequence.can_run(self.limits.max_model_len) {
            true => sequence.uncomputed().min(budget).min(self.prompt_chunk),
            false => 0,
        }
    }

    fn planned(&self, index: usize, rows: usize) -> PlannedRows {
        PlannedRows { sequence: index, rows, draws: rows == self.running[index].uncomputed() }
    }

    fn grow(&mut self, index: usize, rows: usize) -> bool {
        let sequence = &mut self.running[index];
        let pages = (sequence.computed + rows).div_ceil(PAGE_TOKENS as usize);
        self.pages.grow(&mut sequence.pages, pages)
    }

    /// The sequence that would be preempted has a draw that is not read yet: its tokens are not all known.
    fn youngest_is_under_way(&self) -> bool {
        self.running.last().is_some_and(|sequence| sequence.pending > 0)
    }

    /// The youngest running sequence gives its pages back.
    fn preempt(&mut self, rows: &mut Vec<PlannedRows>, preempted: &mut Vec<Sequence>) {
        let youngest = self.running.len() - 1;
        assert!(youngest > 0, "the limits leave pages for one sequence of the greatest length");
        rows.retain(|planned| planned.sequence != youngest);
        let mut sequence = self.remove(youngest);
        sequence.computed = 0;
        preempted.push(sequence);
    }

    /// Lets waiting sequences in while there are slots, rows, and pages for all of their tokens.
    fn admit(&mut self, rows: &mut Vec<PlannedRows>, mut budget: usize) {
        while budget > 0 && !self.free_slots.is_empty() {
            let Some(next) = self.waiting.front() else { break };
            let pages = (next.tokens.len() + 1).div_ceil(PAGE_TOKENS as usize);
            if pages > self.pages.free() {
                break;
            }
            let (Some(mut sequence), Some(slot)) = (self.waiting.pop_front(), self.free_slots.pop()) else { break };
            sequence.slot = slot;
            self.running.push(sequence);
            let index = self.running.len() - 1;
            let count = self.rows_for(index, budget);
            if !self.grow(index, count) {
                break; // cannot happen: the pages were counted
            }
            budget -= count;
            rows.push(self.planned(index, count));
        }
    }
}
