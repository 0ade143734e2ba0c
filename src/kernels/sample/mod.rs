//! Drawing one token per row of logits.

pub(super) mod cpu;
pub(super) mod cuda;
mod uniform;

pub use self::uniform::uniform;
use crate::kernels::check::require;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Cost, LinearCost, Op, Place};

impl SampleParams {
    /// The node.
    pub fn node(&self) -> Node {
        let &SampleParams { vocab, stride, .. } = self;
        assert!(vocab > 0 && stride >= vocab, "rows of {stride} for {vocab} logits");
        let row_bytes = vocab as usize * size_of::<f32>() + size_of::<SampleRow>() + 2 * size_of::<u32>();
        Node {
            params: KernelParams::Sample(*self),
            place: Place { layer: -1, op: Op::Sample },
            cost: Cost {
                bytes: LinearCost { logit_rows: row_bytes as f64, ..Default::default() },
                // A comparison per logit is what every draw needs.
                flops: LinearCost { logit_rows: f64::from(vocab), ..Default::default() },
            },
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &SampleParams) -> Check {
    checker.stride(p.stride, p.vocab)?;
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("logits", p.logits, checker.floats(p.stride, 1))?;
    checker.array("rows", p.rows, checker.rows * size_of::<SampleRow>())?;
    require(p.rows.addr().is_multiple_of(8), "rows", p.rows.addr(), "aligned to 8 bytes")?;
    checker.array("slot_tokens", p.slot_tokens, 4)?;
    checker.array("tokens", p.tokens, checker.rows * 4)?;
    // Null: no row asks for log probabilities.
    if p.logprobs.is_null() {
        Ok(())
    } else {
        checker.array("logprobs", p.logprobs, checker.rows * size_of::<LogprobRow>())
    }
}

/// The tokens that a row may draw, in the order in which the draw walks through them, with their probabilities.
/// NaN counts as −∞.
pub fn reference(logits: &[f32], how: &SampleRow) -> Vec<(u32, f64)> {
    let mut logits: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&logit| f64::from(logit))).collect();
    logits.iter_mut().filter(|(_, logit)| logit.is_nan()).for_each(|(_, logit)| *logit = f64::NEG_INFINITY);
    let descending = {
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        sorted
    };
    let (top, max) = descending[0];
    if how.temperature <= 0.0 || !max.is_finite() {
        return vec![(if max == f64::NEG_INFINITY { 0 } else { top }, 1.0)];
    }
    let cuts_k = how.top_k > 0 && (how.top_k as usize) < logits.len();
    let cuts_p = how.top_p < 1.0;
    let mut kept = if cuts_k || cuts_p { descending } else { logits };
    if cuts_k {
        kept.truncate(how.top_k as usize);
    }
    kept.iter_mut().for_each(|(_, logit)| *logit = ((*logit - max) / f64::from(how.temperature)).exp());
    normalise(&mut kept);
    if cuts_p {
        let mut before = 0.0;
        let mut count = 0;
        while count < kept.len() && (count == 0 || before < f64::from(how.top_p)) {
            before += kept[count].1;
            count += 1;
        }
        kept.truncate(count);
        normalise(&mut kept);
    }
    kept
}

fn normalise(weights: &mut [(u32, f64)]) {
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
}

/// The token that a row draws: the first at which the running probability exceeds the row's uniform number.
pub fn reference_draw(logits: &[f32], how: &SampleRow) -> u32 {
    let tokens = reference(logits, how);
    let u = uniform(how.seed, how.position);
    let mut through = 0.0;
    for &(token, probability) in &tokens {
        through += probability;
        if through > u {
            return token;
        }
    }
    tokens[tokens.len() - 1].0
}

/// The log probability of every token, without temperature and cuts; all logits are finite.
pub fn reference_logprobs(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(max)).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - f64::from(max) - sum.ln()).collect()
}
