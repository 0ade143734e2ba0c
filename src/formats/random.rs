//! Random numbers for random weights, from a counter: a row's values depend on the seed, the tensor's name and the row
//! only, so that rows can be made in any order by any number of threads.

/// A counter-based generator: SplitMix64 over (key, counter).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of a tensor.
    pub(crate) fn of_tensor(seed: u64, name: &str) -> Stream {
        let key = name.bytes().fold(mix(seed), |key, byte| mix(key.wrapping_add(GOLDEN) ^ u64::from(byte)));
        Stream { state: key }
    }

    /// The stream of a row of this tensor.
    pub(crate) fn of_row(self, row: usize) -> Stream {
        Stream { state: mix(self.state ^ (row as u64).wrapping_mul(GOLDEN)) }
    }

    /// 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Four numbers, uniform in ±1.
    pub(super) fn next_four(&mut self) -> [f32; 4] {
        let bits = self.next();
        std::array::from_fn(|i| f32::from((bits >> (16 * i)) as i16) * (1.0 / 32768.0))
    }

    /// Scale of a block: between 3/4 and 5/4, so that blocks differ in theirs.
    pub(super) fn next_scale(&mut self) -> f32 {
        1.0 + 0.25 * self.next_four()[0]
    }

    /// Fills whole groups of 8 bytes: the integers of a block.
    pub(super) fn fill_bytes(&mut self, to: &mut [u8]) {
        debug_assert!(to.len().is_multiple_of(8), "{} bytes", to.len());
        for bytes in to.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.next().to_le_bytes());
        }
    }

    /// Fills a row of f32 with values uniform in `mean` ± `amplitude`.
    pub(crate) fn fill_f32(&mut self, row: &mut [u8], mean: f32, amplitude: f32) {
        for group in row.chunks_mut(16) {
            for (bytes, unit) in group.chunks_exact_mut(4).zip(self.next_four()) {
                bytes.copy_from_slice(&(mean + amplitude * unit).to_le_bytes());
            }
        }
    }
}
