//! The generator behind random prompts and arrival times: the same seed gives the same load.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        assert!(low <= high, "empty range {low}..={high}");
        // The high half of a product: its bias is 2⁻⁶⁴ times the range.
        low + ((u128::from(self.next()) * (high - low + 1) as u128) >> 64) as usize
    }

    /// Uniform in the open interval (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma with this shape and scale 1, by Marsaglia and Tsang; shape 1 is the exponential distribution.
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        assert!(shape > 0.0, "gamma of shape {shape}");
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.unit().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn gamma_has_its_mean_and_variance() {
        for shape in [0.3, 1.0, 4.0] {
            let mut rng = Rng::new(7);
            let values: Vec<f64> = (0..40_000).map(|_| rng.gamma(shape)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            assert!((mean / shape - 1.0).abs() < 0.05, "shape {shape}: mean {mean}");
            assert!((variance / shape - 1.0).abs() < 0.1, "shape {shape}: variance {variance}");
        }
    }

    #[test]
    fn both_ends_of_a_range_come_up() {
        let mut rng = Rng::new(0);
        let drawn: Vec<usize> = (0..200).map(|_| rng.between(3, 6)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&6)));
    }
}
