//! The linear kernels and the embedding, through the device, against their scalar references: every format, both ways
//! to read activations, every instruction set that this machine has, odd shapes.

#[path = "support/sets.rs"]
mod sets;

use sets::sets;
use vitrum::device::*;
use vitrum::doctor::bench::*;
use vitrum::doctor::linear::*;
use vitrum::doctor::norms::*;
use vitrum::formats::WeightFormat;
use vitrum::isa::IsaChoice;
use vitrum::kernels::linear::{Matrix, product, rms_norm, round_activations};
use vitrum::kernels::params::*;

/// On two threads of the CPU.
fn bench(isa: IsaChoice, format: WeightFormat, activations: Activations) -> Bench {
    let options =
        DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(2), isa: Some(isa), delay: None, activity: false };
    Bench::new(Device::open(&options).expect("the set is available"), format, activations)
}

/// Every format, way to read activations, and instruction set.
fn benches() -> impl Iterator<Item = Bench> {
    sets().flat_map(|isa| {
        WeightFormat::ALL
            .into_iter()
            .flat_map(move |format| ACTIVATIONS.into_iter().map(move |a| bench(isa, format, a)))
    })
}

fn passes(case: Case) {
    case.unwrap_or_else(|error| panic!("{error}"));
}

fn weight(bench: &mut Bench, rows: usize, cols: usize, values: &[f32]) -> Weight {
    bench.weight(rows, cols, values).expect("the shape is right")
}

// ---- x += input Wᵀ --------------------------------------------------------------------------------------------------

#[test]
fn residual_matches_for_every_shape() {
    for mut bench in benches() {
        let mut numbers = Numbers(1);
        let quantised = bench.format.block_values() > 1;
        let widths: &[usize] = if quantised { &[32, 96, 576] } else { &[1, 17, 96, 577] };
        for (rows, width) in [1, 16, 23, 160].into_iter().flat_map(|rows| widths.iter().map(move |w| (rows, *w))) {
            let values = numbers.values(rows * width, 0.3);
            let weight = weight(&mut bench, rows, width, &values);
            for tokens in [0, 1, 2, 3, 4, 5, 7, 17, 33] {
                let input = numbers.values(tokens * width, 2.0);
                let x = numbers.values(tokens * rows, 1.0);
                passes(check_residual(&mut bench, &weight, &input, &x));
            }
        }
    }
}

#[test]
fn residual_matches_beyond_one_tile() {
    for mut bench in benches() {
        let mut numbers = Numbers(2);
        let (rows, width, tokens) = (16 * 9 + 4, 64, 150);
        let values = numbers.values(rows * width, 0.3);
        let weight = weight(&mut bench, rows, width, &values);
        let (input, x) = (numbers.values(tokens * width, 2.0), numbers.values(tokens * rows, 1.0));
        passes(check_residual(&mut bench, &weight, &input, &x));
    }
}

#[test]
fn residual_matches_at_extremes() {
    for mut bench in benches() {
        let mut numbers = Numbers(3);
        let (rows, width, tokens) = (32, 64, 6);
        for (weight_scale, input_scale) in [(0.0, 1.0), (1.0, 0.0), (6e4, 1e10), (1e-3, 1e-33), (1.0, 1e30)] {
            let values = numbers.values(rows * width, weight_scale);
            let weight = weight(&mut bench, rows, width, &values);
            let mut input = numbers.values(tokens * width, input_scale);
            input[width..2 * width].fill(input_scale); // a row whose values are all the largest
            input[2 * width..3 * width].fill(-input_scale);
            input[3 * width + 1..4 * width].fill(0.0); // a row of one value
            passes(check_residual(&mut bench, &weight, &input, &vec![0.0; tokens * rows]));
        }
    }
}

#[test]
fn extreme_8_bit_weights_are_exact() {
    for isa in sets() {
        let mut bench = bench(isa, WeightFormat::Q8_0, Activations::Reduced);
        // 16 rows of −128 and of 127, d = 1, which no encoder writes and a file may hold.
        let block = |q: i8| [half::f16::ONE.to_le_bytes().to_vec(), vec![q as u8; 32]].concat();
        let data: Vec<u8> = (0..16).flat_map(|row| block(if row % 2 == 0 { -128 } else { 127 })).collect();
        let source = PackSource { name: "test", format: bench.format, rows: 16, cols: 32, data: &data };
        let packed = bench.device.pack(&source, Activations::Reduced).expect("the shape is right");
        let weight = Weight { packed, values: Vec::new() };
        for value in [127.0, -127.0] {
            let got = residual(&mut bench, &weight, &[value; 32], &[0.0; 16], 1).expect("no failure");
            let want = |row: usize| if row.is_multiple_of(2) { -128.0 } else { 127.0 } * value * 32.0;
            assert_eq!(got, (0..16).map(want).collect::<Vec<f32>>(), "{}", bench.what());
        }
    }
}

/// A row's result is the same bit by bit, alone and among others, whatever the bucket.
#[test]
fn rows_do_not_depend_on_their_batch() {
    for mut bench in benches() {
        let mut numbers = Numbers(4);
        let (rows, width, tokens) = (16 * 10, 96, 130);
        let values = numbers.values(rows * width, 0.3);
        let weight = weight(&mut bench, rows, width, &values);
        let input = numbers.values(tokens * width, 2.0);
        let x = numbers.values(tokens * rows, 1.0);
        let all = residual(&mut bench, &weight, &input, &x, 256).expect("no failure");
        for (first, count, bucket) in
            [(0, 1, 1), (5, 1, 8), (7, 1, 512), (3, 2, 2), (9, 4, 4), (9, 4, 16), (64, 33, 64), (1, 129, 256)]
        {
            let (input, x) = (&input[first * width..][..count * width], &x[first * rows..][..count * rows]);
            let some = residual(&mut bench, &weight, input, x, bucket).expect("no failure");
            let what = format!("{}: rows {first}..{} in bucket {bucket}", bench.what(), first + count);
            assert!(some[..count * rows] == all[first * rows..][..count * rows], "{what}");
        }
    }
}

/// All instruction sets give the same bits, but for bf16 dot products, whose roundings are the processor's own.
#[test]
fn instruction_sets_agree() {
    for format in WeightFormat::ALL {
        for activations in ACTIVATIONS {
            let mut first: Option<Vec<f32>> = None;
            for isa in sets() {
                let mut bench = bench(isa, format, activations);
                let mut numbers = Numbers(5);
                let values = numbers.values(48 * 96, 0.3);
                let weight = weight(&mut bench, 48, 96, &values);
                if weight.packed.activations == ACTIVATIONS_BF16 {
                    continue;
                }
                let (input, x) = (numbers.values(7 * 96, 2.0), numbers.values(7 * 48, 1.0));
                let got = residual(&mut bench, &weight, &input, &x, 8).expect("no failure");
                assert!(*first.get_or_insert_with(|| got.clone()) == got, "{}", bench.what());
            }
        }
    }
}

#[test]
fn a_row_of_no_whole_blocks_is_refused() {
    let mut bench = bench(IsaChoice::detect(), WeightFormat::Q4_0, Activations::Reduced);
    let source = PackSource { name: "odd", format: WeightFormat::Q4_0, rows: 1, cols: 33, data: &[] };
    let refused = bench.device.pack(&source, Activations::Reduced);
    assert!(matches!(refused, Err(DeviceError::PackShape { cols: 33, multiple: 32, .. })), "{refused:?}");
}

// ---- the other kernels ----------------------------------------------------------------------------------------------

#[test]
fn embedding_reads_packed_rows_back() {
    for mut bench in benches() {
        let hidden = if bench.format.block_values() > 1 { 96 } else { 33 };
        for sources in [&[][..], &[0], &[36, -1, 15, 16, -2, -3, 31, 1]] {
            passes(check_embedding(&mut bench, hidden, sources));
        }
    }
}

#[test]
fn qkv_are_rotated_and_cached() {
    for mut bench in benches() {
        for (heads, kv_format) in [([3, 1, 16], FORMAT_F16), ([2, 2, 48], FORMAT_F32)] {
            for tokens in [0, 1, 3, 6, 33] {
                let formats = [bench.format; 3];
                passes(check_qkv(&mut bench, formats, heads, kv_format, tokens));
            }
        }
    }
}

#[test]
fn gate_and_up_match() {
    for mut bench in benches() {
        let hidden = if bench.format.block_values() > 1 { 96 } else { 65 };
        for ffn in [16, 149] {
            for tokens in [0, 1, 2, 5, 17] {
                let formats = [bench.format; 2];
                passes(check_gate_up(&mut bench, formats, (ffn, hidden), tokens));
            }
        }
    }
}

/// Weights of one node may be of any formats, whatever forms those read rows in: every pair, on every set, with rows
/// that threads prepare alone and together.
#[test]
fn gate_and_up_of_any_formats_match() {
    for (isa, activations) in sets().flat_map(|isa| ACTIVATIONS.map(|activations| (isa, activations))) {
        for gate in WeightFormat::ALL {
            let mut bench = bench(isa, gate, activations);
            for formats in WeightFormat::ALL.map(|up| [gate, up]) {
                [1, 6].iter().for_each(|rows| passes(check_gate_up(&mut bench, formats, (37, 64), *rows)));
            }
        }
    }
}

/// The same of every triple of query, key and value projections.
#[test]
fn qkv_of_any_formats_match() {
    for (isa, activations) in sets().flat_map(|isa| ACTIVATIONS.map(|activations| (isa, activations))) {
        for query in WeightFormat::ALL {
            let mut bench = bench(isa, query, activations);
            for formats in
                WeightFormat::ALL.into_iter().flat_map(|key| WeightFormat::ALL.map(|value| [query, key, value]))
            {
                [1, 6].iter().for_each(|rows| passes(check_qkv(&mut bench, formats, [3, 1, 16], FORMAT_F32, *rows)));
            }
        }
    }
}

#[test]
fn queries_and_keys_are_normed_and_cached() {
    for isa in sets() {
        let mut bench = bench(isa, WeightFormat::F32, Activations::F32);
        for (heads, kind) in [[3, 1, 16], [2, 2, 48], [4, 2, 256]]
            .into_iter()
            .flat_map(|heads| [(false, true), (true, true), (false, false), (true, false)].map(|kind| (heads, kind)))
        {
            for (tokens, kv_format) in [(0, FORMAT_F16), (1, FORMAT_F16), (3, FORMAT_F32), (33, FORMAT_F16)] {
                passes(check_qk_norm(&mut bench, heads, kind, kv_format, tokens));
            }
        }
    }
}

#[test]
fn norms_behind_projections_match() {
    for isa in sets() {
        let mut bench = bench(isa, WeightFormat::F32, Activations::F32);
        for hidden in [1, 16, 33, 96, 577] {
            [0, 1, 3, 33].iter().for_each(|tokens| passes(check_norm_residual(&mut bench, hidden, *tokens)));
        }
    }
}

#[test]
fn logits_of_gathered_rows_match() {
    let many: Vec<u32> = (0..33).map(|i| i * 17 % 40).collect();
    for mut bench in benches() {
        for logit_rows in [&[][..], &[39], &[1, 1, 38], &[39, 0, 7, 7, 20], &many] {
            passes(check_logits(&mut bench, 203, logit_rows));
        }
    }
}

/// What is wrong is an error that says where.
#[test]
fn a_wrong_value_is_found() {
    let (got, want, tolerance) = ([1.0, 2.0, UNTOUCHED], [1.0, 2.1], [0.01, 0.01]);
    let error = check("case", &got, &want, &tolerance).expect_err("2 is not 2.1").to_string();
    assert!(error.starts_with("case, value 1: 2 and not 2.1 (off by 1.0"), "{error}");
    assert!(check("case", &[f32::NAN], &[0.0], &[1e9]).is_err(), "no number is near anything");
    let error = check("case", &[1.0, 5.0], &[1.0], &[0.0]).expect_err("5 is behind the last row").to_string();
    assert_eq!(error, "case: touched beyond the last row");
    assert_eq!(check("case", &[1.5, UNTOUCHED], &[1.0], &[1.0]).expect("near"), 0.5);
}

// ---- the references themselves --------------------------------------------------------------------------------------

#[test]
fn references_do_what_they_say() {
    let norm = rms_norm(&[3.0, -4.0], &[1.0, 2.0], 0.0);
    let rms = 12.5f64.sqrt();
    assert!((norm[0] - 3.0 / rms).abs() < 1e-15 && (norm[1] + 8.0 / rms).abs() < 1e-15, "{norm:?}");
    let row: Vec<f64> = (0..32).map(|i| f64::from(i) - 16.0).collect();
    let rounded = round_activations(&row, ACTIVATIONS_INT8);
    let worst = row.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= 16.0 / 127.0 / 2.0 && worst > 0.0 && rounded[0] == -16.0, "{worst}");
    let rounded = round_activations(&row, ACTIVATIONS_INT8X2);
    let worst = row.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= 16.0 / 127.0 / 254.0 / 2.0 + 1e-12 && worst > 0.0 && rounded[0] == -16.0, "{worst}");
    let matrix = Matrix { values: &[1.0, 2.0, 3.0, 4.0], rows: 2, cols: 2 };
    assert_eq!(product(&matrix, &[10.0, 1.0]), [12.0, 34.0]);
}
