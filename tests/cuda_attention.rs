//! The CUDA attention kernels, run on the host, against the f64 reference and against themselves.

mod emulated;
mod next_rows;

use std::convert::Infallible;

use emulated::Memory;
use next_rows::{ROWS_ACTIVATIONS, prepared_row, row_bytes};
use softcuda::emulate::Mode;
use vitrum::doctor::attention::*;
use vitrum::kernels::DevicePtr;
use vitrum::kernels::params::*;

const THREADS: u32 = 256;
/// A grid that shares no factor with the numbers of pieces here.
const BLOCKS: u32 = 7;

/// How a step runs: none of it may change a bit.
#[derive(Clone, Copy, Debug)]
struct How {
    split: bool,
    blocks: u32,
    mode: Mode,
}

const HOW: How = How { split: false, blocks: BLOCKS, mode: Mode::ALL[0] };

/// The node of a step, in this memory.
fn put(step: &StepData, memory: &mut Memory) -> AttentionParams {
    let Ok(node) = step.node(|bytes| Ok::<_, Infallible>(memory.put::<u8>(bytes).addr()));
    node
}

/// One step over these sequences: the output, row by row.
fn run(heads: Heads, sequences: &[Rows], how: How) -> Vec<Vec<f32>> {
    let step = StepData::new(heads, sequences, how.split);
    let mut memory = Memory::default();
    let params = put(&step, &mut memory);
    let kernel = format!("attention_f16_d{}", heads.dim);
    memory.launch(&kernel, how.blocks, (THREADS, shared_bytes(heads)), &params, how.mode);
    let arrivals = memory.read_words(params.arrivals, step.tokens() * heads.kv_heads);
    assert!(arrivals.iter().all(|count| *count == 0), "counters are zero after a step: {arrivals:?}");
    let out = memory.read_words(params.out, step.tokens() * heads.width());
    out.chunks_exact(heads.width()).map(|row| row.iter().map(|bits| f32::from_bits(*bits)).collect()).collect()
}

fn shared_bytes(heads: Heads) -> u32 {
    ATTENTION_SHARED_FIXED + heads.dim as u32 * ATTENTION_SHARED_PER_DIM
}

fn check(heads: Heads, sequences: &[Rows], modes: &[Mode]) {
    let want = reference(heads, sequences, as_prepared(heads));
    let positions = StepData::new(heads, sequences, false).positions;
    let mut before: Option<Vec<Vec<u32>>> = None;
    for &mode in modes {
        for split in [false, true] {
            let got = run(heads, sequences, How { split, mode, ..HOW });
            let what = format!("{heads:?}, split {split}, {mode:?}");
            let off = check_rows(&what, &got, &want, |row| f16_tolerance(positions[row]));
            off.unwrap_or_else(|error| panic!("{error}"));
            let same = before.get_or_insert_with(|| bits(&got));
            assert!(*same == bits(&got), "{what}: other bits than in {:?}", modes[0]);
        }
    }
}

#[test]
fn every_length_and_number_of_rows() {
    let lengths = [1, 15, 16, 17, 255, 256, 257, 700];
    let rows = [1, 3, 7, 17, 65];
    let shapes: Vec<_> =
        lengths.iter().flat_map(|&kv| rows.iter().filter(move |&&n| n <= kv).map(move |&n| (n, kv))).collect();
    check(Heads { heads: 3, kv_heads: 1, dim: 16, format: FORMAT_F16 }, &batch(&shapes), &Mode::ALL);
}

#[test]
fn every_shape_of_heads() {
    let sequences = batch(&[(1, 1), (17, 40), (1, 300), (5, 258)]);
    let groups = [(1, 1), (4, 1), (9, 3), (8, 8), (24, 8), (64, 1), (66, 2)];
    for (i, (heads, kv_heads)) in groups.into_iter().enumerate() {
        for (j, dim) in [16, 32, 48, 64, 80, 96, 112, 128].into_iter().enumerate() {
            let mode = Mode::ALL[(i + j) % 4];
            check(Heads { heads, kv_heads, dim, format: FORMAT_F16 }, &sequences, &[mode]);
        }
    }
}

#[test]
fn every_mode_at_the_usual_widths() {
    let sequences = batch(&[(1, 1), (18, 530), (1, 300), (5, 258)]);
    for dim in [64, 128] {
        check(Heads { heads: 6, kv_heads: 2, dim, format: FORMAT_F16 }, &sequences, &Mode::ALL);
    }
}

#[test]
fn an_empty_step_writes_nothing() {
    assert!(run(SMOLLM, &[], HOW).is_empty());
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    let sequences = batch(&[(1, 700), (33, 300), (1, 17), (1, 513), (4, 259), (2, 2)]);
    let together = bits(&run(SMOLLM, &sequences, How { split: true, ..HOW }));
    let mut row = 0;
    for &sequence in &sequences {
        for i in 0..sequence.rows {
            let kv_tokens = sequence.kv_tokens - sequence.rows + i + 1;
            let alone = run(SMOLLM, &[Rows { rows: 1, kv_tokens, ..sequence }], HOW);
            assert_eq!(bits(&alone)[0], together[row], "row {i} of {sequence:?}");
            row += 1;
        }
    }
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    let name = 7;
    let whole = bits(&run(SMOLLM, &[Rows { name, rows: 300, kv_tokens: 300 }], HOW));
    for chunk in [29, 255] {
        for split in [false, true] {
            let mut rows = Vec::new();
            for first in (0..300).step_by(chunk) {
                let count = chunk.min(300 - first);
                let step = [Rows { name, rows: count, kv_tokens: first + count }];
                rows.extend(bits(&run(SMOLLM, &step, How { split, ..HOW })));
            }
            assert!(rows == whole, "chunks of {chunk}, split {split}");
        }
    }
}

#[test]
fn the_grid_and_the_order_of_blocks_change_no_bit() {
    let sequences = batch(&[(20, 600), (1, 700), (1, 30), (3, 257)]);
    let one = bits(&run(SMOLLM, &sequences, How { blocks: 1, ..HOW }));
    for blocks in [1, 2, 5, 400] {
        for (i, split) in [false, true].into_iter().enumerate() {
            let mode = Mode::ALL[(blocks as usize + i) % 4];
            let other = bits(&run(SMOLLM, &sequences, How { split, blocks, mode }));
            assert!(one == other, "{blocks} blocks, split {split}, {mode:?}");
        }
    }
}

/// The same kernel twice on the same memory, as graphs replay it, and without f32 output, as they ask for.
#[test]
fn rows_are_left_for_the_next_layer() {
    let sequences = batch(&[(17, 270), (1, 20), (17, 17)]);
    // The last one: rows of an item whose partial results are folded in several passes.
    for (i, (heads, kv_heads, dim)) in [(9, 3, 64), (4, 2, 16), (4, 2, 128), (52, 2, 16)].into_iter().enumerate() {
        let heads = Heads { heads, kv_heads, dim, format: FORMAT_F16 };
        let out = run(heads, &sequences, HOW);
        for activations in ROWS_ACTIVATIONS {
            for split in [false, true] {
                let step = StepData::new(heads, &sequences, split);
                let mut memory = Memory::default();
                let mut params = put(&step, &mut memory);
                let bytes = row_bytes(heads.width(), activations) * step.tokens();
                let rows = memory.put(&vec![0xff; bytes]);
                (params.out, params.next) = (DevicePtr::NULL, NextRows { rows, activations, ..NextRows::default() });
                for mode in [Mode::ALL[i], Mode::ALL[3]] {
                    let kernel = format!("attention_f16_d{dim}");
                    memory.launch(&kernel, BLOCKS, (THREADS, shared_bytes(heads)), &params, mode);
                    let want: Vec<u8> = out.iter().flat_map(|row| prepared_row(row, None, activations)).collect();
                    assert!(memory.read(rows, bytes) == want, "{heads:?}, activations {activations}, split {split}");
                }
            }
        }
    }
}

#[test]
fn a_stamp_has_the_first_begin_and_the_last_end() {
    let sequences = batch(&[(3, 270)]);
    let step = StepData::new(SMOLLM, &sequences, true);
    let mut memory = Memory::default();
    let params = put(&step, &mut memory);
    let stamp = memory.put(&[0; 16]);
    memory.launch_stamped("attention_f16_d64", BLOCKS, (THREADS, shared_bytes(SMOLLM)), &params, Mode::ALL[0], stamp);
    let words = memory.read_words(stamp, 4);
    let cell = |i: usize| u64::from(words[2 * i + 1]) << 32 | u64::from(words[2 * i]);
    let (begin, end) = (!cell(0), cell(1));
    assert!(0 < begin && begin < end, "from {begin} to {end}");
}
