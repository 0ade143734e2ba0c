//! What timing a step costs, by the server's own steps.
//!
//! Which steps are timed is drawn by lot, so they differ from their neighbours by that alone. The cost falls partly
//! into the step's own time (stamps), partly into the next one's (its times go into histograms while that one runs). Of
//! six steps back to back and of the same sizes
//!
//! ```text
//! untimed  untimed  TIMED  behind  untimed  untimed
//! ```
//!
//! the middle two are compared with the mean of the others, which are as far before as behind: what grows evenly, as KV
//! lengths do, cancels out. All that is more is booked on the timed step.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::trace::sample::SampleCost;

/// The steps that are compared, and where among them the timed one is.
const WINDOW: usize = 6;
const TIMED: usize = 2;

/// Ratios are counted in bins of this width from the lowest on; what is beyond the ends is in the outer bins, where
/// medians do not care.
const RATIO_LOWEST: f64 = 0.5;
const BIN: f64 = 0.0005;
const BINS: usize = 3000;

/// The fewest comparisons that say anything.
const PAIRS_MIN: u64 = 20;

/// A step's time, from the end of the step before to its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TimedStep {
    /// Steps of one class do the same work, up to KV lengths: tokens, sequences, logit rows, prompt rows.
    pub(super) class: [u64; 4],
    pub(super) is_timed: bool,
    pub(super) ns: u64,
}

/// The last steps without a break.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    steps: [TimedStep; WINDOW],
    count: usize,
}

impl Neighbours {
    /// What comes now does not follow what came.
    pub(super) fn part(&mut self) {
        self.count = 0;
    }

    /// A step that follows the last one. Gives what the timed step in the middle took of the others' time.
    pub(super) fn push(&mut self, step: TimedStep) -> Option<f64> {
        self.steps.rotate_left(1);
        self.steps[WINDOW - 1] = step;
        self.count = (self.count + 1).min(WINDOW);
        let is_comparable = self.count == WINDOW
            && self.steps.iter().enumerate().all(|(at, other)| other.is_timed == (at == TIMED))
            && self.steps.iter().all(|other| other.class == step.class);
        if !is_comparable {
            return None;
        }
        let [a, b, timed, behind, c, d] = self.steps.map(|step| step.ns as f64);
        let usual = (a + b + c + d) / 4.0;
        (usual > 0.0).then(|| 1.0 + (timed + behind - 2.0 * usual) / usual)
    }
}

/// How often each ratio was seen.
#[derive(Debug)]
pub(super) struct Ratios {
    bins: Box<[AtomicU32]>,
}

impl Ratios {
    pub(super) fn new() -> Ratios {
        Ratios { bins: (0..BINS).map(|_| AtomicU32::new(0)).collect() }
    }

    pub(super) fn count(&self, ratio: f64) {
        // A cast of what is below 0 gives 0.
        let bin = (((ratio - RATIO_LOWEST) / BIN) as usize).min(BINS - 1);
        self.bins[bin].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) {
        self.bins.iter().for_each(|bin| bin.store(0, Ordering::Relaxed));
    }

    /// The median, and its interval by the ranks that the median has in 95 of 100 samples.
    pub(super) fn cost(&self) -> Option<SampleCost> {
        let bins: Vec<u64> = self.bins.iter().map(|bin| u64::from(bin.load(Ordering::Relaxed))).collect();
        let pairs: u64 = bins.iter().sum();
        if pairs < PAIRS_MIN {
            return None;
        }
        let (middle, spread) = (pairs as f64 / 2.0, 0.98 * (pairs as f64).sqrt());
        let at = |rank: f64| at_rank(&bins, rank);
        let (ratio, ratio_low, ratio_high) = (at(middle), at(middle - spread), at(middle + spread));
        Some(SampleCost { ratio, ratio_low, ratio_high, pairs })
    }
}

/// The ratio below which so many are, evenly within a bin.
fn at_rank(bins: &[u64], rank: f64) -> f64 {
    let mut below = 0.0;
    for (at, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= rank {
            let within = ((rank - below) / count).clamp(0.0, 1.0);
            return RATIO_LOWEST + (at as f64 + within) * BIN;
        }
        below += count;
    }
    RATIO_LOWEST + BINS as f64 * BIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::record::mix;

    /// Steps that grow by 3 ns each, are uneven by ±4 %, of which one in 16 is timed and costs `permille` more, three
    /// quarters of it in its own time and the rest in the next step's.
    fn cost(permille: u64) -> Option<SampleCost> {
        let (mut neighbours, ratios, mut owed) = (Neighbours::default(), Ratios::new(), 0);
        for step in 0..100_000_u64 {
            let is_timed = step % 16 == mix(step / 16) % 16;
            let usual = 1_000_000 + 3 * step;
            let uneven = usual - usual / 25 + mix(step ^ 0xabc) % (usual * 2 / 25);
            let extra = if is_timed { usual * permille / 1000 } else { 0 };
            let ns = uneven + owed + extra * 3 / 4;
            owed = extra / 4;
            if let Some(ratio) = neighbours.push(TimedStep { class: [1; 4], is_timed, ns }) {
                ratios.count(ratio);
            }
        }
        ratios.cost()
    }

    #[test]
    fn a_known_cost_is_found_within_its_interval() {
        for permille in [0, 10, 100] {
            let found = cost(permille).expect("enough steps");
            let ratio = 1.0 + permille as f64 / 1000.0;
            assert!(found.pairs > 2_000, "{found:?}");
            assert!(found.ratio_low <= ratio && ratio <= found.ratio_high, "{permille}: {found:?}");
            assert!(found.ratio_high - found.ratio_low < 0.01, "{found:?}");
        }
    }

    #[test]
    fn steps_that_are_not_alike_are_not_compared() {
        let step = TimedStep { class: [1; 4], is_timed: false, ns: 100 };
        let timed = TimedStep { is_timed: true, ..step };
        let push = |steps: &[TimedStep], part_after: Option<usize>| {
            let mut neighbours = Neighbours::default();
            let mut found = Vec::new();
            for (at, step) in steps.iter().enumerate() {
                found.extend(neighbours.push(*step));
                if part_after == Some(at) {
                    neighbours.part();
                }
            }
            found
        };
        const NONE: [f64; 0] = [];
        let alike = [step, step, timed, step, step, step];
        assert_eq!(push(&alike, None), [1.0]);
        assert_eq!(push(&alike, Some(3)), NONE, "the engine had waited");
        assert_eq!(push(&[step, step, timed, step, step, timed], None), NONE, "a neighbour is timed");
        let other = TimedStep { class: [2, 1, 1, 1], ..step };
        assert_eq!(push(&[other, step, timed, step, step, step], None), NONE, "a neighbour is larger");
        assert_eq!(push(&[step; 7], None), NONE, "none is timed");
        let nothing = TimedStep { ns: 0, ..step };
        assert_eq!(push(&[nothing, nothing, timed, step, nothing, nothing], None), NONE, "no time to compare with");
        let longest = |step| TimedStep { ns: u64::MAX, ..step };
        assert!(push(&[step, step, longest(timed), longest(step), step, step], None)[0] > 1e10);
    }

    #[test]
    fn few_say_nothing_and_extremes_stay_in_the_outer_bins() {
        let ratios = Ratios::new();
        for ratio in [f64::NEG_INFINITY, -3.0, f64::INFINITY, f64::NAN, 1e300] {
            ratios.count(ratio);
        }
        assert_eq!(ratios.cost(), None);
        (0..95).for_each(|_| ratios.count(1.25));
        let cost = ratios.cost().expect("100");
        assert_eq!(cost.pairs, 100);
        assert!((cost.ratio - 1.25).abs() <= BIN, "{cost:?}");
        ratios.reset();
        assert_eq!(ratios.cost(), None);
    }
}
