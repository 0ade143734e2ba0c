//! The CUDA kernel of the embedding, run on the host: rows of packed matrices, exactly, and as the next layer reads
//! them.

mod emulated;
mod next_rows;

use emulated::Memory;
use next_rows::{ROWS_ACTIVATIONS, prepared_row, row_bytes};
use softcuda::emulate::Mode;
use vitrum::formats::WeightFormat;
use vitrum::kernels::DevicePtr;
use vitrum::kernels::embed::reference;
use vitrum::kernels::linear::Matrix;
use vitrum::kernels::params::*;

const THREADS: u32 = 256;
const TILE_ROWS: usize = 16;
const FORMATS: [WeightFormat; 4] = [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4_1];
/// Blocks for which there is no row, and rows of memory behind the last one.
const SPARE: usize = 3;

/// A small generator: the tests are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
    /// In [−1, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 2f32.powi(23) - 1.0
    }
}

/// Rows as a file has them.
fn file_rows(format: WeightFormat, rows: usize, cols: usize, numbers: &mut Numbers) -> Vec<u8> {
    let half = |value: f32| half::f16::from_f32(value).to_bits().to_le_bytes();
    let (scales, bytes) = match format {
        WeightFormat::Q8_0 => (1, 32),
        WeightFormat::Q4_0 => (1, 16),
        WeightFormat::Q4_1 => (2, 16),
        _ => {
            let value = |_| half::bf16::from_f32(numbers.unit()).to_bits().to_le_bytes();
            return (0..rows * cols).flat_map(value).collect();
        }
    };
    let mut data = Vec::new();
    for _ in 0..rows * cols / 32 {
        (0..scales).for_each(|_| data.extend(half(numbers.unit() / 10.0)));
        (0..bytes).for_each(|_| data.push(numbers.next() as u8));
    }
    data
}

/// The matrix as csrc/common/weights.cuh has it: lane by lane what it holds of mma's A.
fn packed(format: WeightFormat, rows: usize, cols: usize, data: &[u8]) -> Vec<u8> {
    let (tiles, blocks) = (rows.div_ceil(TILE_ROWS), cols / 32);
    let file_row_bytes = format.row_bytes(cols);
    let block_bytes = file_row_bytes / blocks;
    // The bytes of a block of a row; zeros past the end of the matrix.
    let block = |row: usize, block: usize| {
        let at = row * file_row_bytes + block * block_bytes;
        if row < rows && block < blocks { data[at..at + block_bytes].to_vec() } else { vec![0; block_bytes] }
    };
    let (nibbles, minima) = (matches!(format, WeightFormat::Q4_0 | WeightFormat::Q4_1), format == WeightFormat::Q4_1);
    let blocks_padded = if nibbles { blocks.next_multiple_of(2) } else { blocks };
    let (mut values, mut headers) = (Vec::new(), Vec::new());
    for tile in 0..tiles {
        let row_of = |g: usize, second: usize| tile * TILE_ROWS + g + 8 * second;
        for first in (0..blocks_padded).step_by(if nibbles { 2 } else { 1 }) {
            let pair: &[usize] = if nibbles { &[first, first + 1] } else { &[first] };
            if format == WeightFormat::Bf16 {
                for (sixteen, lane) in (0..2).flat_map(|sixteen| (0..32).map(move |lane| (sixteen, lane))) {
                    for a in 0..4 {
                        let at = 2 * (16 * sixteen + 8 * (a / 2) + 2 * (lane % 4));
                        values.extend(&block(row_of(lane / 4, a % 2), first)[at..at + 4]);
                    }
                }
                continue;
            }
            let scales_bytes = if minima { 4 } else { 2 };
            for lane in 0..32 {
                let (g, t) = (lane / 4, lane % 4);
                for &b in pair {
                    // Of 8-bit values a word for each half of the block's columns; of nibbles both are in one word.
                    for a in 0..if nibbles { 2 } else { 4 } {
                        let at = scales_bytes + 16 * (a / 2) + 4 * t;
                        values.extend(&block(row_of(g, a % 2), b)[at..at + 4]);
                    }
                }
            }
            for g in 0..8 {
                for scale in (0..scales_bytes).step_by(2) {
                    for &b in pair {
                        (0..2).for_each(|second| headers.extend(&block(row_of(g, second), b)[scale..scale + 2]));
                    }
                }
            }
        }
    }
    [values, headers].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn weight_ref(
    data: DevicePtr<std::ffi::c_void>,
    format: WeightFormat,
    vocab: usize,
    cols: usize,
    activations: u32,
) -> WeightRef {
    WeightRef { data, rows: vocab as u32, cols: cols as u32, format: format as u32, activations }
}

/// One embedding, with tokens from the host and from slots, in every way in which the next layer may read it.
fn check(format: WeightFormat, vocab: usize, cols: usize, mode: Mode) {
    let mut numbers = Numbers(cols as u64);
    let data = file_rows(format, vocab, cols, &mut numbers);
    let mut values = vec![0.0; vocab * cols];
    let file_rows = data.chunks_exact(format.row_bytes(cols));
    file_rows.zip(values.chunks_exact_mut(cols)).for_each(|(row, out)| format.dequantise_row(row, out));
    let last = vocab as i32 - 1;
    let (token_source, slot_tokens) = ([0, last, -1, last / 2, -3, last / 3], [7 % vocab as u32, 0, last as u32]);
    let gamma: Vec<f32> = (0..cols).map(|_| numbers.unit()).collect();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let matrix = Matrix { values: &values, rows: vocab, cols };
    let want: Vec<f32> = reference(&matrix, &token_source, &slot_tokens).iter().map(|value| *value as f32).collect();
    for activations in ROWS_ACTIVATIONS {
        let what = format!("{}, ({vocab}, {cols}), activations {activations}, {mode:?}", format.as_str());
        let mut memory = Memory::default();
        let tokens = token_source.len();
        let next_bytes = row_bytes(cols, activations);
        let weight = memory.put(&packed(format, vocab, cols, &data));
        let params = EmbedParams {
            shape: memory.put(&words(&[tokens as u32, 0, 0, 0, 0, 0, 0, 0])),
            token_source: memory.put(&words(&token_source.map(|source| source as u32))),
            slot_tokens: memory.put(&words(&slot_tokens)),
            x: memory.put(&vec![0xff; (tokens + SPARE) * cols * 4]),
            weight: weight_ref(weight, format, vocab, cols, activations),
            next: NextRows {
                rows: memory.put(&vec![0xff; (tokens + SPARE) * next_bytes]),
                gamma: memory.put(&words(&bits(&gamma))),
                activations,
                reserved: 0,
            },
            scale: 1.0,
            reserved: 0,
        };
        memory.launch("embed", (tokens + SPARE) as u32, (THREADS, 0), &params, mode);
        let x = memory.read_words(params.x, (tokens + SPARE) * cols);
        assert!(x[..tokens * cols] == bits(&want), "{what}");
        assert!(x[tokens * cols..].iter().all(|word| *word == u32::MAX), "{what}: touched beyond the last row");
        let row = |row: &[f32]| prepared_row(row, Some(&gamma), activations);
        let mut rows: Vec<u8> = want.chunks_exact(cols).flat_map(row).collect();
        rows.resize((tokens + SPARE) * next_bytes, 0xff);
        assert!(memory.read(params.next.rows, rows.len()) == rows, "{what}: rows for the next layer");
        // Without a layer that reads them next.
        let params = EmbedParams { next: NextRows::default(), ..params };
        memory.launch("embed", tokens as u32, (THREADS, 0), &params, mode);
        assert!(memory.read_words(params.x, x.len()) == x, "{what}: the same again");
    }
}

#[test]
fn rows_are_exact_in_every_format_and_mode() {
    for format in FORMATS {
        for (i, (vocab, cols)) in [(1, 32), (16, 64), (37, 96), (100, 576)].into_iter().enumerate() {
            check(format, vocab, cols, Mode::ALL[i]);
        }
    }
    Mode::ALL.into_iter().for_each(|mode| check(WeightFormat::Q4_1, 33, 288, mode));
}

/// The first thread would be through long before the others: here threads run one after the other. It has to stamp the
/// end when all are. Compared is how long the kernel took by its stamp, and how long it is from there to the next one's
/// begin, which would be nearly the whole kernel. On a busy machine single times mean little.
#[test]
fn a_stamp_ends_with_the_last_thread() {
    let (cols, format, activations) = (1 << 15, WeightFormat::Bf16, ACTIVATIONS_BF16);
    let mut memory = Memory::default();
    let data = file_rows(format, 1, cols, &mut Numbers(1));
    let weight = memory.put(&packed(format, 1, cols, &data));
    let params = EmbedParams {
        shape: memory.put(&words(&[1, 0, 0, 0, 0, 0, 0, 0])),
        token_source: memory.put(&words(&[0])),
        slot_tokens: memory.put(&words(&[0])),
        x: memory.put(&vec![0xff; cols * 4]),
        weight: weight_ref(weight, format, 1, cols, activations),
        next: NextRows::default(),
        scale: 1.0,
        reserved: 0,
    };
    let stamps: Vec<DevicePtr<u64>> = (0..8).map(|_| memory.put(&[0; 16])).collect();
    stamps.iter().for_each(|&stamp| memory.launch_stamped("embed", 1, (THREADS, 0), &params, Mode::ALL[0], stamp));
    let times: Vec<(u64, u64)> = stamps
        .iter()
        .map(|&stamp| {
            let words = memory.read_words(stamp, 4);
            let cell = |i: usize| u64::from(words[2 * i + 1]) << 32 | u64::from(words[2 * i]);
            (!cell(0), cell(1))
        })
        .collect();
    assert!(times.windows(2).all(|pair| pair[0].0 < pair[0].1 && pair[0].1 < pair[1].0), "{times:?}");
    let is_whole = |pair: &&[(u64, u64)]| pair[0].1 - pair[0].0 > (pair[1].0 - pair[0].1) / 4;
    let whole = times.windows(2).filter(is_whole).count();
    assert!(whole > 3, "{whole} of 7 have the whole kernel's time: {times:?}");
}
