//! The linear kernels and the embedding, through the device, against their scalar references: every format, both ways
//! to read activations, every instruction set that this machine has, odd shapes.

mod kernel_bench;

use kernel_bench::*;
use vitrum::device::cpu::IsaChoice;
use vitrum::device::params::*;
use vitrum::device::*;
use vitrum::ops::linear::{Matrix, product, rms_norm, round_activations};
use vitrum::ops::{embed, linear_residual, norm_gate_up, norm_lm_head, norm_qkv};
use vitrum::trace::schema::{Op, Place};

const EPS: f32 = 1e-5;
// ---- x += input Wᵀ
// ---------------------------------------------------------------------------------------------------

/// One residual projection.
fn residual(bench: &mut Bench, weight: &Weight, input: &[f32], x: &[f32], bucket: usize) -> Vec<f32> {
    let (rows, width) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let tokens = input.len() / width;
    let mut memory = x.to_vec();
    memory.resize(bucket * rows, UNTOUCHED);
    let mut padded = input.to_vec();
    padded.resize(bucket * width, f32::NAN);
    let op = linear_residual::LinearResidual {
        shape: bench.shape(tokens),
        input: bench.put(&padded),
        x: bench.put(&memory),
        rows: bench.activation_rows(bucket, width),
        weight: weight.packed,
        next: NextRows::default(),
    };
    bench.run(op.node(Place { layer: 0, op: Op::MlpDown }), bucket, op.x, bucket * rows)
}

fn check_residual(bench: &mut Bench, weight: &Weight, input: &[f32], x: &[f32]) {
    let (rows, width) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let tokens = input.len() / width;
    let got = residual(bench, weight, input, x, bucket_of(tokens));
    let want = linear_residual::reference(&weight.matrix(), weight.packed.activations, input, x);
    let mut tolerance = Vec::new();
    for (input, x) in input.chunks_exact(width).zip(x.chunks_exact(rows)) {
        let row = weight.tolerances(&as_f64(input));
        tolerance.extend(row.iter().zip(x).map(|(t, x)| t * 1.01 + 1e-7 * f64::from(x.abs())));
    }
    let slack = want.iter().zip(&mut tolerance);
    slack.for_each(|(want, tolerance)| *tolerance += want.abs() * 1e-7);
    check(&format!("{} ({rows}, {width}) x {tokens}", bench.what), &got, &want, &tolerance);
}

#[test]
fn residual_matches_for_every_shape() {
    for mut bench in benches() {
        let mut numbers = Numbers(1);
        let quantised = bench.format.block_values() > 1;
        let widths: &[usize] = if quantised { &[32, 96, 576] } else { &[1, 17, 96, 577] };
        for (rows, width) in [1, 16, 23, 160].into_iter().flat_map(|rows| widths.iter().map(move |w| (rows, *w))) {
            let values = numbers.values(rows * width, 0.3);
            let weight = bench.weight(rows, width, &values);
            for tokens in [0, 1, 2, 3, 4, 5, 7, 17, 33] {
                let input = numbers.values(tokens * width, 2.0);
                let x = numbers.values(tokens * rows, 1.0);
                check_residual(&mut bench, &weight, &input, &x);
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
        let weight = bench.weight(rows, width, &values);
        let (input, x) = (numbers.values(tokens * width, 2.0), numbers.values(tokens * rows, 1.0));
        check_residual(&mut bench, &weight, &input, &x);
    }
}

#[test]
fn residual_matches_at_extremes() {
    for mut bench in benches() {
        let mut numbers = Numbers(3);
        let (rows, width, tokens) = (32, 64, 6);
        for (weight_scale, input_scale) in [(0.0, 1.0), (1.0, 0.0), (6e4, 1e10), (1e-3, 1e-33), (1.0, 1e30)] {
            let values = numbers.values(rows * width, weight_scale);
            let weight = bench.weight(rows, width, &values);
            let mut input = numbers.values(tokens * width, input_scale);
            input[width..2 * width].fill(input_scale); // a row whose values are all the largest
            input[2 * width..3 * width].fill(-input_scale);
            input[3 * width + 1..4 * width].fill(0.0); // a row of one value
            check_residual(&mut bench, &weight, &input, &vec![0.0; tokens * rows]);
        }
    }
}

#[test]
fn extreme_8_bit_weights_are_exact() {
    for isa in sets() {
        let mut bench = Bench::new(isa, WeightFormat::Q8_0, Activations::Reduced);
        // 16 rows of −128 and of 127, d = 1, which no encoder writes and a file may hold.
        let block = |q: i8| [half::f16::ONE.to_le_bytes().to_vec(), vec![q as u8; 32]].concat();
        let data: Vec<u8> = (0..16).flat_map(|row| block(if row % 2 == 0 { -128 } else { 127 })).collect();
        let source = PackSource { name: "test", format: bench.format, rows: 16, cols: 32, data: &data };
        let packed = bench.device.pack(&source, Activations::Reduced).expect("the shape is right");
        let weight = Weight { packed, values: Vec::new() };
        for value in [127.0, -127.0] {
            let got = residual(&mut bench, &weight, &[value; 32], &[0.0; 16], 1);
            let want = |row: usize| if row.is_multiple_of(2) { -128.0 } else { 127.0 } * value * 32.0;
            assert_eq!(got, (0..16).map(want).collect::<Vec<f32>>(), "{}", bench.what);
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
        let weight = bench.weight(rows, width, &values);
        let input = numbers.values(tokens * width, 2.0);
        let x = numbers.values(tokens * rows, 1.0);
        let all = residual(&mut bench, &weight, &input, &x, 256);
        for (first, count, bucket) in
            [(0, 1, 1), (5, 1, 8), (7, 1, 512), (3, 2, 2), (9, 4, 4), (9, 4, 16), (64, 33, 64), (1, 129, 256)]
        {
            let (input, x) = (&input[first * width..][..count * width], &x[first * rows..][..count * rows]);
            let some = residual(&mut bench, &weight, input, x, bucket);
            let what = format!("{}: rows {first}..{} in bucket {bucket}", bench.what, first + count);
            assert!(some[..count * rows] == all[first * rows..][..count * rows], "{what}");
        }
    }
}

/// All instruction sets give the same bits, but for bf16 dot products, whose roundings are the processor's own.
#[test]
fn instruction_sets_agree() {
    for format in FORMATS {
        for activations in ACTIVATIONS {
            let mut first: Option<Vec<f32>> = None;
            for isa in sets() {
                let mut bench = Bench::new(isa, format, activations);
                let mut numbers = Numbers(5);
                let values = numbers.values(48 * 96, 0.3);
                let weight = bench.weight(48, 96, &values);
                if weight.packed.activations == ACTIVATIONS_BF16 {
                    continue;
                }
                let (input, x) = (numbers.values(7 * 96, 2.0), numbers.values(7 * 48, 1.0));
                let got = residual(&mut bench, &weight, &input, &x, 8);
                assert!(*first.get_or_insert_with(|| got.clone()) == got, "{}", bench.what);
            }
        }
    }
}

#[test]
fn a_row_of_no_whole_blocks_is_refused() {
    let mut bench = Bench::new(IsaChoice::detect(), WeightFormat::Q4_0, Activations::Reduced);
    let source = PackSource { name: "odd", format: WeightFormat::Q4_0, rows: 1, cols: 33, data: &[] };
    let refused = bench.device.pack(&source, Activations::Reduced);
    assert!(matches!(refused, Err(DeviceError::PackShape { cols: 33, multiple: 32, .. })), "{refused:?}");
}

// ---- embedding ------------------------------------------------------------------------------------------------------

#[test]
fn embedding_reads_packed_rows_back() {
    for mut bench in benches() {
        let mut numbers = Numbers(6);
        let (vocab, hidden) = (37, if bench.format.block_values() > 1 { 96 } else { 33 });
        let values = numbers.values(vocab * hidden, 1.0);
        let weight = bench.weight(vocab, hidden, &values);
        let slots = [36, 2, 17];
        for sources in [vec![], vec![0], vec![36, -1, 15, 16, -2, -3, 31, 1]] {
            let bucket = bucket_of(sources.len());
            let op = embed::Embed {
                shape: bench.shape(sources.len()),
                token_source: bench.put(&sources),
                slot_tokens: bench.put(&slots),
                x: bench.put(&vec![UNTOUCHED; bucket * hidden]),
                weight: weight.packed,
                next: NextRows::default(),
            };
            let got = bench.run(op.node(), bucket, op.x, bucket * hidden);
            let want = embed::reference(&weight.matrix(), &sources, &slots);
            check(&bench.what, &got, &want, &vec![0.0; want.len()]); // the same products, rounded once
        }
    }
}

// ---- norm, q, k, v --------------------------------------------------------------------------------------------------

/// A rotated pair takes the errors of both of its values, and three roundings.
fn rotated(values: &[f64], tolerances: &[f64]) -> Vec<f64> {
    let pairs = values.chunks_exact(2).zip(tolerances.chunks_exact(2));
    pairs.flat_map(|(v, t)| [t[0] + t[1] + 4e-7 * (v[0].abs() + v[1].abs()); 2]).collect()
}

#[test]
fn qkv_are_rotated_and_cached() {
    for mut bench in benches() {
        for (heads, kv_heads, head_dim, kv_format) in [(3, 1, 16, FORMAT_F16), (2, 2, 48, FORMAT_F32)] {
            for tokens in [0, 1, 3, 6, 33] {
                qkv_case(&mut bench, [heads, kv_heads, head_dim], kv_format, tokens);
            }
        }
    }
}

fn qkv_case(bench: &mut Bench, [heads, kv_heads, head_dim]: [usize; 3], kv_format: u32, tokens: usize) {
    const PAGE: usize = PAGE_TOKENS as usize;
    let mut numbers = Numbers(7 + tokens as u64);
    let (hidden, max_position, pages, bucket) = (64, 50, 4, bucket_of(tokens));
    let (q_rows, kv_rows) = (heads * head_dim, kv_heads * head_dim);
    let weights =
        [q_rows, kv_rows, kv_rows].map(|rows| bench.weight(rows, hidden, &numbers.values(rows * hidden, 0.3)));
    let (x, gamma) = (numbers.values(tokens * hidden, 3.0), numbers.values(hidden, 1.5));
    let angles = (0..max_position * head_dim / 2).map(|i| i as f32 * 0.37);
    let rope: Vec<f32> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|i| (i * 7 + 3) % max_position as u32).collect();
    let slots: Vec<u32> = (0..tokens as u32).map(|i| i * 11 % (PAGE * pages) as u32).collect(); // 11: no slot twice
    let cache_len = pages * kv_rows * PAGE;
    let half = kv_format == FORMAT_F16;
    let caches = [(); 2].map(|()| match half {
        true => bench.put(&vec![half::f16::from_f32(UNTOUCHED).to_bits(); cache_len]),
        false => bench.put(&vec![UNTOUCHED; cache_len]),
    });
    let op = norm_qkv::NormQkv {
        shape: bench.shape(tokens),
        x: bench.put(&x),
        gamma: bench.put(&gamma),
        rope: bench.put(&rope),
        positions: bench.put(&positions),
        slot_mapping: bench.put(&slots),
        q: bench.put(&vec![UNTOUCHED; bucket * q_rows]),
        rows: bench.activation_rows(bucket, hidden),
        wq: weights[0].packed,
        wk: weights[1].packed,
        wv: weights[2].packed,
        kv: KvCacheRef { k: caches[0], v: caches[1], format: kv_format, pages: pages as u32 },
        eps: EPS,
        head_dim: head_dim as u32,
    };
    let q = bench.run::<f32>(op.node(0), bucket, op.q, bucket * q_rows);
    let read_cache = |bench: &mut Bench, addr| match half {
        true => {
            let words = bench.run::<u16>(op.node(0), bucket, addr, cache_len);
            words.into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect()
        }
        false => bench.run::<f32>(op.node(0), bucket, addr, cache_len),
    };
    let (k_cache, v_cache): (Vec<f32>, Vec<f32>) = (read_cache(bench, caches[0]), read_cache(bench, caches[1]));

    let matrices = [weights[0].matrix(), weights[1].matrix(), weights[2].matrix()];
    let activations = op.wq.activations;
    let (x, gamma, rope) = (x.as_slice(), gamma.as_slice(), rope.as_slice());
    let reference = norm_qkv::Reference {
        x,
        gamma,
        eps: EPS,
        weights: matrices,
        activations,
        rope,
        positions: &positions,
        head_dim,
    };
    let [want_q, want_k, want_v] = norm_qkv::reference(&reference);
    let tolerances = [0, 1, 2].map(|part| {
        let rows = x.chunks_exact(hidden).map(|x| rms_norm(x, gamma, EPS));
        rows.flat_map(|row| weights[part].tolerances(&row)).collect::<Vec<_>>()
    });
    let what = format!("{} heads ({heads}, {kv_heads}, {head_dim}) x {tokens}", bench.what);
    check(&what, &q, &want_q, &rotated(&want_q, &tolerances[0]));

    // The caches, read in the order of tokens; what no token wrote is untouched.
    let (mut k, mut v) = (Vec::new(), Vec::new());
    let mut written = vec![false; cache_len];
    for slot in slots.iter().map(|slot| *slot as usize) {
        for (head, dim) in (0..kv_heads).flat_map(|head| (0..head_dim).map(move |dim| (head, dim))) {
            let page = (slot / PAGE * kv_heads + head) * head_dim * PAGE;
            let (at_k, at_v) = (page + dim * PAGE + slot % PAGE, page + slot % PAGE * head_dim + dim);
            k.push(k_cache[at_k]);
            v.push(v_cache[at_v]);
            written[at_v] = true;
        }
    }
    let stored = |tolerances: Vec<f64>, want: &[f64]| {
        let rounding = if half { 0.5f64.powi(11) } else { 0.0 };
        tolerances.iter().zip(want).map(|(t, want)| t * 1.01 + want.abs() * rounding + 1e-7).collect::<Vec<_>>()
    };
    check(&format!("{what}: k"), &k, &want_k, &stored(rotated(&want_k, &tolerances[1]), &want_k));
    check(&format!("{what}: v"), &v, &want_v, &stored(tolerances[2].clone(), &want_v));
    let untouched = half::f16::from_f32(UNTOUCHED).to_f32();
    let expected = if half { untouched } else { UNTOUCHED };
    let touched = v_cache.iter().zip(&written).any(|(value, written)| !written && *value != expected);
    assert!(!touched, "{what}: V touched beyond the step's slots");
    let count = k_cache.iter().filter(|value| **value != expected).count();
    assert_eq!(count, tokens * kv_rows, "{what}: K touched beyond the step's slots");
}

// ---- norm, gate, up -------------------------------------------------------------------------------------------------

#[test]
fn gate_and_up_match() {
    for mut bench in benches() {
        let mut numbers = Numbers(8);
        let hidden = if bench.format.block_values() > 1 { 96 } else { 65 };
        for ffn in [16, 149] {
            let weights = [(); 2].map(|()| bench.weight(ffn, hidden, &numbers.values(ffn * hidden, 0.4)));
            let gamma = numbers.values(hidden, 1.5);
            for tokens in [0, 1, 2, 5, 17] {
                let (x, bucket) = (numbers.values(tokens * hidden, 3.0), bucket_of(tokens));
                let op = norm_gate_up::NormGateUp {
                    shape: bench.shape(tokens),
                    x: bench.put(&x),
                    gamma: bench.put(&gamma),
                    out: bench.put(&vec![UNTOUCHED; bucket * ffn]),
                    rows: bench.activation_rows(bucket, hidden),
                    gate: weights[0].packed,
                    up: weights[1].packed,
                    eps: EPS,
                    next: NextRows::default(),
                };
                let got = bench.run(op.node(0), bucket, op.out, bucket * ffn);
                let (gate, up, activations) = (weights[0].matrix(), weights[1].matrix(), op.gate.activations);
                let reference = norm_gate_up::Reference { x: &x, gamma: &gamma, eps: EPS, gate, up, activations };
                let [gates, ups, want] = norm_gate_up::reference(&reference);
                let rows: Vec<_> = x.chunks_exact(hidden).map(|x| rms_norm(x, &gamma, EPS)).collect();
                let gate_off: Vec<_> = rows.iter().flat_map(|row| weights[0].tolerances(row)).collect();
                let up_off: Vec<_> = rows.iter().flat_map(|row| weights[1].tolerances(row)).collect();
                // SiLU's slope is at most 1.1, SiLU itself at most |gate|; exp, division and product round a few times.
                let tolerance = (0..want.len()).map(|i| {
                    let up_max = ups[i].abs() + up_off[i];
                    1.1 * gate_off[i] * up_max + gates[i].abs() * up_off[i] + 1e-6 * (gates[i] * ups[i]).abs() + 1e-12
                });
                check(&format!("{} ffn {ffn} x {tokens}", bench.what), &got, &want, &tolerance.collect::<Vec<_>>());
            }
        }
    }
}

// ---- logits ---------------------------------------------------------------------------------------------------------

#[test]
fn logits_of_gathered_rows_match() {
    for mut bench in benches() {
        let mut numbers = Numbers(9);
        let (vocab, stride, hidden, tokens) = (203, 224, 64, 40);
        let weight = bench.weight(vocab, hidden, &numbers.values(vocab * hidden, 0.4));
        let (x, gamma) = (numbers.values(tokens * hidden, 3.0), numbers.values(hidden, 1.5));
        for logit_rows in
            [vec![], vec![39], vec![1, 1, 38], vec![39, 0, 7, 7, 20], (0..33).map(|i| i * 17 % 40).collect()]
        {
            let (rows, bucket): (usize, _) = (logit_rows.len(), bucket_of(logit_rows.len()));
            let op = norm_lm_head::NormLmHead {
                shape: bench.shape(rows),
                x: bench.put(&x),
                logit_rows: bench.put::<u32>(&logit_rows),
                gamma: bench.put(&gamma),
                logits: bench.put(&vec![UNTOUCHED; bucket * stride]),
                rows: bench.activation_rows(bucket, hidden),
                weight: weight.packed,
                eps: EPS,
                stride: stride as u32,
            };
            let got = bench.run::<f32>(op.node(), bucket, op.logits, bucket * stride);
            let (logits, behind) = got.split_at(rows * stride);
            let logits: Vec<f32> = logits.chunks_exact(stride).flat_map(|row| &row[..vocab]).copied().collect();
            let reference = norm_lm_head::Reference {
                x: &x,
                logit_rows: &logit_rows,
                gamma: &gamma,
                eps: EPS,
                weight: weight.matrix(),
                activations: weight.packed.activations,
            };
            let normalised = logit_rows.iter().map(|row| rms_norm(&x[*row as usize * hidden..][..hidden], &gamma, EPS));
            let tolerance: Vec<f64> = normalised.flat_map(|row| weight.tolerances(&row)).collect();
            check(&format!("{} x {rows}", bench.what), &logits, &norm_lm_head::reference(&reference), &tolerance);
            assert!(behind.iter().all(|value| *value == UNTOUCHED), "{}: touched beyond the last row", bench.what);
        }
    }
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
