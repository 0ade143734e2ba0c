//! The CUDA kernel that draws tokens, run on the host: tokens and log probabilities are those of the CPU, bit by bit.

mod emulated;

use std::convert::Infallible;

use emulated::Memory;
use softcuda::emulate::Mode;
use vitrum::device::{Device, DeviceChoice, DeviceOptions};
use vitrum::doctor::sample::{self, *};
use vitrum::isa::IsaChoice;
use vitrum::kernels::params::*;
use vitrum::kernels::{DevicePtr, KernelParams};

const THREADS: u32 = 1024;
/// Blocks for which there is no row.
const SPARE_BLOCKS: u32 = 2;

/// One step.
fn draw_emulated(mode: Mode, logits: &[&[f32]], how: &[SampleRow]) -> Drawn {
    let draws = Draws { logits, how };
    let mut memory = Memory::default();
    let Ok(node) = draws.node(|bytes| Ok::<_, Infallible>(memory.put::<u8>(bytes).addr()));
    let KernelParams::Sample(params) = node.node().params else { unreachable!("a sample node") };
    memory.launch("sample", how.len() as u32 + SPARE_BLOCKS, (THREADS, 0), &params, mode);
    draws.results(&node, |addr, count| memory.read_words(DevicePtr::<u32>::new(addr), count))
}

/// Compares with the CPU in these modes. Every row has a slot of its own.
fn check_in(modes: &[Mode], what: &str, logits: &[&[f32]], how: &[SampleRow]) {
    let slots = how.len() as u32;
    let how: Vec<_> = (1..).zip(how).map(|(i, row)| SampleRow { slot: slots - i, ..*row }).collect();
    let how = how.as_slice();
    let (isa, threads) = (Some(IsaChoice::detect()), Some(2));
    let options = DeviceOptions { choice: DeviceChoice::Cpu, threads, isa, delay: None, activity: false };
    let want = sample::draw(&mut Device::open(&options).unwrap(), logits, how).unwrap();
    for &mode in modes {
        let got = draw_emulated(mode, logits, how);
        for (i, row) in how.iter().enumerate() {
            assert_eq!(got.tokens[i], want.tokens[i], "{what}, {mode:?}, row {i}: {row:?}");
        }
        assert_eq!(got.slot_tokens, want.slot_tokens, "{what}, {mode:?}");
        for (got, want) in got.logprobs.iter().zip(&want.logprobs) {
            assert_eq!(format!("{got:?}"), format!("{want:?}"), "{what}, {mode:?}");
        }
        assert_eq!(got.logprob_words, want.logprob_words, "{what}, {mode:?}");
    }
}

/// Each way of drawing from the same logits, in all modes.
fn check(what: &str, logits: &[f32], how: &[SampleRow]) {
    check_in(&Mode::ALL, what, &vec![logits; how.len()], how);
}

/// In the two modes that are as different as modes are.
const OPPOSITE: [Mode; 2] = [Mode::ALL[0], Mode::ALL[3]];

/// Ways of drawing, each at positions of its own.
fn ways(temperatures: &[f32], top_ks: &[u32], top_ps: &[f32]) -> Vec<SampleRow> {
    let mut ways = Vec::new();
    for &temperature in temperatures {
        for &top_k in top_ks {
            for &top_p in top_ps {
                let position = ways.len() as u32;
                ways.push(SampleRow { seed: 1 << 40 | 5, position, temperature, top_k, top_p, ..DRAW });
            }
        }
    }
    ways
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_on_a_tie() {
    for vocab in [1, 2, 3, 15, 16, 17, 63, 64, 65, 1000, 4097, 49_152] {
        let logits = model_logits(vocab, 3);
        let mut rows = vec![logits.clone(), vec![-3.5; vocab]];
        for (first, second) in [(0, vocab - 1), (vocab / 2, vocab - 1), (vocab / 3, vocab / 2)] {
            let mut tied = logits.clone();
            (tied[first], tied[second]) = (99.0, 99.0);
            rows.push(tied);
        }
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        check_in(&Mode::ALL, &format!("{vocab} ids"), &rows, &vec![GREEDY; rows.len()]);
    }
}

#[test]
fn draws_are_those_of_the_cpu() {
    for vocab in [5, 100, 1003] {
        let ways = ways(&[0.3, 1.0, 2.5], &[0, 1, 7, 50, 900], &[1.0, 0.9, 0.5, 0.01]);
        check(&format!("{vocab} ids"), &model_logits(vocab, 11), &ways);
    }
    let ways = ways(&[0.7, 1.5], &[0, 40, 900], &[1.0, 0.95, 0.5]);
    let logits = model_logits(49_152, 12);
    check_in(&OPPOSITE, "49152 ids", &vec![logits.as_slice(); ways.len()], &ways);
}

/// Nothing about the tokens depends on what else is drawn: here every row has logits of its own.
#[test]
fn rows_of_a_batch_are_drawn_on_their_own() {
    let logits: Vec<Vec<f32>> = (0..9).map(|name| model_logits(5000, name)).collect();
    let logits: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
    let row = |i: u32| SampleRow {
        seed: u64::from(i),
        position: i * 31,
        slot: i,
        temperature: [0.0, 1.0, 2.0][i as usize % 3],
        top_k: [0, 40][i as usize % 2],
        top_p: [1.0, 0.9, 0.6, 1.0][i as usize % 4],
        logprobs: i % 4,
    };
    let rows: Vec<_> = (0..9).map(row).collect();
    check_in(&Mode::ALL, "batch", &logits, &rows);
    let together = draw_emulated(Mode::ALL[0], &logits, &rows);
    for (i, how) in rows.iter().enumerate() {
        let alone = draw_emulated(Mode::ALL[0], &logits[i..=i], &rows[i..=i]);
        assert_eq!(alone.tokens[0], together.tokens[i], "row {i}: {how:?}");
    }
}

/// More ids are kept than are sorted at a time.
#[test]
fn wide_cuts_go_through_several_runs() {
    let logits = model_logits(20_011, 7);
    let ways = ways(&[1.0, 100.0], &[0, 4096, 4097, 15_000], &[1.0, 0.999, 0.6]);
    check_in(&OPPOSITE, "wide cuts", &vec![logits.as_slice(); ways.len()], &ways);
}

/// Equal logits are told apart by their ids alone.
#[test]
fn ties_are_cut_at_the_right_id() {
    let mut logits = vec![2.5; 9001];
    let all = ways(&[1.0], &[0, 1, 3, 5000], &[1.0, 0.51, 1e-9, 0.0, -1.0]);
    check_in(&OPPOSITE, "equal", &vec![logits.as_slice(); all.len()], &all);
    for (id, logit) in logits.iter_mut().enumerate() {
        *logit = [0.0, -0.0, -1.0][id % 3];
    }
    let some = ways(&[100.0], &[2, 6000], &[1.0, 0.3]);
    check_in(&OPPOSITE, "zeros of both signs", &vec![logits.as_slice(); some.len()], &some);
}

/// The vocabulary is more than is summed at a time, most weights are 0, and so are most groups'.
#[test]
fn sparse_weights() {
    let vocab = 140_001;
    let mut logits = vec![f32::NEG_INFINITY; vocab];
    for i in 0..50 {
        logits[(i * 2801 + 17) % vocab] = i as f32 / 10.0;
    }
    (logits[130_000], logits[131_071], logits[131_072], logits[140_000]) = (4.0, 4.5, 3.0, -80.0);
    let ways: Vec<_> =
        (0..12).map(|position| SampleRow { position, top_p: [1.0, 1.0, 0.9][position as usize % 3], ..DRAW }).collect();
    check_in(&OPPOSITE, "sparse", &vec![logits.as_slice(); ways.len()], &ways);
}

#[test]
fn a_top_k_as_large_as_the_vocabulary_is_off() {
    let ways = ways(&[1.0], &[999, 1000, 1001, u32::MAX], &[1.0, 0.9]);
    check("top-k", &model_logits(1000, 21), &ways);
}

#[test]
fn logits_that_are_no_numbers() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let ways: Vec<SampleRow> = [
        GREEDY,
        DRAW,
        SampleRow { temperature: 1e-30, ..DRAW },
        SampleRow { temperature: f32::MAX, ..DRAW },
        SampleRow { temperature: inf, ..DRAW },
        SampleRow { temperature: nan, ..DRAW },
        SampleRow { top_k: 3, ..DRAW },
        SampleRow { top_p: 0.9, ..DRAW },
        SampleRow { top_p: nan, ..DRAW },
        SampleRow { top_k: 3, top_p: 0.9, logprobs: 21, ..DRAW },
    ]
    .into_iter()
    .flat_map(|way| [1, 2].map(|position| SampleRow { position, ..way }))
    .collect();
    for vocab in [4, 37, 200] {
        let with = |fill: f32, others: &[(usize, f32)]| {
            let mut logits = vec![fill; vocab];
            others.iter().for_each(|&(id, logit)| logits[id] = logit);
            logits
        };
        let last = vocab - 1;
        check("all NaN", &with(nan, &[]), &ways);
        check("all −∞", &with(-inf, &[]), &ways);
        check("NaN and −∞", &with(nan, &[(last, -inf)]), &ways);
        check("two +∞", &with(0.0, &[(1, inf), (last, inf)]), &ways);
        check("one number among NaN", &with(nan, &[(2, -3.0)]), &ways);
        check("one number among −∞", &with(-inf, &[(2, -3e38)]), &ways);
        check("two numbers", &with(-inf, &[(0, nan), (1, 5.0), (2, nan), (last, 5.0)]), &ways);
    }
}

#[test]
fn log_probabilities_are_those_of_the_cpu() {
    for vocab in [3, 20, 1003] {
        let mut logits = model_logits(vocab, 5);
        logits[2] = logits[0]; // a tie
        let way = |(temperature, logprobs)| SampleRow { temperature, logprobs, top_k: 2000, ..DRAW };
        let ways = [(0.0, 1), (0.0, 6), (2.0, 21), (5.0, 2), (2.0, 1000)].map(way);
        check(&format!("{vocab} ids"), &logits, &ways);
    }
    let logits = model_logits(49_152, 6);
    check("49152 ids", &logits, &[SampleRow { logprobs: 6, top_p: 0.9, ..DRAW }]);
    for fill in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0] {
        for other in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0] {
            check("no numbers", &[fill, other, fill, 2.0, fill], &[SampleRow { logprobs: 6, ..DRAW }]);
        }
    }
}
