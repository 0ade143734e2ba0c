//! The batch of one step on the host: rows, positions, page tables, work list, draws. Filled once per step, in place.

use super::StepLimits;
use super::buckets::buckets;
use crate::kernels::attention::{self, PlanOptions, SequenceRows};
use crate::kernels::params::*;
use crate::request::TokenId;
use crate::trace::schema::StepSizes;

/// Where a sequence's rows take their tokens from.
#[derive(Clone, Copy, Debug)]
pub enum RowTokens<'a> {
    /// The host knows them: prompt tokens, or tokens read back.
    Host(&'a [TokenId]),
    /// One row, whose token an earlier step drew into the sequence's slot.
    Slot,
}

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The sequence's slot.
    pub slot: u32,
    /// The rows' tokens.
    pub tokens: RowTokens<'a>,
    /// Position of the first row.
    pub first_position: usize,
    /// The sequence's KV pages; they hold all positions up to the last row's.
    pub pages: &'a [u32],
    /// Draws a token from the last row.
    pub sample: Option<SampleRow>,
}

/// The inputs of one step. Capacity is reserved at start; filling it does not allocate.
#[derive(Debug)]
pub struct StepBatch {
    limits: StepLimits,
    options: PlanOptions,
    pub(super) token_source: Vec<i32>,
    pub(super) positions: Vec<u32>,
    pub(super) slot_mapping: Vec<u32>,
    pub(super) page_tables: Vec<u32>,
    pub(super) logit_rows: Vec<u32>,
    pub(super) sample_rows: Vec<SampleRow>,
    pub(super) items: Vec<AttentionItem>,
    pub(super) splits: Vec<AttentionSplit>,
    pub(super) shape: [StepShape; 1],
    plan: Vec<SequenceRows>,
    sizes: StepSizes,
}

impl StepBatch {
    /// A batch for a model with `kv_heads` KV heads on a device with `workers` workers.
    pub(super) fn with_limits(limits: &StepLimits, kv_heads: usize, workers: usize) -> StepBatch {
        let (tokens, seqs) = (limits.max_tokens, limits.max_seqs);
        StepBatch {
            limits: *limits,
            options: PlanOptions {
                kv_heads: kv_heads as u32,
                workers: workers as u32,
                max_partials: max_partials(limits) as u32,
            },
            token_source: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            slot_mapping: Vec::with_capacity(tokens),
            page_tables: Vec::with_capacity(seqs * limits.pages_per_seq()),
            logit_rows: Vec::with_capacity(seqs),
            sample_rows: Vec::with_capacity(seqs),
            items: Vec::with_capacity(max_items(limits)),
            splits: Vec::with_capacity(tokens),
            shape: [StepShape::default()],
            plan: Vec::with_capacity(seqs),
            sizes: StepSizes::default(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.token_source.clear();
        self.positions.clear();
        self.slot_mapping.clear();
        self.page_tables.clear();
        self.logit_rows.clear();
        self.sample_rows.clear();
        self.items.clear();
        self.splits.clear();
        self.plan.clear();
        self.sizes = StepSizes::default();
    }

    /// Adds the rows of one sequence.
    pub fn push(&mut self, rows: &Rows<'_>) {
        let count = match rows.tokens {
            RowTokens::Host(tokens) => tokens.len(),
            RowTokens::Slot => 1,
        };
        let first_row = self.token_source.len();
        let kv_len = rows.first_position + count;
        let page_tokens = PAGE_TOKENS as usize;
        assert!(count >= 1, "a sequence in a step has at least one row");
        assert!(first_row + count <= self.limits.max_tokens, "a step has at most {} rows", self.limits.max_tokens);
        assert!(self.plan.len() < self.limits.max_seqs, "a step has at most {} sequences", self.limits.max_seqs);
        assert!(kv_len <= self.limits.max_model_len, "position {kv_len} is beyond {}", self.limits.max_model_len);
        assert!(rows.pages.len() * page_tokens >= kv_len, "{} pages for {kv_len} positions", rows.pages.len());

        match rows.tokens {
            RowTokens::Host(tokens) => self.token_source.extend(tokens.iter().map(|token| token.0 as i32)),
            RowTokens::Slot => self.token_source.push(-1 - rows.slot as i32),
        }
        for position in rows.first_position..kv_len {
            self.positions.push(position as u32);
            let offset = (position % page_tokens) as u32;
            self.slot_mapping.push(rows.pages[position / page_tokens] * PAGE_TOKENS + offset);
            self.sizes.qk_pairs += position as u64 + 1;
        }
        let table_end = self.page_tables.len() + self.limits.pages_per_seq();
        self.page_tables.extend_from_slice(&rows.pages[..kv_len.div_ceil(page_tokens)]);
        self.page_tables.resize(table_end, 0);
        if let Some(sample) = rows.sample {
            self.logit_rows.push((first_row + count - 1) as u32);
            self.sample_rows.push(sample);
        }
        self.plan.push(SequenceRows {
            row: first_row as u32,
            rows: count as u32,
            seq: self.plan.len() as u32,
            kv_tokens: kv_len as u32,
        });
        self.sizes.tokens += count as u64;
        self.sizes.seqs += 1;
        self.sizes.kv_tokens += kv_len as u64;
        self.sizes.logit_rows = self.logit_rows.len() as u64;
    }

    /// Builds the attention work list, once all rows are there.
    pub fn finish(&mut self) {
        let partials = attention::plan(&self.plan, &self.options, &mut self.items, &mut self.splits);
        self.shape[0] = StepShape {
            tokens: self.token_source.len() as u32,
            seqs: self.plan.len() as u32,
            logit_rows: self.logit_rows.len() as u32,
            attention_items: self.items.len() as u32,
            attention_splits: partials,
            reserved: [0; 3],
        };
    }

    /// No row yet.
    pub fn is_empty(&self) -> bool {
        self.token_source.is_empty()
    }

    /// The step's sizes.
    pub fn sizes(&self) -> StepSizes {
        self.sizes
    }

    /// Rows that draw a token.
    pub(super) fn logit_rows(&self) -> usize {
        self.logit_rows.len()
    }

    /// Every sequence has one row.
    pub(super) fn is_decode(&self) -> bool {
        self.token_source.len() == self.plan.len()
    }

    /// Every draw is the largest logit, and no log probabilities are asked for.
    pub(super) fn is_plain(&self) -> bool {
        self.sample_rows.iter().all(|row| row.temperature == 0.0 && row.logprobs == 0)
    }

    /// Some row asks for log probabilities.
    pub(super) fn wants_logprobs(&self) -> bool {
        self.sample_rows.iter().any(|row| row.logprobs > 0)
    }
}

/// Entries of the longest work list.
pub(super) fn max_items(limits: &StepLimits) -> usize {
    attention::max_items(limits.max_tokens, max_partials(limits))
}

/// Slots for partial results: enough to split one of the longest sequences per worker of a large machine.
pub(super) fn max_partials(limits: &StepLimits) -> usize {
    let chunks = limits.max_model_len.div_ceil(KV_CHUNK_TOKENS as usize);
    chunks * limits.max_seqs.min(16)
}

/// Buckets of the forward graphs.
pub(super) fn forward_buckets(limits: &StepLimits) -> Vec<u32> {
    buckets(limits.max_tokens)
}

/// Buckets of the sample graphs.
pub(super) fn sample_buckets(limits: &StepLimits) -> Vec<u32> {
    buckets(limits.max_seqs)
}
