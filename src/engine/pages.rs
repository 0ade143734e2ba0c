//! The pool of KV pages.
//!
//! A page that a step under way names is not free before that step has completed: it is released "after" a step.

use std::collections::VecDeque;

use crate::request::StepId;

/// Free pages, and pages that become free when a step completes.
#[derive(Debug)]
pub(super) struct PagePool {
    free: Vec<u32>,
    /// In ascending order of step.
    released: VecDeque<(StepId, u32)>,
    total: usize,
}

impl PagePool {
    pub(super) fn new(total: usize) -> PagePool {
        PagePool {
            // Taken from the end: the lowest numbers first.
            free: (0..total as u32).rev().collect(),
            released: VecDeque::with_capacity(total),
            total,
        }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// The part of all pages in use, 0 to 1, those that wait for a step's end included.
    pub(super) fn usage(&self) -> f64 {
        (self.total - self.free.len()) as f64 / self.total as f64
    }

    /// Some pages become free without further ado: a step that names them is still under way.
    pub(super) fn is_releasing(&self) -> bool {
        !self.released.is_empty()
    }

    /// Grows `pages` to `count` pages; false, and nothing taken, if there are not enough.
    pub(super) fn grow(&mut self, pages: &mut Vec<u32>, count: usize) -> bool {
        let missing = count.saturating_sub(pages.len());
        if missing > self.free.len() {
            return false;
        }
        pages.extend(self.free.drain(self.free.len() - missing..).rev());
        true
    }

    /// Gives pages back once `last_step`, the last submitted step that names them, has completed.
    pub(super) fn release(&mut self, pages: &mut Vec<u32>, last_step: Option<StepId>) {
        match last_step {
            None => self.free.append(pages),
            Some(step) => {
                debug_assert!(self.released.back().is_none_or(|(last, _)| *last <= step), "released in order of step");
                self.released.extend(pages.drain(..).map(|page| (step, page)));
            }
        }
    }

    /// A step has completed.
    pub(super) fn step_completed(&mut self, step: StepId) {
        while self.released.front().is_some_and(|(last, _)| *last <= step) {
            self.free.extend(self.released.pop_front().map(|(_, page)| page));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_the_last_step_that_names_it_has_completed() {
        let mut pool = PagePool::new(4);
        let mut pages = Vec::new();
        assert!(pool.grow(&mut pages, 3));
        assert_eq!((pages.as_slice(), pool.free(), pool.usage()), ([0, 1, 2].as_slice(), 1, 0.75));
        assert!(!pool.grow(&mut pages, 5), "five of four");
        assert_eq!(pages.len(), 3, "nothing is taken when there is not enough");
        pool.release(&mut pages, Some(StepId(7)));
        pool.step_completed(StepId(6));
        assert_eq!((pool.free(), pool.is_releasing()), (1, true));
        pool.step_completed(StepId(7));
        assert_eq!((pool.free(), pool.is_releasing()), (4, false));
    }
}
