//! The sample kernel, through the device interface, against its f64 reference.

#[path = "support/sets.rs"]
mod sets;

use sets::sets;
use vitrum::device::{Device, DeviceChoice, DeviceOptions};
use vitrum::doctor::sample::{self, *};
use vitrum::isa::IsaChoice;
use vitrum::kernels::params::*;
use vitrum::kernels::sample::{reference, reference_draw, reference_logprobs};
use vitrum::trace::schema::{Op, StepSizes};

/// One step on the CPU.
fn draw(isa: IsaChoice, threads: usize, logits: &[&[f32]], how: &[SampleRow]) -> Drawn {
    let options = DeviceOptions {
        choice: DeviceChoice::Cpu,
        threads: Some(threads),
        isa: Some(isa),
        delay: None,
        activity: false,
    };
    sample::draw(&mut Device::open(&options).unwrap(), logits, how).unwrap()
}

fn draw_one(isa: IsaChoice, logits: &[f32], how: SampleRow) -> u32 {
    draw(isa, 1, &[logits], &[how]).tokens[0]
}

/// Draws many tokens from one row of logits, at positions 0, 1, 2, ….
fn draw_many(isa: IsaChoice, logits: &[f32], how: SampleRow, count: usize) -> Vec<u32> {
    let rows: Vec<_> = (0..count as u32).map(|position| SampleRow { position, ..how }).collect();
    draw(isa, 2, &vec![logits; count], &rows).tokens
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_on_a_tie() {
    for isa in sets() {
        for vocab in [1, 2, 15, 16, 17, 63, 64, 65, 1000, 49_152] {
            let logits = model_logits(vocab, 3);
            let largest = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert_eq!(draw_one(isa, &logits, GREEDY), largest as u32, "{isa}, {vocab} ids");
            for (first, second) in [(0, vocab - 1), (vocab / 2, vocab - 1), (vocab / 3, vocab / 2)] {
                let mut tied = logits.clone();
                (tied[first], tied[second]) = (99.0, 99.0);
                assert_eq!(draw_one(isa, &tied, GREEDY), first as u32, "{isa}, {vocab} ids");
            }
            assert_eq!(draw_one(isa, &vec![-3.5; vocab], GREEDY), 0, "{isa}, {vocab} equal logits");
        }
    }
}

#[test]
fn tokens_go_to_their_slots() {
    let logits: Vec<Vec<f32>> = (0..5).map(|name| model_logits(100, name)).collect();
    let rows: Vec<_> = [7, 2, 9, 0, 3].iter().map(|&slot| SampleRow { slot, ..DRAW }).collect();
    let drawn = draw(IsaChoice::detect(), 2, &logits.iter().map(Vec::as_slice).collect::<Vec<_>>(), &rows);
    let mut want = [UNTOUCHED; 10];
    rows.iter().zip(&drawn.tokens).for_each(|(row, token)| want[row.slot as usize] = *token);
    assert_eq!(drawn.slot_tokens, want);
    assert!(drawn.logprobs.iter().all(Option::is_none), "no row asked for log probabilities");
}

#[test]
fn draws_follow_the_reference() {
    let mut ways = Vec::new();
    for temperature in [0.3, 1.0, 2.5] {
        for top_k in [0, 1, 7, 50, 900] {
            for top_p in [1.0, 0.9, 0.5, 0.01] {
                ways.push(SampleRow { seed: 1 << 40 | 5, temperature, top_k, top_p, ..DRAW });
            }
        }
    }
    for vocab in [5, 100, 1003, 49_152] {
        let logits = model_logits(vocab, 11);
        let rows: Vec<_> = (0..)
            .zip(&ways)
            .flat_map(|(i, way)| (0..4).map(move |j| SampleRow { position: 4 * i + j, ..*way }))
            .collect();
        let expected: Vec<_> = ways.iter().map(|way| reference(&logits, way)).collect();
        for isa in sets() {
            let drawn = draw(isa, 2, &vec![logits.as_slice(); rows.len()], &rows);
            for (i, (row, &token)) in rows.iter().zip(&drawn.tokens).enumerate() {
                let off = check_draw(&format!("{isa}, {vocab} ids"), row, &expected[i / 4], token);
                off.unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

/// Σ (observed − expected)² / expected over the tokens that may be drawn; panics if another was.
fn chi_square(logits: &[f32], how: &SampleRow, tokens: &[u32]) -> (f64, usize) {
    let kept = reference(logits, how);
    let count = |id: u32| tokens.iter().filter(|token| **token == id).count() as f64;
    assert_eq!(kept.iter().map(|(id, _)| count(*id)).sum::<f64>(), tokens.len() as f64, "{how:?}: only what is kept");
    let term = |&(id, probability): &(u32, f64)| {
        let expected = probability * tokens.len() as f64;
        (count(id) - expected).powi(2) / expected
    };
    (kept.iter().map(term).sum(), kept.len() - 1)
}

#[test]
fn draws_are_distributed_as_they_should_be() {
    let logits = [1.0, 0.5, -1.0, 2.0, 0.0, 1.5, -0.5, 1.2, 0.1, -2.0, 0.7, 1.9];
    // Quantiles of the χ² distribution at 1 − 10⁻⁴, by degrees of freedom: the draws are the same on every run, so the
    // test is passed or failed for good.
    let limit = |freedom| [0.0, 15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9, 31.8, 33.7, 35.6, 37.4][freedom];
    let ways = [
        DRAW,
        SampleRow { temperature: 0.5, ..DRAW },
        SampleRow { temperature: 3.0, seed: u64::MAX, ..DRAW },
        SampleRow { top_k: 5, ..DRAW },
        SampleRow { top_p: 0.8, seed: 99, ..DRAW },
        SampleRow { top_k: 8, top_p: 0.7, temperature: 1.5, ..DRAW },
    ];
    for how in ways {
        let tokens = draw_many(IsaChoice::detect(), &logits, how, 30_000);
        let (statistic, freedom) = chi_square(&logits, &how, &tokens);
        assert!(statistic < limit(freedom), "{how:?}: χ² = {statistic} with {freedom} degrees of freedom");
        assert!(freedom > 0);
    }
    // Over seeds at one position.
    let rows: Vec<_> = (0..30_000).map(|seed| SampleRow { seed, position: 77, ..DRAW }).collect();
    let tokens = draw(IsaChoice::detect(), 2, &vec![logits.as_slice(); rows.len()], &rows).tokens;
    let (statistic, freedom) = chi_square(&logits, &DRAW, &tokens);
    assert!(statistic < limit(freedom), "over seeds: χ² = {statistic}");
    // The test can fail: another temperature's draws are told apart.
    let (statistic, freedom) = chi_square(&logits, &SampleRow { temperature: 1.1, ..DRAW }, &tokens);
    assert!(statistic > limit(freedom), "χ² = {statistic}");
}

#[test]
fn cuts_keep_what_they_say() {
    let kept = |logits: &[f32], how: SampleRow| {
        let mut tokens = draw_many(IsaChoice::detect(), logits, how, 2000);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    let equal = [2.5; 10];
    let hot = SampleRow { temperature: 100.0, ..DRAW };
    assert_eq!(kept(&equal, hot), (0..10).collect::<Vec<_>>(), "nothing cut");
    assert_eq!(kept(&equal, SampleRow { top_k: 3, ..hot }), [0, 1, 2], "exactly k, lower ids first on a tie");
    assert_eq!(kept(&equal, SampleRow { top_p: 0.5, ..hot }), [0, 1, 2, 3, 4], "until the mass is reached");
    assert_eq!(kept(&equal, SampleRow { top_p: 0.51, ..hot }), [0, 1, 2, 3, 4, 5], "the one that reaches it is kept");
    // −0 and 0 tie.
    assert_eq!(kept(&[-0.0, 0.0, -0.0, 0.0, -1.0], SampleRow { top_k: 2, ..hot }), [0, 1]);
    let steps = [1.0, 4.0, 2.0, 3.0];
    for how in [SampleRow { top_k: 1, ..hot }, SampleRow { top_p: 0.0, ..hot }, SampleRow { top_p: 1e-9, ..hot }] {
        assert_eq!(kept(&steps, how), [1], "{how:?}: the largest is always kept");
    }
    assert_eq!(kept(&steps, SampleRow { top_k: 2, ..hot }), [1, 3]);
    // Probabilities 0.4, 0.3, 0.2, 0.1: of the first two, the first alone holds 0.57 of the mass.
    let tenths = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
    assert_eq!(kept(&tenths, SampleRow { top_p: 0.5, ..DRAW }), [0, 1]);
    assert_eq!(kept(&tenths, SampleRow { top_p: 0.5, top_k: 2, ..DRAW }), [0], "top-p of what top-k left");
}

#[test]
fn a_top_k_as_large_as_the_vocabulary_is_off() {
    let logits = model_logits(1000, 21);
    for isa in sets() {
        let all = draw_many(isa, &logits, DRAW, 200);
        assert_eq!(draw_many(isa, &logits, SampleRow { top_k: 1000, ..DRAW }, 200), all);
        assert_eq!(draw_many(isa, &logits, SampleRow { top_k: u32::MAX, ..DRAW }, 200), all);
    }
}

#[test]
fn a_row_draws_the_same_alone_in_a_batch_and_on_every_instruction_set() {
    let logits: Vec<Vec<f32>> = (0..9).map(|name| model_logits(5000, name)).collect();
    let logits: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
    let rows: Vec<_> = (0..9)
        .map(|i| SampleRow {
            seed: u64::from(i),
            position: i * 31,
            slot: i,
            temperature: [0.0, 1.0, 2.0][i as usize % 3],
            top_k: [0, 40][i as usize % 2],
            top_p: [1.0, 0.9, 0.6, 1.0][i as usize % 4],
            logprobs: i % 4,
        })
        .collect();
    let together = draw(IsaChoice::Portable, 1, &logits, &rows);
    for isa in sets() {
        for threads in [1, 2, 3] {
            let drawn = draw(isa, threads, &logits, &rows);
            assert_eq!(drawn.tokens, together.tokens, "{isa}, {threads} threads");
        }
        for (i, row) in rows.iter().enumerate() {
            let alone = draw(isa, 1, &[logits[i]], &[*row]);
            assert_eq!(alone.tokens[0], together.tokens[i], "{isa}, row {i} alone");
            let (alone, together) = (alone.logprobs[0], together.logprobs[i]);
            assert_eq!(alone.map(|l| (l.chosen, l.rank)), together.map(|l| (l.chosen, l.rank)), "{isa}, row {i} alone");
        }
    }
    assert_eq!(together.tokens[1], reference_draw(logits[1], &rows[1]));
}

#[test]
fn logits_that_are_no_numbers() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let ways = [
        GREEDY,
        DRAW,
        SampleRow { temperature: 1e-30, ..DRAW },
        SampleRow { temperature: f32::MAX, ..DRAW },
        SampleRow { temperature: inf, ..DRAW },
        SampleRow { top_k: 3, ..DRAW },
        SampleRow { top_p: 0.9, ..DRAW },
        SampleRow { top_k: 3, top_p: 0.9, logprobs: 21, ..DRAW },
    ];
    let drawn = |logits: &[f32], how: SampleRow| {
        let on_each: Vec<_> = sets().map(|isa| draw_many(isa, logits, how, 300)).collect();
        assert!(on_each.iter().all(|tokens| *tokens == on_each[0]), "{how:?}");
        let mut tokens = on_each[0].clone();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    for how in ways {
        for vocab in [4, 16, 37, 200] {
            let with = |fill: f32, others: &[(usize, f32)]| {
                let mut logits = vec![fill; vocab];
                others.iter().for_each(|&(id, logit)| logits[id] = logit);
                logits
            };
            let last = vocab - 1;
            assert_eq!(drawn(&with(nan, &[]), how), [0], "{how:?}: all NaN");
            assert_eq!(drawn(&with(-inf, &[]), how), [0], "{how:?}: all −∞");
            assert_eq!(drawn(&with(nan, &[(last, -inf)]), how), [0], "{how:?}: NaN and −∞");
            assert_eq!(drawn(&with(0.0, &[(1, inf), (last, inf)]), how), [1], "{how:?}: the first +∞");
            assert_eq!(drawn(&with(nan, &[(2, -3.0)]), how), [2], "{how:?}: the one number among NaN");
            assert_eq!(drawn(&with(-inf, &[(2, -3e38)]), how), [2], "{how:?}: the one number among −∞");
            let two = drawn(&with(-inf, &[(0, nan), (1, 5.0), (2, nan), (last, 5.0)]), how);
            assert!(two.iter().all(|token| [1, last as u32].contains(token)), "{how:?}: {two:?}");
        }
    }
}

#[test]
fn log_probabilities_are_of_the_logits_as_they_are() {
    for isa in sets() {
        for vocab in [3, 20, 1003, 49_152] {
            let mut logits = model_logits(vocab, 5);
            logits[2] = logits[0]; // a tie
            let want = reference_logprobs(&logits);
            let mut by_rank: Vec<u32> = (0..vocab as u32).collect();
            by_rank.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            for (temperature, logprobs) in [(0.0, 1), (0.0, 6), (2.0, 21), (5.0, 2), (2.0, 1000)] {
                let how = SampleRow { temperature, logprobs, top_k: 2000, ..DRAW };
                let drawn = draw(isa, 1, &[&logits], &[how]);
                let (token, row) = (drawn.tokens[0] as usize, drawn.logprobs[0].unwrap());
                let close = |got: f32, id: usize| (f64::from(got) - want[id]).abs() <= LOGPROB_TOLERANCE;
                assert!(close(row.chosen, token), "{isa}: {} for {}", row.chosen, want[token]);
                let larger = logits.iter().filter(|logit| **logit > logits[token]).count();
                assert_eq!(row.rank as usize, 1 + larger, "{isa}: ties do not count");
                let count = (logprobs as usize - 1).min(20).min(vocab);
                assert_eq!(row.ids[..count], by_rank[..count], "{isa}, {vocab} ids");
                assert!(row.ids[..count].iter().zip(row.values).all(|(id, value)| close(value, *id as usize)));
                assert!(row.values[count..].iter().all(|value| *value == 0.0), "{isa}: nothing beyond what was asked");
            }
        }
    }
}

#[test]
fn log_probabilities_are_always_finite() {
    for fill in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0] {
        for other in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0] {
            let logits = [fill, other, fill, 2.0, fill];
            for isa in sets() {
                let row = draw(isa, 1, &[&logits], &[SampleRow { logprobs: 6, ..DRAW }]).logprobs[0].unwrap();
                let all = row.values.iter().chain([&row.chosen]);
                assert!(all.clone().all(|value| value.is_finite() && *value <= 0.0), "{logits:?}: {row:?}");
                assert!((1..=5).contains(&row.rank));
            }
        }
    }
}

#[test]
fn place_and_cost() {
    let node = SampleParams { vocab: 100, stride: 112, ..Default::default() }.node();
    assert_eq!((node.place.layer, node.place.op), (-1, Op::Sample));
    let sizes = StepSizes { tokens: 9, seqs: 5, logit_rows: 4, kv_tokens: 110, qk_pairs: 1000 };
    assert_eq!(node.cost.bytes.at(&sizes), f64::from(4 * (100 * 4 + 32 + 8)));
    assert_eq!(node.cost.flops.at(&sizes), 400.0);
}
