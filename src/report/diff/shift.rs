//! How much longer the executions of one recording take than those of another, and how sure that is.
//!
//! Executions that follow each other are alike: the machine is busy with something else for a while, or its clock is
//! lower. So neither side's executions are independent, and a test that took them for it would find a change in every
//! pair of recordings. Each side is cut into a few stretches of time instead, and a stretch's median is one value. The
//! interval is that of the rank test of Mann, Whitney and Wilcoxon on these values (Hodges and Lehmann): it knows
//! nothing of how times are distributed, one wild stretch does not move it, and it draws no random numbers.

use crate::report::perturbation::median;

/// The most stretches of a side. More would be too short to be independent.
const STRETCHES_MAX: usize = 16;

/// The fewest executions of a side that are worth a test.
pub(super) const EXECUTIONS_MIN: usize = 8;

/// The chance that any row of a table has an interval which its true change lies outside of.
const TABLE_ERROR: f64 = 0.05;

/// What two samples have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Median of the one.
    pub base_ns: f64,
    /// Median of the other.
    pub new_ns: f64,
    /// Between what the difference lies; `None` if there are too few executions to say.
    pub interval_ns: Option<(f64, f64)>,
}

impl Shift {
    /// Of executions in the order of time, at least one on each side, in a table with so many rows that are worth a
    /// test.
    pub(super) fn of(base: &[u64], new: &[u64], tested: usize) -> Shift {
        let interval_ns = is_tested(base, new)
            .then(|| interval(&stretches(base), &stretches(new), TABLE_ERROR / tested.max(1) as f64));
        Shift { base_ns: median_of(base), new_ns: median_of(new), interval_ns: interval_ns.flatten() }
    }

    /// How much longer the new one takes.
    pub fn delta_ns(&self) -> f64 {
        self.new_ns - self.base_ns
    }

    /// A difference in percent of the base; `None` if that takes no time.
    pub fn percent(&self, ns: f64) -> Option<f64> {
        (self.base_ns > 0.0).then(|| 100.0 * ns / self.base_ns)
    }
}

/// Whether there are enough executions on both sides.
pub(super) fn is_tested(base: &[u64], new: &[u64]) -> bool {
    base.len().min(new.len()) >= EXECUTIONS_MIN
}

fn median_of(values: &[u64]) -> f64 {
    median(&mut values.iter().map(|ns| *ns as f64).collect::<Vec<_>>())
}

/// The medians of stretches of equal length.
fn stretches(values: &[u64]) -> Vec<f64> {
    let count = values.len().min(STRETCHES_MAX);
    (0..count).map(|at| median_of(&values[at * values.len() / count..(at + 1) * values.len() / count])).collect()
}

/// Of all differences between a value of the one side and one of the other, the two that the test's bounds name. `None`
/// if so few values can never be that sure.
fn interval(base: &[f64], new: &[f64], error: f64) -> Option<(f64, f64)> {
    let mut differences: Vec<f64> = new.iter().flat_map(|new| base.iter().map(move |base| new - base)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let (base, new) = (base.len() as f64, new.len() as f64);
    // Of the test's statistic without a change, to which the normal distribution is near.
    let (mean, variance) = (base * new / 2.0, base * new * (base + new + 1.0) / 12.0);
    // The half makes up for its being continuous: fewer than `outside` are at most as likely as the error's half.
    let outside = (mean + 0.5 - normal_quantile(error / 2.0) * variance.sqrt()).floor();
    if outside < 1.0 {
        return None;
    }
    let outside = outside as usize;
    Some((differences[outside - 1], differences[differences.len() - outside]))
}

/// What a normally distributed value exceeds with this chance, at most one half; to 0.0005 (Abramowitz and Stegun,
/// 26.2.23).
fn normal_quantile(chance: f64) -> f64 {
    let t = (-2.0 * chance.clamp(f64::MIN_POSITIVE, 0.5).ln()).sqrt();
    let upper = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let lower = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - upper / lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_tables() {
        for (chance, quantile) in [(0.5, 0.0), (0.025, 1.959_964), (0.005, 2.575_829), (0.000_05, 3.890_592)] {
            assert!((normal_quantile(chance) - quantile).abs() < 5e-4, "{chance}: {}", normal_quantile(chance));
        }
    }

    #[test]
    fn a_sample_does_not_differ_from_itself() {
        let values: Vec<u64> = (0..1000).map(|at| 1000 + at * 7919 % 101).collect();
        let shift = Shift::of(&values, &values, 300);
        assert_eq!((shift.delta_ns(), shift.percent(shift.delta_ns())), (0.0, Some(0.0)));
        let (low, high) = shift.interval_ns.expect("enough values");
        assert!(low <= 0.0 && high >= 0.0 && low == -high, "{low} {high}");
        assert_eq!(Shift::of(&[5], &[5], 1), Shift { base_ns: 5.0, new_ns: 5.0, interval_ns: None });
        assert_eq!(Shift::of(&[0], &[5], 1).percent(5.0), None);
    }

    #[test]
    fn the_interval_is_the_tests() {
        // By the exact distribution, of 4 and 4 values the outermost difference is outside with 2.9 %.
        let (base, new) = ([1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0]);
        assert_eq!(interval(&base, &new, 0.06), Some((7.0, 13.0)));
        // And up to the third with 11.4 %.
        assert_eq!(interval(&base, &new, 0.12), Some((8.0, 12.0)));
        assert_eq!(interval(&base, &new, 0.001), None, "four values are never that sure");
    }

    #[test]
    fn a_change_is_found_and_wild_times_are_none() {
        let noise = |at: u64| at.wrapping_mul(6_364_136_223_846_793_005) >> 58;
        let base: Vec<u64> = (0..400).map(|at| 10_000 + noise(at)).collect();
        // A tenth of the executions, in one stretch, takes a hundred times as long.
        let wild = |at: u64, ns: u64| if (100..140).contains(&at) { 100 * ns } else { ns };
        let same: Vec<u64> = (0..400).map(|at| wild(at, 10_000 + noise(at + 1000))).collect();
        let slower: Vec<u64> = (0..400).map(|at| wild(at, 10_300 + noise(at + 2000))).collect();
        let (low, high) = Shift::of(&base, &same, 500).interval_ns.expect("enough values");
        assert!(low < 0.0 && high > 0.0, "{low} {high}");
        let (low, high) = Shift::of(&base, &slower, 500).interval_ns.expect("enough values");
        assert!(low > 280.0 && low < 300.0 && high > 300.0, "{low} {high}");
    }
}
