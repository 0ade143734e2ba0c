//! Every kernel against its reference: all formats and ways to read activations, one row, odd numbers of rows, and more
//! rows than one block takes.

use super::attention::{self, Heads};
use super::bench::{ACTIVATIONS, Bench, Case, CaseError, Numbers};
use super::{Doctor, Finding, Found, linear, norms, open, sample};
use crate::device::{Activations, DeviceChoice};
use crate::formats::WeightFormat;
use crate::kernels::params::{FORMAT_F16, FORMAT_F32};

/// Rows of a step: each in a bucket that CUDA kernels have a variant for, the last one in two blocks of 64.
const ROWS: [usize; 4] = [1, 13, 29, ROWS_MOST];
const ROWS_MOST: usize = 67;

/// Outputs of which half as many as a GPU has multiprocessors are enough for a CUDA kernel to have wide blocks: with
/// [`ROWS`]' last number of rows there are two for each.
const WIDE_OUTPUTS: usize = 256;

/// Formats of the weights of one node that do not all read rows in the same form.
const UNLIKE: [WeightFormat; 3] = [WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_1];

/// Query heads, heads of keys and values, width: every width that there is a CUDA kernel for.
const HEADS: [[usize; 3]; 8] =
    [[3, 1, 16], [4, 2, 32], [4, 2, 48], [9, 3, 64], [2, 2, 80], [4, 1, 96], [4, 2, 112], [8, 2, 128]];

/// Rows of a sequence, and its length: one chunk of the cache, and two.
const SEQUENCES: [(usize, usize); 3] = [(1, 1), (17, 40), (3, 263)];

/// Sizes of vocabularies.
const VOCABULARIES: [usize; 3] = [5, 1003, 4099];

/// Checks each kernel on a device.
pub(super) fn check(doctor: &mut Doctor, choice: DeviceChoice) {
    let linear: [(&'static str, Cases); 5] = [
        ("kernel embed", embedding),
        ("kernel norm_qkv", qkv),
        ("kernel linear_residual", residual),
        ("kernel norm_gate_up", |bench, counted| {
            let wide = wide_outputs(bench).map(|ffn| ((ffn, 32), ROWS_MOST));
            let mut cases = ROWS.map(|rows| ((149, 96), rows)).into_iter().chain(wide);
            cases
                .try_for_each(|(shape, rows)| counted.add(linear::check_gate_up(bench, [bench.format; 2], shape, rows)))
        }),
        ("kernel norm_lm_head", |bench, counted| {
            let logit_rows: Vec<u32> = (0..).map(|i| i * 17 % 40).take(ROWS_MOST).collect();
            let wide = wide_outputs(bench).map(|vocab| (vocab, ROWS_MOST));
            let mut cases = ROWS.map(|rows| (203, rows)).into_iter().chain(wide);
            cases.try_for_each(|(vocab, rows)| counted.add(linear::check_logits(bench, vocab, &logit_rows[..rows])))
        }),
    ];
    for (name, run) in linear {
        doctor.check(name, choice, || over_formats(choice, run));
    }
    doctor.check("kernel qk_norm", choice, || without_weights(choice, qk_norm));
    doctor.check("kernel norm_residual", choice, || {
        without_weights(choice, |bench, counted| {
            let mut cases = ROWS.into_iter().flat_map(|rows| [32, 96, 576].map(|hidden| (hidden, rows)));
            cases.try_for_each(|(hidden, rows)| counted.add(norms::check_norm_residual(bench, hidden, rows)))
        })
    });
    doctor.check("kernel attention", choice, || attention(choice));
    doctor.check("kernel sample", choice, || {
        let (mut device, mut counted) = (open(choice)?, Counted::default());
        VOCABULARIES.iter().try_for_each(|vocab| counted.add(sample::check_draws(&mut device, *vocab)))?;
        counted.finding()
    });
}

/// Cases that passed.
#[derive(Default)]
struct Counted {
    count: u32,
    largest: f64,
}

impl Counted {
    fn add(&mut self, case: Case) -> Result<(), CaseError> {
        self.largest = self.largest.max(case?);
        self.count += 1;
        Ok(())
    }

    fn finding(&self) -> Found {
        let Counted { count, largest } = *self;
        let note = format!("{count} cases, the largest error {largest:.3} of what is allowed");
        Finding::of(note, vec![("cases", count.into()), ("largest_error_of_allowed", largest)])
    }
}

/// Cases of one kernel, on a bench with weights of one format.
type Cases = fn(&mut Bench, &mut Counted) -> Result<(), CaseError>;

fn without_weights(choice: DeviceChoice, run: Cases) -> Found {
    let mut counted = Counted::default();
    run(&mut Bench::new(open(choice)?, WeightFormat::F32, Activations::F32), &mut counted)?;
    counted.finding()
}

/// Over every width of a head.
fn qk_norm(bench: &mut Bench, counted: &mut Counted) -> Result<(), CaseError> {
    let kinds = [(false, true), (true, true), (false, false)];
    for (heads, kind) in HEADS.into_iter().flat_map(|heads| kinds.map(|kind| (heads, kind))) {
        ROWS.iter().try_for_each(|rows| counted.add(norms::check_qk_norm(bench, heads, kind, FORMAT_F16, *rows)))?;
    }
    Ok(())
}

fn over_formats(choice: DeviceChoice, run: Cases) -> Found {
    let mut counted = Counted::default();
    let mut bench = Bench::new(open(choice)?, WeightFormat::F32, Activations::F32);
    let is_cuda = bench.is_cuda();
    for (format, activations) in WeightFormat::ALL.into_iter().flat_map(|format| ACTIVATIONS.map(|a| (format, a))) {
        if is_cuda && !is_cuda_pairing(format, activations) {
            continue;
        }
        (bench.format, bench.activations) = (format, activations);
        run(&mut bench, &mut counted)?;
    }
    counted.finding()
}

/// What CUDA kernels read.
fn is_cuda_pairing(format: WeightFormat, activations: Activations) -> bool {
    if format.is_quantised() { activations != Activations::F32 } else { activations == Activations::Reduced }
}

/// So many outputs that a CUDA kernel has wide blocks.
fn wide_outputs(bench: &Bench) -> Option<usize> {
    bench.is_cuda().then(|| (bench.device.info().workers * WIDE_OUTPUTS).div_ceil(2).next_multiple_of(128))
}

fn embedding(bench: &mut Bench, counted: &mut Counted) -> Result<(), CaseError> {
    let cols = if bench.format.block_values() > 1 || bench.is_cuda() { 96 } else { 33 };
    // From −3, which is slot 2, to token 36.
    let sources: Vec<i32> = (0..).map(|i| (i * 5 + 36) % 40 - 3).take(ROWS_MOST).collect();
    ROWS.iter().try_for_each(|rows| counted.add(linear::check_embedding(bench, cols, &sources[..*rows])))
}

fn qkv(bench: &mut Bench, counted: &mut Counted) -> Result<(), CaseError> {
    // CUDA kernels keep keys and values as f16 only.
    let f32_too = if bench.is_cuda() { &[][..] } else { &[([2, 2, 48], FORMAT_F32)][..] };
    for (heads, kv_format) in [([3, 1, 16], FORMAT_F16)].iter().chain(f32_too) {
        ROWS.iter()
            .try_for_each(|rows| counted.add(linear::check_qkv(bench, [bench.format; 3], *heads, *kv_format, *rows)))?;
    }
    if bench.format == UNLIKE[0] {
        ROWS.iter()
            .try_for_each(|rows| counted.add(linear::check_qkv(bench, UNLIKE, [3, 1, 16], FORMAT_F16, *rows)))?;
    }
    let Some(outputs) = wide_outputs(bench) else { return Ok(()) };
    counted.add(linear::check_qkv(bench, [bench.format; 3], [outputs / 128, 1, 128], FORMAT_F16, ROWS_MOST))
}

fn residual(bench: &mut Bench, counted: &mut Counted) -> Result<(), CaseError> {
    let mut numbers = Numbers(1);
    for (outputs, width) in [(23, 96), (1, 32), (149, 64)] {
        let weight = bench.weight(outputs, width, &numbers.values(outputs * width, 0.3))?;
        for rows in ROWS {
            let (input, x) = (numbers.values(rows * width, 2.0), numbers.values(rows * outputs, 1.0));
            counted.add(linear::check_residual(bench, &weight, &input, &x))?;
        }
    }
    let Some(outputs) = wide_outputs(bench) else { return Ok(()) };
    let weight = bench.weight(outputs, 32, &numbers.values(outputs * 32, 0.3))?;
    let (input, x) = (numbers.values(ROWS_MOST * 32, 2.0), numbers.values(ROWS_MOST * outputs, 1.0));
    counted.add(linear::check_residual(bench, &weight, &input, &x))
}

fn attention(choice: DeviceChoice) -> Found {
    let mut counted = Counted::default();
    let mut bench = Bench::new(open(choice)?, WeightFormat::Bf16, Activations::Reduced);
    let formats: &[u32] = if bench.is_cuda() { &[FORMAT_F16] } else { &[FORMAT_F16, FORMAT_F32] };
    let sequences = attention::batch(&SEQUENCES);
    for [heads, kv_heads, dim] in HEADS {
        for &format in formats {
            let heads = Heads { heads, kv_heads, dim, format };
            counted.add(attention::check_step(&mut bench, heads, &sequences))?;
        }
    }
    counted.finding()
}
