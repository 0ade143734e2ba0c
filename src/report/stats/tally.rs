//! The median of any number of whole numbers in bounded memory: how often there is each.

use std::collections::HashMap;

/// So many different numbers are told apart; when there are more, all are rounded, until there are not.
const NUMBERS_MAX: usize = 1 << 16;

/// Numbers, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// By the number without its lowest `shift` bits.
    counts: HashMap<i128, u64>,
    shift: u32,
    count: u64,
}

impl Tally {
    pub(super) fn add(&mut self, number: i128) {
        *self.counts.entry(number >> self.shift).or_default() += 1;
        self.count += 1;
        while self.counts.len() > NUMBERS_MAX {
            self.shift += 1;
            let finer = std::mem::take(&mut self.counts);
            for (number, count) in finer {
                *self.counts.entry(number >> 1).or_default() += count;
            }
        }
    }

    /// What numbers were rounded down to multiples of: 1 if they were not.
    pub(super) fn grain(&self) -> u64 {
        1_u64.checked_shl(self.shift).unwrap_or(u64::MAX)
    }

    /// `None` of no numbers. Rounded numbers count as the middle of those that are rounded to them.
    pub(super) fn median(&self) -> Option<f64> {
        let mut counts: Vec<(i128, u64)> = self.counts.iter().map(|(number, count)| (*number, *count)).collect();
        counts.sort_unstable();
        let at = |place: u64| {
            let mut behind = 0;
            let found = counts.iter().find(|(_, count)| {
                behind += count;
                place < behind
            });
            found.map(|(number, _)| (*number << self.shift) as f64 + (self.grain() - 1) as f64 / 2.0)
        };
        let (lower, upper) = (at(self.count.checked_sub(1)? / 2)?, at(self.count / 2)?);
        Some(if lower == upper { lower } else { (lower + upper) / 2.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(numbers: impl Iterator<Item = i128>) -> Tally {
        let mut tally = Tally::default();
        numbers.for_each(|number| tally.add(number));
        tally
    }

    #[test]
    fn few_numbers_have_their_exact_median() {
        assert_eq!(tally(std::iter::empty()).median(), None);
        assert_eq!(tally([7].into_iter()).median(), Some(7.0));
        assert_eq!(tally([-3, 9, 9, 4].into_iter()).median(), Some(6.5));
        assert_eq!(tally([9, -1, 3].into_iter()).median(), Some(3.0));
    }

    #[test]
    fn many_are_rounded_and_that_is_said() {
        let count = 10 * NUMBERS_MAX as i128;
        let tally = tally((0..count).map(|number| number * 7 % count));
        assert!(tally.counts.len() <= NUMBERS_MAX);
        let (grain, median) = (tally.grain(), tally.median().expect("a median"));
        assert_eq!(grain, 16);
        assert!((median - count as f64 / 2.0).abs() <= grain as f64, "{median}");
    }
}
