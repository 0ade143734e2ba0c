//! Mean, deviation and percentiles, as numpy computes them.

/// Values, sorted. Statistics of no values are 0, as vLLM's benchmarks print them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    pub(crate) fn new(mut values: Vec<f64>) -> Sample {
        values.sort_by(f64::total_cmp);
        Sample { sorted: values }
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.sorted.is_empty() { 0.0 } else { self.sorted.iter().sum::<f64>() / self.sorted.len() as f64 }
    }

    /// The population's standard deviation (`ddof=0`).
    pub(crate) fn std_dev(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.sorted.iter().map(|value| (value - mean).powi(2)).sum();
        if self.sorted.is_empty() { 0.0 } else { (squares / self.sorted.len() as f64).sqrt() }
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    /// numpy's default method: linear between the two neighbours of rank `percent / 100 * (n - 1)`.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        assert!((0.0..=100.0).contains(&percent), "percentile {percent} is outside 0..=100");
        let Some(last) = self.sorted.len().checked_sub(1) else { return 0.0 };
        let rank = percent / 100.0 * last as f64;
        let below = rank.floor() as usize;
        let (a, b) = (self.sorted[below], self.sorted[(below + 1).min(last)]);
        let fraction = rank - below as f64;
        // Counted from the nearer end, so that both ends are met exactly.
        if fraction < 0.5 { a + (b - a) * fraction } else { b - (b - a) * (1.0 - fraction) }
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn agrees_with_numpy() {
        // np.percentile([3.1, 0.5, 2.2, 9.7, 1.4], [10, 25, 50, 75, 90, 99]), np.mean, np.std
        let sample = Sample::new(vec![3.1, 0.5, 2.2, 9.7, 1.4]);
        let expected = [0.86, 1.4, 2.2, 3.1, 7.06, 9.436];
        for (percent, value) in [10.0, 25.0, 50.0, 75.0, 90.0, 99.0].into_iter().zip(expected) {
            assert!((sample.percentile(percent) - value).abs() < 1e-12, "p{percent}: {}", sample.percentile(percent));
        }
        assert!((sample.mean() - 3.38).abs() < 1e-12);
        assert!((sample.std_dev() - 3.2749962).abs() < 1e-7, "{}", sample.std_dev());
    }

    #[test]
    fn ends_are_exact_and_the_median_of_two_is_their_mean() {
        let sample = Sample::new(vec![0.1, 0.7]);
        assert_eq!((sample.percentile(0.0), sample.percentile(100.0)), (0.1, 0.7));
        assert!((sample.median() - 0.4).abs() < 1e-15);
    }

    #[test]
    fn nothing_is_zero() {
        let sample = Sample::new(Vec::new());
        assert_eq!((sample.mean(), sample.std_dev(), sample.percentile(99.0)), (0.0, 0.0, 0.0));
    }
}
