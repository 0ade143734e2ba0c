//! Which steps are timed: one in each run of N, each of the run's with the same probability.

use std::num::NonZeroU32;

use crate::trace::record::mix;

/// Chooses one step in each run of N. A fixed distance would beat with whatever the load does every so many steps.
#[derive(Debug)]
pub(super) struct Choice {
    every: NonZeroU32,
    /// Of the next step in its run.
    at: u32,
    /// The run's chosen step.
    chosen: u32,
    state: u64,
}

impl Choice {
    pub(super) fn new(every: NonZeroU32, seed: u64) -> Choice {
        let mut choice = Choice { every, at: 0, chosen: 0, state: seed };
        choice.chosen = choice.draw();
        choice
    }

    /// Whether the next step is chosen.
    pub(super) fn next(&mut self) -> bool {
        let is_chosen = self.at == self.chosen;
        self.at += 1;
        if self.at == self.every.get() {
            self.at = 0;
            self.chosen = self.draw();
        }
        is_chosen
    }

    /// Below N. Of 2⁶⁴ states no two numbers have shares that differ by more than one.
    fn draw(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.state)) * u128::from(self.every.get())) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(every: u32, seed: u64) -> Choice {
        Choice::new(NonZeroU32::new(every).unwrap(), seed)
    }

    #[test]
    fn one_step_is_chosen_in_each_run_and_each_as_often() {
        const RUNS: u32 = 16_000;
        for every in [1, 2, 3, 16, 64] {
            let (mut choice, mut counts) = (choice(every, 7), vec![0_u32; every as usize]);
            for run in 0..RUNS {
                let chosen: Vec<usize> = (0..every as usize).filter(|_| choice.next()).collect();
                assert_eq!(chosen.len(), 1, "run {run} of {every}");
                counts[chosen[0]] += 1;
            }
            // Chi-squared of a uniform choice: mean N − 1, deviation √(2(N − 1)); six deviations never come by chance.
            let mean = f64::from(RUNS) / f64::from(every);
            let chi: f64 = counts.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
            let free = f64::from(every - 1);
            assert!((chi - free).abs() <= 6.0 * (2.0 * free).sqrt(), "{every}: chi-squared {chi}, {counts:?}");
            // Not at a fixed distance.
            assert!(every == 1 || counts.iter().all(|count| *count > 0), "{counts:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_steps_and_another_seed_others() {
        let steps = |seed| -> Vec<bool> {
            let mut choice = choice(16, seed);
            (0..1600).map(|_| choice.next()).collect()
        };
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn the_largest_run_does_not_overflow() {
        let mut choice = choice(u32::MAX, 3);
        let first = choice.chosen;
        choice.at = u32::MAX - 1;
        assert_eq!(choice.next(), first == u32::MAX - 1);
        assert_eq!(choice.at, 0, "a new run");
    }
}
