//! Drawing tokens: the largest logit, or temperature, top-k, top-p and the inverse of the distribution function.
//!
//! A tile is a row. The vocabulary is read in groups of [`GROUP`] ids, whose maxima (and sums of weights) are kept, so
//! that what comes after looks into few groups only and nothing is sorted but the candidates of a cut. One row takes
//! tens of microseconds for 50 000 ids, and is not shared over threads.
//!
//! The order of a draw: weights e^((logit − max) / temperature), sums in f64; top-k keeps exactly k ids (ties: the
//! lower id first); top-p keeps an id if those before it hold less than top_p of what top-k left; the token is the
//! first at which the running sum exceeds [`uniform`] × the sum. Ids run in descending weight (ties: the lower first)
//! if anything is cut, in ascending order otherwise.
//!
//! Logits that are no numbers: NaN counts as −∞, and −∞ is never drawn; where the largest logit is +∞ its first id is
//! the token, and where it is −∞ the token is 0.

use std::ops::Range;
use std::slice;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::math::exp;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;
use crate::kernels::sample::uniform;

/// Ids whose maximum and sum are kept together.
const GROUP: usize = 64;

/// The variant for these parameters.
pub(in crate::kernels) fn choose(p: &SampleParams, _: u32, isa: IsaChoice) -> Choice {
    Choice {
        name: format!("sample.{isa}"),
        variant: format!("a row per tile, groups of {GROUP} ids"),
        barriers: 1,
        scratch_bytes: p.vocab as usize * size_of::<u64>() + 2 * (p.vocab as usize).div_ceil(GROUP) * size_of::<f32>(),
        run: instance!(isa, sample),
    }
}

/// The kernel.
unsafe fn sample<I: Isa>(params: &KernelParams, worker: &Worker) {
    let KernelParams::Sample(p) = params else { unreachable!("sample is chosen for its own parameters") };
    // SAFETY: the caller's: the addresses are those of the step's buffers; a tile is given to one thread.
    unsafe {
        let rows = (*p.shape.as_ptr()).logit_rows as usize;
        worker.for_each_tile(rows, |row| I::enter(SampleOne { p, row, scratch: worker.scratch() }));
    }
}

/// One row of the sample graph.
struct SampleOne<'a> {
    p: &'a SampleParams,
    row: usize,
    scratch: *mut u8,
}

impl Body for SampleOne<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (p, vocab) = (self.p, self.p.vocab as usize);
        // SAFETY: the caller's: the row has vocab logits, its slot exists, and the
        // scratch memory is this thread's and as large as `choose` says.
        unsafe {
            let how = *p.rows.as_ptr().add(self.row);
            let keys = self.scratch.cast::<u64>();
            let peaks = keys.add(vocab).cast::<f32>();
            let groups = vocab.div_ceil(GROUP);
            let mut draw = Draw {
                logits: slice::from_raw_parts(p.logits.as_ptr().add(self.row * p.stride as usize), vocab),
                keys: slice::from_raw_parts_mut(keys, vocab),
                peaks: slice::from_raw_parts_mut(peaks, groups),
                sums: slice::from_raw_parts_mut(peaks.add(groups), groups),
                max: f32::NEG_INFINITY,
            };
            let top = draw.scan::<I>();
            let token = if how.temperature > 0.0 && draw.max.is_finite() { draw.token::<I>(&how) } else { top };
            *p.tokens.as_mut_ptr().add(self.row) = token as u32;
            *p.slot_tokens.as_mut_ptr().add(how.slot as usize) = token as u32;
            if how.logprobs > 0 && !p.logprobs.is_null() {
                *p.logprobs.as_mut_ptr().add(self.row) = draw.logprobs::<I>(token, how.logprobs as usize - 1);
            }
        }
    }
}

/// A row's logits and what is known of them.
struct Draw<'a> {
    /// (vocab)
    logits: &'a [f32],
    /// Room for a [`key`] per id.
    keys: &'a mut [u64],
    /// The largest logit of each group.
    peaks: &'a mut [f32],
    /// The sum of weights of each group.
    sums: &'a mut [f32],
    /// The largest logit.
    max: f32,
}

impl Draw<'_> {
    /// Finds the groups' and the row's maxima; returns the first id that has the latter, 0 if all are −∞ or NaN.
    #[inline(always)]
    unsafe fn scan<I: Isa>(&mut self) -> usize {
        let mut top_group = 0;
        for (group, peak) in self.peaks.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *peak = unsafe {
                let mut max = I::splat(f32::NEG_INFINITY);
                for id in ids(group, self.logits.len()).step_by(LANES) {
                    max = I::max(load_logits::<I>(self.logits, id), max); // in this order: NaN is left out
                }
                I::max_lane(max)
            };
            if *peak > self.max {
                (self.max, top_group) = (*peak, group);
            }
        }
        if self.max == f32::NEG_INFINITY {
            return 0;
        }
        ids(top_group, self.logits.len()).find(|&id| self.logits[id] == self.max).unwrap_or(0)
    }

    /// Draws with a temperature; the largest logit is finite.
    #[inline(always)]
    unsafe fn token<I: Isa>(&mut self, how: &SampleRow) -> usize {
        let temperature = how.temperature.min(f32::MAX); // so that −∞ / temperature is −∞
        let u = uniform(how.seed, how.position);
        let (cuts_k, cuts_p) = ((1..self.logits.len()).contains(&(how.top_k as usize)), how.top_p < 1.0);
        // SAFETY: the caller's.
        unsafe {
            if !cuts_k && !cuts_p {
                let total = self.sum_weights::<I>(temperature);
                return self.walk_ids::<I>(temperature, u * total);
            }
            let (kept, kept_mass) = if cuts_k {
                let count = self.keep_largest(how.top_k as usize);
                let weights = self.weights(count, temperature);
                let mass = weights.sum_while::<I>(|_| true).1;
                if cuts_p { weights.sum_while::<I>(below(how.top_p, mass)) } else { (count, mass) }
            } else {
                self.keep_share::<I>(how.top_p, temperature)
            };
            let weights = self.weights(kept, temperature);
            let target = u * kept_mass;
            let (passed, _) = weights.sum_while::<I>(|through| through <= target);
            // The walk stops behind the token; rounding may take it past the end.
            id_of(self.keys[passed.clamp(1, kept) - 1])
        }
    }

    /// Puts the keys that top-p keeps of all ids first, in order; returns how many there are, and their mass.
    #[inline(always)]
    unsafe fn keep_share<I: Isa>(&mut self, top_p: f32, temperature: f32) -> (usize, f64) {
        // SAFETY: the caller's.
        unsafe {
            let mass = self.sum_weights::<I>(temperature);
            // All ids below this weight together are less than what top-p leaves out, twice over.
            let least = (1.0 - f64::from(top_p).max(0.0)) * mass / self.logits.len() as f64 / 2.0;
            let least_logit = f64::from(self.max) + f64::from(temperature) * least.ln();
            let count = self.collect(least_logit as f32);
            // Few are kept of many as a rule: they are sorted piece by piece, each 4 times as long, until it suffices.
            let (mut sorted, mut piece) = (0, 256);
            loop {
                let end = count.min(sorted + piece);
                if end < count {
                    self.keys[sorted..count].select_nth_unstable(end - sorted - 1);
                }
                self.keys[sorted..end].sort_unstable();
                let (kept, kept_mass) = self.weights(end, temperature).sum_while::<I>(below(top_p, mass));
                if kept < end || end == count {
                    return (kept, kept_mass);
                }
                (sorted, piece) = (end, 4 * piece);
            }
        }
    }

    /// The weights of the first `count` keys.
    #[inline(always)]
    fn weights(&self, count: usize, temperature: f32) -> Weights<'_> {
        Weights { keys: &self.keys[..count], max: self.max, temperature }
    }

    /// The log probabilities of all ids, without temperature: the chosen one's and the largest.
    #[inline(always)]
    unsafe fn logprobs<I: Isa>(&mut self, token: usize, alternatives: usize) -> LogprobRow {
        // SAFETY: the caller's.
        let log_sum = if self.max.is_finite() { unsafe { self.sum_weights::<I>(1.0).ln() } } else { 0.0 };
        let max = self.max;
        // Never −∞ or NaN, which JSON has no word for.
        let logprob = |logit: f32| {
            let distance = if logit == max { 0.0 } else { f64::from(logit) - f64::from(max) };
            if max == f32::NEG_INFINITY { f32::MIN } else { ((distance - log_sum) as f32).max(f32::MIN) }
        };
        let chosen = self.logits[token];
        let larger = |group| self.logits[ids(group, self.logits.len())].iter().filter(|logit| **logit > chosen).count();
        let groups = (0..self.peaks.len()).filter(|group| self.peaks[*group] > chosen);
        let mut row = LogprobRow {
            chosen: logprob(chosen),
            rank: 1 + groups.map(larger).sum::<usize>() as u32,
            ..Default::default()
        };
        let alternatives = alternatives.min(MAX_LOGPROBS as usize).min(self.logits.len());
        if alternatives > 0 {
            let count = self.keep_largest(alternatives);
            for (i, &key) in self.keys[..count].iter().enumerate() {
                (row.ids[i], row.values[i]) = (id_of(key) as u32, logprob(logit_of(key)));
            }
        }
        row
    }

    /// Weights of all ids at this temperature: each group's sum, and the sum of all.
    #[inline(always)]
    unsafe fn sum_weights<I: Isa>(&mut self, temperature: f32) -> f64 {
        let mut total = 0.0;
        for (group, group_sum) in self.sums.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *group_sum = unsafe {
                let mut sum = I::splat(0.0);
                for id in ids(group, self.logits.len()).step_by(LANES) {
                    sum = I::add(sum, weight::<I>(load_logits::<I>(self.logits, id), self.max, temperature));
                }
                I::sum_lanes(sum)
            };
            total += f64::from(*group_sum);
        }
        total
    }

    /// The first id, ascending, at which the running sum of weights exceeds `target`; after [`Self::sum_weights`].
    #[inline(always)]
    unsafe fn walk_ids<I: Isa>(&self, temperature: f32, target: f64) -> usize {
        let (mut through, mut group, mut before) = (0.0, 0, 0.0);
        // The first group to exceed it; by rounding there may be none, and then the last that has any weight.
        for (i, &sum) in self.sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
            (group, before) = (i, through);
            through += f64::from(sum);
            if through > target {
                break;
            }
        }
        let mut last = 0;
        for first in ids(group, self.logits.len()).step_by(LANES) {
            let mut weights = [0.0; LANES];
            // SAFETY: room for 16 values.
            unsafe {
                let logits = load_logits::<I>(self.logits, first);
                I::store(weights.as_mut_ptr(), weight::<I>(logits, self.max, temperature));
            }
            for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                (last, before) = (first + i, before + f64::from(weight));
                if before > target {
                    return last;
                }
            }
        }
        last
    }

    /// Puts the `k` largest logits' keys first, in order; returns how many there are: fewer only if NaNs are.
    #[inline(always)]
    fn keep_largest(&mut self, k: usize) -> usize {
        let mut least = f32::NEG_INFINITY;
        if k < self.peaks.len() {
            // k groups have a logit that is at least the k-th largest of the groups' maxima.
            self.sums.copy_from_slice(self.peaks);
            least = *self.sums.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
        }
        let count = self.collect(least);
        if count > k {
            self.keys[..count].select_nth_unstable(k - 1);
        }
        let kept = count.min(k);
        self.keys[..kept].sort_unstable();
        kept
    }

    /// Collects the keys of all logits that are at least `least`; returns how many.
    #[inline(always)]
    fn collect(&mut self, least: f32) -> usize {
        let mut count = 0;
        for group in (0..self.peaks.len()).filter(|group| self.peaks[*group] >= least) {
            for id in ids(group, self.logits.len()).filter(|id| self.logits[*id] >= least) {
                self.keys[count] = key(self.logits[id], id);
                count += 1;
            }
        }
        count
    }
}

/// The ids of a group.
#[inline(always)]
fn ids(group: usize, vocab: usize) -> Range<usize> {
    group * GROUP..vocab.min((group + 1) * GROUP)
}

/// 16 logits from `id` on; −∞ past the end of the vocabulary.
#[inline(always)]
unsafe fn load_logits<I: Isa>(logits: &[f32], id: usize) -> I::F32 {
    let mut last = [f32::NEG_INFINITY; LANES];
    // SAFETY: 16 values of either slice.
    unsafe {
        if id + LANES <= logits.len() {
            return I::load(logits.as_ptr().add(id));
        }
        last[..logits.len() - id].copy_from_slice(&logits[id..]);
        I::load(last.as_ptr())
    }
}

/// e^((logit − max) / temperature); 0 for NaN.
#[inline(always)]
unsafe fn weight<I: Isa>(logits: I::F32, max: f32, temperature: f32) -> I::F32 {
    // SAFETY: the caller runs where the processor has the set. The bound turns NaN into −∞.
    unsafe {
        let x = I::div(I::sub(logits, I::splat(max)), I::splat(temperature));
        exp::<I>(I::max(x, I::splat(f32::NEG_INFINITY)))
    }
}

/// Whether top-p keeps an id that has this much before it: the first always, others while the share is not reached.
#[inline(always)]
fn below(top_p: f32, mass: f64) -> impl Fn(f64) -> bool {
    let share = f64::from(top_p) * mass;
    move |before| before == 0.0 || before < share
}

/// The weights of candidates.
struct Weights<'a> {
    keys: &'a [u64],
    max: f32,
    temperature: f32,
}

impl Weights<'_> {
    /// Adds up weights in order while `more` says so of the sum so far: how many, and their sum.
    #[inline(always)]
    unsafe fn sum_while<I: Isa>(&self, more: impl Fn(f64) -> bool) -> (usize, f64) {
        let (mut count, mut sum) = (0, 0.0);
        for keys in self.keys.chunks(LANES) {
            let mut weights = [f32::NEG_INFINITY; LANES];
            for (weight, key) in weights.iter_mut().zip(keys) {
                *weight = logit_of(*key);
            }
            // SAFETY: 16 values.
            unsafe {
                let logits = I::load(weights.as_ptr());
                I::store(weights.as_mut_ptr(), weight::<I>(logits, self.max, self.temperature));
            }
            for weight in &weights[..keys.len()] {
                if !more(sum) {
                    return (count, sum);
                }
                (count, sum) = (count + 1, sum + f64::from(*weight));
            }
        }
        (count, sum)
    }
}

/// Ascending keys are descending logits; on a tie, ascending ids.
#[inline(always)]
fn key(logit: f32, id: usize) -> u64 {
    let bits = (logit + 0.0).to_bits(); // −0 becomes 0: they tie
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | id as u64
}

#[inline(always)]
fn id_of(key: u64) -> usize {
    key as u32 as usize
}

#[inline(always)]
fn logit_of(key: u64) -> f32 {
    let ascending = !(key >> 32) as u32;
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}
