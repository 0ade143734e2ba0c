//! Feeding sequences to a runner, step by step, and comparing the logits.

use vitrum::kernels::params::SampleRow;
use vitrum::request::TokenId;
use vitrum::step::{RowTokens, Rows, StepRunner};
use vitrum::trace::schema::NodeSources;

/// Tokens of a vocabulary that depend on `seed`.
pub fn tokens(len: usize, seed: u32, vocab: u32) -> Vec<TokenId> {
    (0..len as u32).map(|i| TokenId((i * 37 + seed * 101 + 11) % vocab)).collect()
}

/// Rows of one sequence, in a part of 120 pages that is its own, not in order. Slot 0 begins a new batch.
pub fn push(runner: &mut StepRunner, slot: u32, tokens: RowTokens<'_>, first_position: usize) {
    let pages: Vec<u32> = (0..40).rev().map(|page| page * 3 + slot % 3).collect();
    let sample = Some(SampleRow { slot, top_p: 1.0, ..SampleRow::default() });
    let batch = if slot == 0 { runner.start_batch() } else { runner.batch() };
    batch.push(&Rows { slot, tokens, first_position, pages: &pages, sample });
}

/// Runs the batch; logits of the first rows that draw.
pub fn run(runner: &mut StepRunner, rows: usize) -> Vec<Vec<f32>> {
    let step = runner.submit(NodeSources::NONE).expect("the step is within the limits");
    runner.wait(step).expect("the device does not fail");
    runner.logits(rows)
}

/// Feeds a sequence in chunks; the logits after the last one.
pub fn prefill(runner: &mut StepRunner, tokens: &[TokenId], chunk: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    for (index, part) in tokens.chunks(chunk).enumerate() {
        push(runner, 0, RowTokens::Host(part), index * chunk);
        logits = run(runner, 1).remove(0);
    }
    logits
}

/// Root mean square of what differs, as a part of that of the values.
pub fn deviation(got: &[f32], expected: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let difference: f64 = got.iter().zip(expected).map(|(got, expected)| square(got - expected)).sum();
    (difference / expected.iter().map(|value| square(*value)).sum::<f64>()).sqrt()
}

/// The logits of a sequence have the same bits in chunks of 7, and its last row's beside two other sequences.
pub fn assert_same_bits(runner: &mut StepRunner, prompt: &[TokenId], alone: &[f32], what: &str) {
    assert!(alone.iter().all(|logit| logit.is_finite()), "{what}");
    assert!(prefill(runner, prompt, 7) == alone, "{what}: chunks of 7");
    let last = prompt.len() - 1;
    push(runner, 0, RowTokens::Host(&prompt[last..]), last);
    push(runner, 1, RowTokens::Host(&prompt[..20]), 0);
    push(runner, 2, RowTokens::Host(&prompt[..13]), 0);
    assert!(run(runner, 3)[0] == alone, "{what}: beside others");
}
