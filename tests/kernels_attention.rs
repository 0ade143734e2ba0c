//! The attention kernel, through the device interface, against its f64 reference and against itself.

#[path = "support/sets.rs"]
mod sets;

use sets::sets;
use vitrum::device::{Activations, Device, DeviceChoice, DeviceOptions};
use vitrum::doctor::attention::*;
use vitrum::doctor::bench::Bench;
use vitrum::formats::WeightFormat;
use vitrum::isa::IsaChoice;
use vitrum::kernels::attention;
use vitrum::kernels::params::*;
use vitrum::trace::schema::{Op, StepSizes};

struct Step {
    bench: Bench,
    heads: Heads,
    split: bool,
}

impl Step {
    fn new(isa: IsaChoice, threads: usize, heads: Heads, split: bool) -> Step {
        let options = DeviceOptions {
            choice: DeviceChoice::Cpu,
            threads: Some(threads),
            isa: Some(isa),
            delay: None,
            activity: false,
        };
        let device = Device::open(&options).unwrap();
        Step { bench: Bench::new(device, WeightFormat::F32, Activations::F32), heads, split }
    }

    /// One step over these sequences: the output, row by row.
    fn run(&mut self, sequences: &[Rows]) -> Vec<Vec<f32>> {
        run(&mut self.bench, self.heads, sequences, self.split).unwrap()
    }
}

fn check(isa: IsaChoice, threads: usize, heads: Heads, sequences: &[Rows], want: &[Vec<f64>]) {
    for split in [false, true] {
        let got = Step::new(isa, threads, heads, split).run(sequences);
        let what = format!("{isa}, {threads} threads, {heads:?}, split {split}");
        check_rows(&what, &got, want, |_| F32_TOLERANCE).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_length_and_number_of_rows() {
    let lengths = [1, 15, 16, 17, 255, 256, 257, 700];
    let rows = [1, 3, 7, 17, 65];
    let shapes: Vec<_> =
        lengths.iter().flat_map(|&kv| rows.iter().filter(move |&&n| n <= kv).map(move |&n| (n, kv))).collect();
    let sequences = batch(&shapes);
    for format in [FORMAT_F32, FORMAT_F16] {
        let heads = Heads { heads: 3, kv_heads: 1, dim: 16, format };
        let want = reference(heads, &sequences, |q| q);
        for isa in sets() {
            check(isa, 2, heads, &sequences, &want);
        }
    }
}

#[test]
fn every_shape_of_heads() {
    let sequences = batch(&[(1, 1), (17, 40), (1, 300), (5, 258)]);
    let groups = [(1, 1), (4, 1), (9, 3), (8, 8), (24, 8), (70, 1)];
    for (i, (heads, kv_heads)) in groups.into_iter().enumerate() {
        for (j, dim) in [16, 64, 80, 128].into_iter().enumerate() {
            let format = [FORMAT_F32, FORMAT_F16][(i + j) % 2];
            let heads = Heads { heads, kv_heads, dim, format };
            let want = reference(heads, &sequences, |q| q);
            for isa in sets() {
                check(isa, 2, heads, &sequences, &want);
            }
        }
    }
}

#[test]
fn the_largest_head() {
    let sequences = batch(&[(3, 270)]);
    let heads = Heads { heads: 2, kv_heads: 1, dim: attention::MAX_HEAD_DIM, format: FORMAT_F32 };
    let want = reference(heads, &sequences, |q| q);
    sets().for_each(|isa| check(isa, 1, heads, &sequences, &want));
}

#[test]
fn an_empty_step_writes_nothing() {
    for isa in sets() {
        let heads = Heads { heads: 3, kv_heads: 1, dim: 64, format: FORMAT_F32 };
        assert!(Step::new(isa, 2, heads, true).run(&[]).is_empty());
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    for isa in sets() {
        let sequences = batch(&[(1, 700), (33, 300), (1, 17), (1, 513), (4, 259), (2, 2)]);
        let together = bits(&Step::new(isa, 2, SMOLLM, true).run(&sequences));
        let mut row = 0;
        for &sequence in &sequences {
            for i in 0..sequence.rows {
                let kv_tokens = sequence.kv_tokens - sequence.rows + i + 1;
                let alone = Step::new(isa, 1, SMOLLM, false).run(&[Rows { rows: 1, kv_tokens, ..sequence }]);
                assert_eq!(bits(&alone)[0], together[row], "{isa}: row {i} of {sequence:?}");
                row += 1;
            }
        }
    }
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    for isa in sets() {
        let name = 7;
        let whole = bits(&Step::new(isa, 2, SMOLLM, false).run(&[Rows { name, rows: 300, kv_tokens: 300 }]));
        for chunk in [29, 255] {
            for split in [false, true] {
                let mut rows = Vec::new();
                for first in (0..300).step_by(chunk) {
                    let count = chunk.min(300 - first);
                    let step = [Rows { name, rows: count, kv_tokens: first + count }];
                    rows.extend(bits(&Step::new(isa, 2, SMOLLM, split).run(&step)));
                }
                assert!(rows == whole, "{isa}: chunks of {chunk}, split {split}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_and_the_instruction_set_change_no_bit() {
    let sequences = batch(&[(20, 600), (1, 700), (1, 30), (3, 257)]);
    for format in [FORMAT_F32, FORMAT_F16] {
        let heads = Heads { format, ..SMOLLM };
        let one = bits(&Step::new(IsaChoice::Portable, 1, heads, false).run(&sequences));
        for isa in sets() {
            for threads in [1, 2, 3] {
                for split in [false, true] {
                    let other = bits(&Step::new(isa, threads, heads, split).run(&sequences));
                    assert!(one == other, "{isa}, {threads} threads, split {split}");
                }
            }
        }
    }
}

#[test]
fn place_and_cost() {
    let kv = KvCacheRef { format: FORMAT_F16, ..Default::default() };
    let sizes =
        AttentionParams { heads: 9, kv_heads: 3, head_dim: 64, max_pages: 8, scale: 0.125, ..Default::default() };
    let node = AttentionParams { kv, ..sizes }.node(5);
    assert_eq!((node.place.layer, node.place.op), (5, Op::AttnCore));
    // Two sequences: 3 rows up to length 10, 1 row at length 100.
    let sizes = StepSizes { tokens: 4, seqs: 2, logit_rows: 2, kv_tokens: 110, qk_pairs: 8 + 9 + 10 + 100 };
    assert_eq!(node.cost.bytes.at(&sizes), f64::from(110 * 2 * 3 * 64 * 2 + 4 * 2 * 9 * 64 * 4));
    assert_eq!(node.cost.flops.at(&sizes), f64::from(127 * 4 * 9 * 64));
}
