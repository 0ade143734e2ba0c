//! What recording cost, measured within the recording itself.
//!
//! In a toggled recording each step's nodes are recorded or not by a coin. A step's cost of recording falls partly into
//! its own time (stamps) and partly into the next step's (its records are encoded while the next is prepared), so a
//! recorded step behind a recorded one is compared with an unrecorded step behind an unrecorded one: their ratio is
//! what recording everything costs. Both of a pair have the same sizes and are near each other in time.

use std::collections::HashMap;

use serde::Serialize;

use super::account::follows;
use super::model::Recording;
use crate::trace::schema::StepRecord;

/// The most steps between the two of a pair: KV lengths, and so step times, drift.
const PAIR_STEPS_MAX: u64 = 64;

/// Resampled pairs in all bootstrap rounds, and the bounds of the number of rounds.
const BOOTSTRAP_DRAWS: usize = 4_000_000;
const BOOTSTRAP_ROUNDS: (usize, usize) = (200, 2_000);

/// The fewest pairs that say anything.
const PAIRS_MIN: usize = 8;

/// What recording cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perturbation {
    /// Median over the pairs of (time of the recorded step) / (time of the other).
    pub ratio: f64,
    /// Its 95 % interval, by bootstrap over the pairs.
    pub ratio_low: f64,
    /// The interval's upper end.
    pub ratio_high: f64,
    /// Pairs compared.
    pub pairs: u64,
    /// Median time of the paired steps that were recorded.
    pub traced_ns_median: u64,
    /// Median time of the others.
    pub untraced_ns_median: u64,
}

impl Perturbation {
    /// Compares a recording's steps. `None` if there are too few to compare.
    pub fn of(recording: &Recording) -> Option<Perturbation> {
        let mut pairs = Pairs::default();
        pairs.add(recording);
        pairs.compare()
    }
}

/// A step's time: from the moment the last step's tokens were there to the moment its own were.
#[derive(Clone, Copy, Debug)]
struct TimedStep {
    step: u64,
    /// Steps of one class do the same work, up to KV lengths.
    class: [u64; 4],
    /// Recorded, and the one before too; or neither.
    traced: bool,
    ns: u64,
}

/// Pairs of one window after the other: 16 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    last: Option<StepRecord>,
    /// By class, the steps that have no partner yet.
    waiting: HashMap<[u64; 4], Vec<TimedStep>>,
    /// The time of the recorded one of a pair, and of the other.
    found: Vec<[u64; 2]>,
}

impl Pairs {
    /// Pairs each step with the nearest unpaired step before it of the same class and of the other kind.
    pub(super) fn add(&mut self, recording: &Recording) {
        for step in &recording.steps {
            let timed = self.last.and_then(|last| timed(&last, step));
            self.last = Some(*step);
            let Some(step) = timed else { continue };
            let waiting = self.waiting.entry(step.class).or_default();
            waiting.retain(|other| step.step - other.step <= PAIR_STEPS_MAX);
            match waiting.last() {
                Some(other) if other.traced != step.traced => {
                    self.found.push(if step.traced { [step.ns, other.ns] } else { [other.ns, step.ns] });
                    waiting.pop();
                }
                _ => waiting.push(step),
            }
        }
    }

    /// `None` if there are too few to compare.
    pub(super) fn compare(self) -> Option<Perturbation> {
        if self.found.len() < PAIRS_MIN {
            return None;
        }
        let log_ratios: Vec<f64> =
            self.found.iter().map(|[traced, other]| (*traced as f64 / *other as f64).ln()).collect();
        let (low, high) = bootstrap_interval(&log_ratios);
        let median_ns = |at: usize| median(&mut self.found.iter().map(|ns| ns[at] as f64).collect::<Vec<_>>()) as u64;
        Some(Perturbation {
            ratio: median(&mut log_ratios.clone()).exp(),
            ratio_low: low.exp(),
            ratio_high: high.exp(),
            pairs: self.found.len() as u64,
            traced_ns_median: median_ns(0),
            untraced_ns_median: median_ns(1),
        })
    }
}

fn timed(last: &StepRecord, step: &StepRecord) -> Option<TimedStep> {
    let ns = step.done_ns.checked_sub(last.done_ns)?;
    (follows(last, step) && ns > 0 && step.traced == last.traced).then_some(TimedStep {
        step: step.step,
        class: [step.sizes.tokens, step.sizes.seqs, step.sizes.logit_rows, step.prefill_tokens],
        traced: step.traced,
        ns,
    })
}

/// The 95 % interval of the median, with a generator that is always seeded alike: a recording has one answer.
fn bootstrap_interval(values: &[f64]) -> (f64, f64) {
    let rounds = (BOOTSTRAP_DRAWS / values.len()).clamp(BOOTSTRAP_ROUNDS.0, BOOTSTRAP_ROUNDS.1);
    let mut state = 0x5eed_u64;
    let mut draw = || {
        // Xorshift64: long enough for resampling.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values[(state % values.len() as u64) as usize]
    };
    let mut sample = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..rounds)
        .map(|_| {
            sample.fill_with(&mut draw);
            median(&mut sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[rounds * 25 / 1000], medians[(rounds * 975).div_ceil(1000) - 1])
}

/// The median; reorders the values.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        return *upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + *upper) / 2.0
}
