//! x += input Wᵀ: every form of the product, in every shape.

use softcuda::emulate::Mode;
use vitrum::device::PackSource;
use vitrum::device::cuda::pack;
use vitrum::doctor::bench::{Numbers, UNTOUCHED, Weight};
use vitrum::doctor::linear::residual_tolerances;
use vitrum::formats::WeightFormat;
use vitrum::kernels::DevicePtr;
use vitrum::kernels::cuda::rows::RowsLayout;
use vitrum::kernels::linear_residual;
use vitrum::kernels::params::*;

use crate::bench::*;

const OP: &str = "linear_residual";

/// One projection of the rows of `input`: x, and what is left for the next layer, one row further than there are rows.
fn residual(
    bench: &Bench,
    variant: (Mode, Block),
    weight: &Weight,
    (input, x): (&[f32], &[f32]),
    next: Option<(u32, Option<&[f32]>)>,
) -> (Vec<f32>, Vec<u8>) {
    let (rows, cols) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let tokens = input.len() / cols;
    let mut memory = x.to_vec();
    memory.resize((tokens + 1) * rows, UNTOUCHED);
    let (shape, x) = (bench.shape(tokens), bench.put(&memory));
    let prepared = bench.rows(input, cols, None, weight.packed.activations);
    let gamma = bench.put(next.and_then(|(_, gamma)| gamma).unwrap_or_default());
    let row_bytes = next.map_or(0, |(activations, _)| RowsLayout::new(rows, activations).row_bytes);
    let left = bench.put(&vec![POISON; (tokens + 1) * row_bytes]);
    let next = next.map_or(NextRows::default(), |(activations, has_gamma)| NextRows {
        rows: left.addr(),
        gamma: if has_gamma.is_some() { gamma.addr() } else { DevicePtr::NULL },
        activations,
        reserved: 0,
    });
    let params = LinearResidualParams {
        shape: shape.addr(),
        input: DevicePtr::NULL,
        from: x.addr(),
        x: x.addr(),
        bias: DevicePtr::NULL,
        rows: prepared.addr(),
        weight: weight.packed,
        next,
        scale: 1.0,
        reserved: 0,
    };
    let grid = (rows.div_ceil(BLOCK_OUTPUTS), (tokens + 1).next_multiple_of(8));
    bench.run(OP, weight.packed.activations, variant, grid, &params);
    (x.read(), left.read())
}

fn check_residual(what: &str, weight: &Weight, (input, x): (&[f32], &[f32]), got: &[f32]) {
    let (rows, cols) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let want = linear_residual::reference(&linear_residual::Reference {
        weight: weight.matrix(),
        activations: weight.packed.activations,
        input,
        from: Some(x),
        bias: None,
        scale: 1.0,
    });
    let tolerance = residual_tolerances(weight, input, x, &want);
    check(&format!("{what} ({rows}, {cols}) x {}", input.len() / cols), got, &want, &tolerance);
}

#[test]
fn every_shape_matches() {
    let mut variants = variants().cycle();
    for pairing in pairings() {
        let mut numbers = Numbers(1);
        for (rows, cols) in [1, 16, 23, 300].into_iter().flat_map(|rows| [32, 96, 576].map(|cols| (rows, cols))) {
            let bench = Bench::default();
            let (weight, _memory) = bench.weight(pairing, (rows, cols), (&mut numbers, 0.3));
            for tokens in [0, 1, 7, 13, 33, 64, 65] {
                let (input, x) = (numbers.values(tokens * cols, 2.0), numbers.values(tokens * rows, 1.0));
                let variant = variants.next().expect("they come again");
                let (got, _) = residual(&bench, variant, &weight, (&input, &x), None);
                check_residual(&format!("{pairing:?} {variant:?}"), &weight, (&input, &x), &got);
            }
        }
    }
}

#[test]
fn extremes_match() {
    let mut variants = variants().cycle();
    for pairing in pairings() {
        let mut numbers = Numbers(3);
        let (rows, cols, tokens) = (32, 64, 6);
        for (weight_scale, input_scale) in [(0.0, 1.0), (1.0, 0.0), (6e4, 1e10), (1e-3, 1e-33), (1.0, 1e30)] {
            let bench = Bench::default();
            let (weight, _memory) = bench.weight(pairing, (rows, cols), (&mut numbers, weight_scale));
            let mut input = numbers.values(tokens * cols, input_scale);
            input[cols..2 * cols].fill(input_scale); // a row whose values are all the largest
            input[2 * cols..3 * cols].fill(-input_scale);
            input[3 * cols + 1..4 * cols].fill(0.0); // a row of one value
            let x = vec![0.0; tokens * rows];
            let variant = variants.next().expect("they come again");
            let (got, _) = residual(&bench, variant, &weight, (&input, &x), None);
            check_residual(&format!("{pairing:?} {variant:?}"), &weight, (&input, &x), &got);
        }
    }
}

/// −128 and 127 in all 32 places, which no encoder writes and a file may hold, with d = 1.
#[test]
fn extreme_8_bit_weights_are_exact() {
    let block = |q: i8| [half::f16::ONE.to_le_bytes().to_vec(), vec![q as u8; 32]].concat();
    let data: Vec<u8> = (0..16).flat_map(|row| block(if row % 2 == 0 { -128 } else { 127 })).collect();
    let (format, rows, cols) = (WeightFormat::Q8_0, 16, 32);
    let source = PackSource { name: "test", format, rows, cols, data: &data };
    let bench = Bench::default();
    let memory = bench.put(&pack::pack(&source, format).expect("a shape"));
    for activations in [ACTIVATIONS_INT8, ACTIVATIONS_INT8X2] {
        let packed = WeightRef { data: memory.addr(), rows: 16, cols: 32, format: format as u32, activations };
        let weight = Weight { packed, values: Vec::new() };
        for value in [127.0, -127.0] {
            let input = (&[value; 32][..], &[0.0; 16][..]);
            let (got, _) = residual(&bench, (Mode::ALL[0], Block::Sliced(8)), &weight, input, None);
            let want = |row: usize| if row.is_multiple_of(2) { -128.0 } else { 127.0 } * value * 32.0;
            assert_eq!(got[..16], (0..16).map(want).collect::<Vec<f32>>());
        }
    }
}

/// A row's result has the same bits alone and among others, in every variant and mode; and so has what it leaves.
#[test]
fn rows_do_not_depend_on_their_batch() {
    for pairing in pairings() {
        let bench = Bench::default();
        let mut numbers = Numbers(4);
        let (rows, cols, tokens) = (64, 288, 65);
        let (weight, _memory) = bench.weight(pairing, (rows, cols), (&mut numbers, 0.3));
        let (input, x) = (numbers.values(tokens * cols, 2.0), numbers.values(tokens * rows, 1.0));
        let gamma = numbers.values(rows, 1.5);
        let next = Some((pairing.1, Some(gamma.as_slice())));
        let row_bytes = RowsLayout::new(rows, pairing.1).row_bytes;
        let all = residual(&bench, (Mode::ALL[0], Block::Sliced(64)), &weight, (&input, &x), next);
        let parts = [(0, 1), (37, 1), (64, 1), (9, 7), (3, 33), (0, 65)];
        for (index, (mode, block)) in variants().enumerate() {
            let turn = index % 2;
            for (first, count) in parts.into_iter().skip(turn).step_by(2) {
                let (input, x) = (&input[first * cols..][..count * cols], &x[first * rows..][..count * rows]);
                let some = residual(&bench, (mode, block), &weight, (input, x), next);
                let what = format!("{pairing:?}: rows {first}..{} in {mode:?}, {block:?}", first + count);
                assert!(some.0[..count * rows] == all.0[first * rows..][..count * rows], "{what}: x");
                let left = &all.1[first * row_bytes..][..count * row_bytes];
                assert!(some.1[..count * row_bytes] == *left, "{what}: left rows");
            }
        }
    }
}

/// The rows left for the next layer are those that the host makes of the result, bit by bit, and nothing else is.
#[test]
fn the_next_layer_finds_its_rows() {
    let mut variants = variants().cycle();
    let (rows, cols) = (96, 64);
    for (left_as, tokens) in [(ACTIVATIONS_BF16, 3), (ACTIVATIONS_INT8, 9), (ACTIVATIONS_INT8X2, 34)] {
        for (with_gamma, pairing) in [true, false].into_iter().flat_map(|g| pairings().into_iter().map(move |p| (g, p)))
        {
            let bench = Bench::default();
            let mut numbers = Numbers(5);
            let (weight, _memory) = bench.weight(pairing, (rows, cols), (&mut numbers, 0.3));
            let (input, x) = (numbers.values(tokens * cols, 2.0), numbers.values(tokens * rows, 1.0));
            let gamma = numbers.values(rows, 1.5);
            let gamma = with_gamma.then_some(gamma.as_slice());
            let variant = variants.next().expect("they come again");
            let (got, left) = residual(&bench, variant, &weight, (&input, &x), Some((left_as, gamma)));
            let mut want = prepared(&got[..tokens * rows], rows, gamma, left_as);
            want.resize(left.len(), POISON);
            assert!(left == want, "{pairing:?} {variant:?}, left as {left_as}, gamma: {with_gamma}");
        }
    }
}

/// The first block's begin and the last block's end, of a kernel that ran; no cell is touched without a stamp.
#[test]
fn stamps_are_in_order() {
    let bench = Bench::default();
    let mut numbers = Numbers(6);
    let (weight, _memory) = bench.weight((WeightFormat::Q4_0, ACTIVATIONS_INT8), (64, 96), (&mut numbers, 0.3));
    let (input, x) = (numbers.values(2 * 96, 1.0), bench.put(&[0f32; 128]));
    let (shape, rows) = (bench.shape(2), bench.rows(&input, 96, None, ACTIVATIONS_INT8));
    let (shape, rows, weight, next) = (shape.addr(), rows.addr(), weight.packed, NextRows::default());
    let params = LinearResidualParams {
        shape,
        from: x.addr(),
        x: x.addr(),
        rows,
        weight,
        next,
        scale: 1.0,
        ..Default::default()
    };
    for variant in variants() {
        let cells = bench.put(&[0u64; 2]);
        let info = LaunchInfo { stamp: cells.addr() };
        bench.run_stamped(OP, ACTIVATIONS_INT8, variant, (2, 80), &params, info);
        let [begin, end] = [!cells.read::<u64>()[0], cells.read::<u64>()[1]];
        assert!(0 < begin && begin < end && end - begin < 60_000_000_000, "{variant:?}: {begin} to {end}");
    }
}
