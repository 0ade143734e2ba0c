//! Random rows of weights in any format, from a counter: a row's values depend on the seed, the tensor's name and
//! the row only, so that rows can be made in any order by any number of threads.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::device::WeightFormat;

/// A counter-based generator: SplitMix64 over (key, counter).
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
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
    pub(super) fn of_tensor(seed: u64, name: &str) -> Stream {
        let key = name.bytes().fold(mix(seed), |key, byte| mix(key.wrapping_add(GOLDEN) ^ u64::from(byte)));
        Stream { state: key }
    }

    /// The stream of a row of this tensor.
    pub(super) fn of_row(self, row: usize) -> Stream {
        Stream { state: mix(self.state ^ (row as u64).wrapping_mul(GOLDEN)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Four numbers, uniform in ±1.
    fn next_four(&mut self) -> [f32; 4] {
        let bits = self.next();
        std::array::from_fn(|i| f32::from((bits >> (16 * i)) as i16) * (1.0 / 32768.0))
    }

    /// Scale of a block: between 3/4 and 5/4, so that blocks differ in theirs.
    fn next_scale(&mut self) -> f32 {
        1.0 + 0.25 * self.next_four()[0]
    }
}

/// Fills a row with values of mean 0 and standard deviation 1/√cols: a row's product with an input of unit variance
/// has unit variance. Values are uniform within a block.
pub(super) fn fill_row(format: WeightFormat, stream: Stream, cols: usize, row: &mut [u8]) {
    // A uniform distribution over ±a has standard deviation a/√3.
    let amplitude = (3.0 / cols as f32).sqrt();
    let mut stream = stream;
    match format {
        WeightFormat::F32 => fill_f32(row, &mut stream, 0.0, amplitude),
        WeightFormat::Bf16 => {
            for group in row.chunks_mut(8) {
                for (bytes, unit) in group.chunks_exact_mut(2).zip(stream.next_four()) {
                    // Cut to bf16, not rounded: the values are random anyway, and this takes a third of the time.
                    let bits = (unit * amplitude).to_bits() >> 16;
                    bytes.copy_from_slice(&(bits as u16).to_le_bytes());
                }
            }
        }
        WeightFormat::F16 => fill_f16(row, &mut stream, amplitude),
        WeightFormat::Q8_0 => fill_blocks::<34, 4>(row, &mut stream, |stream, head| {
            let scale = stream.next_scale() * amplitude / 128.0;
            head[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            2
        }),
        WeightFormat::Q4_0 => fill_blocks::<18, 2>(row, &mut stream, |stream, head| {
            // q − 8 runs from −8 to 7, mean −1/2: the sign of the scale alternates at random to keep the mean at 0.
            let scale = stream.next_scale() * amplitude / 8.0;
            let scale = if stream.next() & 1 == 0 { scale } else { -scale };
            head[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            2
        }),
        WeightFormat::Q4_1 => fill_blocks::<20, 2>(row, &mut stream, |stream, head| {
            let (scale, minimum) = (amplitude / 7.5, -amplitude);
            let block_scale = stream.next_scale();
            head[..2].copy_from_slice(&f16::from_f32(scale * block_scale).to_le_bytes());
            head[2..4].copy_from_slice(&f16::from_f32(minimum * block_scale).to_le_bytes());
            4
        }),
    }
}

/// Fills an f32 vector with values around 1: the gains of a norm.
pub(super) fn fill_norm(stream: Stream, row: &mut [u8]) {
    let mut stream = stream;
    fill_f32(row, &mut stream, 1.0, 0.125);
}

fn fill_f32(row: &mut [u8], stream: &mut Stream, mean: f32, amplitude: f32) {
    for group in row.chunks_mut(16) {
        for (bytes, unit) in group.chunks_exact_mut(4).zip(stream.next_four()) {
            bytes.copy_from_slice(&(mean + amplitude * unit).to_le_bytes());
        }
    }
}

fn fill_f16(row: &mut [u8], stream: &mut Stream, amplitude: f32) {
    for group in row.chunks_mut(8) {
        let mut halves = [f16::ZERO; 4];
        halves.convert_from_f32_slice(&stream.next_four().map(|unit| unit * amplitude));
        for (bytes, half) in group.chunks_exact_mut(2).zip(halves) {
            bytes.copy_from_slice(&half.to_le_bytes());
        }
    }
}

/// Fills blocks of `BYTES` bytes: `head` writes scales and says how long they are, `WORDS` × 8 random bytes follow.
fn fill_blocks<const BYTES: usize, const WORDS: usize>(
    row: &mut [u8],
    stream: &mut Stream,
    head: impl Fn(&mut Stream, &mut [u8]) -> usize,
) {
    for block in row.chunks_exact_mut(BYTES) {
        let quants = head(stream, block);
        for bytes in block[quants..].chunks_exact_mut(8) {
            bytes.copy_from_slice(&stream.next().to_le_bytes());
        }
        debug_assert_eq!(quants + 8 * WORDS, BYTES, "a block is its scales and its quants");
    }
}
