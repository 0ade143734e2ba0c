//! Norm, gate, up; and norm, logits.

use vitrum::doctor::bench::{EPS, Numbers, UNTOUCHED, Weight};
use vitrum::doctor::linear::{RowInput, gate_up_tolerances};
use vitrum::formats::WeightFormat;
use vitrum::kernels::DevicePtr;
use vitrum::kernels::linear::{Matrix, rms_norm};
use vitrum::kernels::params::*;
use vitrum::kernels::{norm_gate_up, norm_lm_head};

use crate::bench::*;

/// What a norm kernel's tests share.
pub(crate) struct NormCase {
    pub(crate) bench: Bench,
    pub(crate) x: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) rows: Memory,
    pub(crate) shape: Memory,
}

impl NormCase {
    pub(crate) fn new(numbers: &mut Numbers, (tokens, hidden): (usize, usize), activations: u32) -> NormCase {
        let bench = Bench::default();
        let (x, gamma) = (numbers.values(tokens * hidden, 3.0), numbers.values(hidden, 1.5));
        let (rows, shape) = (bench.rows(&x, hidden, Some(&gamma), activations), bench.shape(tokens));
        NormCase { bench, x, gamma, rows, shape }
    }

    /// Tolerances of a weight's products with the normalised rows.
    pub(crate) fn tolerances(&self, weight: &Weight) -> Vec<f64> {
        let rows = self.x.chunks_exact(self.gamma.len()).map(|x| rms_norm(x, &self.gamma, EPS));
        // One more rounding of the whole, and those of the root.
        rows.flat_map(|row| weight.tolerances(&row)).map(|tolerance| tolerance * 1.01).collect()
    }
}

fn gate_up_reference(case: &NormCase, [gate, up]: [Matrix<'_>; 2], activations: u32) -> [Vec<f64>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for x in case.x.chunks_exact(gate.cols) {
        let RowInput { x, gamma, eps, activations } = RowInput::rounded_first(x, &case.gamma, activations);
        let activations = [activations; 2];
        let input = norm_gate_up::Reference { x: &x, gamma: Some(&gamma), bias: None, eps, gate, up, activations };
        all.iter_mut().zip(norm_gate_up::reference(&input)).for_each(|(all, row)| all.extend(row));
    }
    all
}

#[test]
fn gate_and_up_match() {
    let mut variants = variants().cycle();
    for pairing in pairings() {
        let (mut numbers, hidden) = (Numbers(8), 96);
        for (ffn, tokens) in [16, 149].into_iter().flat_map(|ffn| [0, 1, 5, 17, 65].map(|tokens| (ffn, tokens))) {
            let case = NormCase::new(&mut numbers, (tokens, hidden), pairing.1);
            let [(gate, _g), (up, _u)] =
                [(); 2].map(|()| case.bench.weight(pairing, (ffn, hidden), (&mut numbers, 0.4)));
            let out = case.bench.put(&vec![UNTOUCHED; (tokens + 1) * ffn]);
            let variant = variants.next().expect("they come again");
            run_gate_up(&case, variant, [&gate, &up], out.addr(), NextRows::default());
            let [gates, ups, want] = gate_up_reference(&case, [gate.matrix(), up.matrix()], pairing.1);
            let (gate_off, up_off) = (case.tolerances(&gate), case.tolerances(&up));
            let tolerance = gate_up_tolerances([&gates, &ups], [&gate_off, &up_off]);
            let what = format!("{pairing:?} {variant:?} ffn {ffn} x {tokens}");
            check(&what, &out.read(), &want, &tolerance);
        }
    }
}

/// Every pair of file formats: where one of them is no integers, both are packed as bf16.
#[test]
fn gate_and_up_of_any_formats_match() {
    let (mut variants, ffn, hidden, tokens) = (variants().cycle(), 37, 64, 6);
    for formats in WeightFormat::ALL.into_iter().flat_map(|gate| WeightFormat::ALL.map(|up| [gate, up])) {
        let (mut numbers, activations) = (Numbers(8), activations_of(&formats, ACTIVATIONS_INT8));
        let case = NormCase::new(&mut numbers, (tokens, hidden), activations);
        let [(gate, _g), (up, _u)] = formats.map(|format| {
            case.bench.weight_beside((format, activations), &formats, (ffn, hidden), (&mut numbers, 0.4))
        });
        let out = case.bench.put(&vec![UNTOUCHED; (tokens + 1) * ffn]);
        let variant = variants.next().expect("they come again");
        run_gate_up(&case, variant, [&gate, &up], out.addr(), NextRows::default());
        let [gates, ups, want] = gate_up_reference(&case, [gate.matrix(), up.matrix()], activations);
        let (gate_off, up_off) = (case.tolerances(&gate), case.tolerances(&up));
        let tolerance = gate_up_tolerances([&gates, &ups], [&gate_off, &up_off]);
        check(&format!("{formats:?} {variant:?}"), &out.read(), &want, &tolerance);
    }
}

fn run_gate_up(
    case: &NormCase,
    variant: (softcuda::emulate::Mode, Block),
    [gate, up]: [&Weight; 2],
    out: DevicePtr<f32>,
    next: NextRows,
) {
    let (hidden, ffn) = (case.gamma.len(), gate.packed.rows as usize);
    let gamma = case.bench.put(&case.gamma);
    let params = NormGateUpParams {
        shape: case.shape.addr(),
        x: DevicePtr::NULL,
        gamma: gamma.addr(),
        bias: DevicePtr::NULL,
        out,
        rows: case.rows.addr(),
        gate: gate.packed,
        up: up.packed,
        next,
        eps: EPS,
        hidden: hidden as u32,
        ffn: ffn as u32,
        reserved: 0,
    };
    let grid = (ffn.div_ceil(BLOCK_OUTPUTS), (case.x.len() / hidden + 1).next_multiple_of(8));
    case.bench.run("norm_gate_up", gate.packed.activations, variant, grid, &params);
}

/// What is left for the next layer is what `out` would be, of any two formats; and it is left without `out`, too.
#[test]
fn the_down_projection_finds_its_rows() {
    let (hidden, ffn, tokens) = (64, 64, 19);
    let all = pairings();
    for (mode, block) in variants() {
        for (index, pairing) in all.iter().enumerate() {
            let other = all.iter().cycle().skip(index + 2).find(|other| other.1 == pairing.1).expect("itself");
            let mut numbers = Numbers(10);
            let case = NormCase::new(&mut numbers, (tokens, hidden), pairing.1);
            let [(gate, _g), (up, _u)] =
                [*pairing, *other].map(|pairing| case.bench.weight(pairing, (ffn, hidden), (&mut numbers, 0.4)));
            let out = case.bench.put(&vec![UNTOUCHED; tokens * ffn]);
            let mut want = None;
            for addr in [out.addr(), DevicePtr::NULL] {
                let left_as = ACTIVATIONS_INT8X2;
                let left =
                    case.bench.put(&vec![POISON; prepared(&vec![0.0; (tokens + 1) * ffn], ffn, None, left_as).len()]);
                let next = NextRows { rows: left.addr(), gamma: DevicePtr::NULL, activations: left_as, reserved: 0 };
                run_gate_up(&case, (mode, block), [&gate, &up], addr, next);
                let left = left.read::<u8>();
                let want = want.get_or_insert_with(|| {
                    let mut want = prepared(&out.read::<f32>(), ffn, None, left_as);
                    want.resize(left.len(), POISON);
                    want
                });
                assert!(left == *want, "{pairing:?} and {other:?}, {mode:?}, {block:?}, out at {addr:?}");
            }
        }
    }
}

#[test]
fn logits_of_gathered_rows_match() {
    let mut variants = variants().cycle();
    for pairing in pairings() {
        let (vocab, stride, hidden, tokens) = (203, 224, 64, 40);
        let mut numbers = Numbers(9);
        let case = NormCase::new(&mut numbers, (tokens, hidden), pairing.1);
        let (weight, _memory) = case.bench.weight(pairing, (vocab, hidden), (&mut numbers, 0.4));
        let lists: [Vec<u32>; 5] =
            [vec![], vec![39], vec![1, 1, 38], vec![39, 0, 7, 7, 20], (0..33).map(|i| i * 17 % 40).collect()];
        for list in lists {
            let variant = variants.next().expect("they come again");
            let got = logits(&case, variant, &weight, &list, stride);
            let (rows, behind) = got.split_at(list.len() * stride);
            let rows: Vec<f32> = rows.chunks_exact(stride).flat_map(|row| &row[..vocab]).copied().collect();
            let (mut want, mut tolerance) = (Vec::new(), Vec::new());
            for row in &list {
                let x = &case.x[*row as usize * hidden..][..hidden];
                let RowInput { x: rounded, gamma, eps, activations } =
                    RowInput::rounded_first(x, &case.gamma, pairing.1);
                let (x_rows, logit_rows, weight_matrix) = (&rounded, &[0], weight.matrix());
                let (x, gamma, weight_of) = (x_rows, &gamma, weight_matrix);
                want.extend(norm_lm_head::reference(&norm_lm_head::Reference {
                    x,
                    logit_rows,
                    gamma,
                    eps,
                    weight: weight_of,
                    activations,
                    scale: 1.0,
                }));
                let row = &case.x[*row as usize * hidden..][..hidden];
                tolerance.extend(weight.tolerances(&rms_norm(row, &case.gamma, EPS)).iter().map(|t| t * 1.01));
            }
            check(&format!("{pairing:?} {variant:?} x {}", list.len()), &rows, &want, &tolerance);
            assert!(behind.iter().all(|value| *value == UNTOUCHED), "{pairing:?}: touched beyond the last row");
        }
    }
}

fn logits(
    case: &NormCase,
    variant: (softcuda::emulate::Mode, Block),
    weight: &Weight,
    list: &[u32],
    stride: usize,
) -> Vec<f32> {
    let logits = case.bench.put(&vec![UNTOUCHED; (list.len() + 1) * stride]);
    let (shape, logit_rows) = (case.bench.shape(list.len()), case.bench.put(list));
    let params = NormLmHeadParams {
        shape: shape.addr(),
        x: DevicePtr::NULL,
        logit_rows: logit_rows.addr(),
        gamma: DevicePtr::NULL,
        logits: logits.addr(),
        rows: case.rows.addr(),
        weight: weight.packed,
        eps: EPS,
        hidden: weight.packed.cols,
        vocab: weight.packed.rows,
        stride: stride as u32,
        scale: 1.0,
        reserved: 0,
    };
    let grid = ((weight.packed.rows as usize).div_ceil(BLOCK_OUTPUTS), (list.len() + 1).next_multiple_of(8));
    case.bench.run("norm_lm_head", weight.packed.activations, variant, grid, &params);
    logits.read()
}
