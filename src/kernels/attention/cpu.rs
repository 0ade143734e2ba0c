//! Attention over the paged cache: softmax(scale · q Kᵀ, cut by causality) V, grouped queries.
//!
//! A tile is a work-list item × KV head: all queries (row, head) of the item that read this KV head, in blocks of
//! [`BLOCK_QUERIES`]. Per KV chunk: scores (16 positions per vector, one per lane), softmax, values (16 dimensions per
//! vector), then the fold into what the chunks before gave. Every number of a query is summed in an order that depends
//! on its own position only: over the dimensions, then over its visible positions, ascending, then over the chunks. So
//! its result is the same, bit by bit, whatever queries share its block and whether chunks are split over items; what a
//! query does not see is never multiplied for it.
//!
//! Items that cover one chunk write partial results; a second phase folds these by the same function.

mod registers;

use std::os::raw::c_void;

use half::f16;

use self::registers::{Element, PageGroup, Scoring, Weighing, score_rows, weigh_rows};
use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::math::exp;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;
use crate::kernels::{DevicePtr, KernelParams};

/// Queries that go through a chunk together, so that its keys and values are read from L1 or L2 for all but the first.
const BLOCK_QUERIES: usize = 64;
/// Pages whose keys, or values, are used for all queries of a block before the next: 16 KiB each at 64 dimensions.
const GROUP_PAGES: usize = 4;
/// Rows per tile of the second phase.
const COMBINE_ROWS: usize = 16;
const PAGE: usize = PAGE_TOKENS as usize;
const CHUNK: usize = KV_CHUNK_TOKENS as usize;
const _: () = assert!(PAGE == LANES, "a vector of scores is a page");

/// The variant for these parameters.
pub(in crate::kernels) fn choose(p: &AttentionParams, _: u32, isa: IsaChoice) -> Choice {
    let format = if p.kv.format == FORMAT_F16 { "f16" } else { "f32" };
    Choice {
        name: format!("attention.{format}.{isa}"),
        variant: format!("{BLOCK_QUERIES} queries per block, chunks of {CHUNK}; combine where chunks are split"),
        barriers: 2,
        scratch_bytes: Scratch::floats(p.head_dim as usize) * size_of::<f32>(),
        run: instance!(isa, attention),
    }
}

/// The kernel.
unsafe fn attention<I: Isa>(params: &KernelParams, worker: &Worker) {
    let KernelParams::Attention(p) = params else { unreachable!("attention is chosen for its own parameters") };
    // SAFETY: the caller's: the addresses are those of the step's buffers, and the format that of the cache.
    unsafe {
        match p.kv.format {
            FORMAT_F16 => phases::<I, f16>(p, worker),
            _ => phases::<I, f32>(p, worker),
        }
    }
}

unsafe fn phases<I: Isa, E: Element>(p: &AttentionParams, worker: &Worker) {
    // SAFETY: the shape was uploaded with the step; the work list has as many entries as it says; a tile is given to
    // one thread, and no two tiles of a phase write the same queries.
    unsafe {
        let shape = *p.shape.as_ptr();
        let kv_heads = p.kv_heads as usize;
        let scratch = Scratch::new(worker.scratch().cast(), p.head_dim as usize);
        worker.for_each_tile(shape.attention_items as usize * kv_heads, |tile| {
            let item = *p.items.as_ptr().add(tile / kv_heads);
            I::enter(Attend::<E> { p, item, kv_head: tile % kv_heads, scratch, element: std::marker::PhantomData });
        });
        if shape.attention_splits > 0 {
            worker.barrier();
            let blocks = (shape.tokens as usize).div_ceil(COMBINE_ROWS);
            worker.for_each_tile(blocks * kv_heads, |tile| {
                let first = tile / kv_heads * COMBINE_ROWS;
                let rows = first..(first + COMBINE_ROWS).min(shape.tokens as usize);
                I::enter(Combine { p, rows, kv_head: tile % kv_heads, scratch });
            });
        }
    }
}

/// A thread's scratch memory, for BLOCK_QUERIES queries.
#[derive(Clone, Copy)]
struct Scratch {
    head_dim: usize,
    /// (queries, head_dim): scaled.
    q: *mut f32,
    /// (queries, CHUNK): scores, then weights.
    scores: *mut f32,
    /// Over the chunks so far.
    total: Partial,
    /// Of one chunk.
    part: Partial,
}

/// Softmax results before the division: for each query Σ e^(score − max) · value, the maximum, and Σ e^(score − max).
#[derive(Clone, Copy)]
struct Partial {
    /// (queries, head_dim)
    out: *mut f32,
    /// (queries)
    max: *mut f32,
    /// (queries)
    sum: *mut f32,
}

impl Scratch {
    fn floats(head_dim: usize) -> usize {
        BLOCK_QUERIES * (head_dim + CHUNK + 2 * (head_dim + 2))
    }

    /// `at` has room for `floats(head_dim)` values.
    unsafe fn new(at: *mut f32, head_dim: usize) -> Scratch {
        let mut next = at;
        let mut take = |floats_per_query: usize| {
            let taken = next;
            // SAFETY: the parts add up to `floats`.
            next = unsafe { next.add(BLOCK_QUERIES * floats_per_query) };
            taken
        };
        let (q, scores) = (take(head_dim), take(CHUNK));
        let total = Partial { out: take(head_dim), max: take(1), sum: take(1) };
        let part = Partial { out: take(head_dim), max: take(1), sum: take(1) };
        Scratch { head_dim, q, scores, total, part }
    }
}

/// An item's queries of one KV head.
struct Attend<'a, E> {
    p: &'a AttentionParams,
    item: AttentionItem,
    kv_head: usize,
    scratch: Scratch,
    element: std::marker::PhantomData<E>,
}

impl<E: Element> Body for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let queries = self.item.rows as usize * self.group();
        for first in (0..queries).step_by(BLOCK_QUERIES) {
            // SAFETY: the caller's; the block is within the item.
            unsafe { self.attend_block::<I>(first, BLOCK_QUERIES.min(queries - first)) };
        }
    }
}

impl<E: Element> Attend<'_, E> {
    /// Query heads per KV head.
    #[inline(always)]
    fn group(&self) -> usize {
        (self.p.heads / self.p.kv_heads) as usize
    }

    /// The row and the head of one of the item's queries; neighbours are heads of one row.
    #[inline(always)]
    fn row_and_head(&self, query: usize) -> (usize, usize) {
        let group = self.group();
        (self.item.row as usize + query / group, self.kv_head * group + query % group)
    }

    #[inline(always)]
    unsafe fn attend_block<I: Isa>(&self, first: usize, queries: usize) {
        let (s, dim) = (self.scratch, self.scratch.head_dim);
        let (kv_first, kv_end) =
            (self.item.kv_first as usize, self.item.kv_first as usize + self.item.kv_count as usize);
        // SAFETY: the caller's: the item's rows are rows of q, positions and out, its positions have pages in the page
        // table, and its partial slots exist.
        unsafe {
            let mut positions = [0; BLOCK_QUERIES];
            for (query, position) in positions[..queries].iter_mut().enumerate() {
                let (row, head) = self.row_and_head(first + query);
                *position = *self.p.positions.as_ptr().add(row) as usize;
                let q = self.p.q.as_ptr().add((row * self.p.heads as usize + head) * dim);
                for d in (0..dim).step_by(LANES) {
                    I::store(s.q.add(query * dim + d), I::mul(I::load(q.add(d)), I::splat(self.p.scale)));
                }
            }
            for kv in (kv_first..kv_end).step_by(CHUNK) {
                let end = kv_end.min(kv + CHUNK);
                let mut seen = [0; BLOCK_QUERIES];
                for query in 0..queries {
                    seen[query] = end.min(positions[query] + 1).saturating_sub(kv);
                }
                let seen = &seen[..queries];
                let pages =
                    self.p.page_tables.as_ptr().add(self.item.seq as usize * self.p.max_pages as usize + kv / PAGE);
                let part = if kv == kv_first { s.total } else { s.part };
                self.score::<I>(seen, pages);
                soften::<I>(seen, s.scores, part);
                self.weigh::<I>(seen, pages, (kv_end - end).div_ceil(PAGE), part.out);
                if kv > kv_first {
                    for query in (0..queries).filter(|&query| seen[query] > 0) {
                        let (max, sum) = (*part.max.add(query), *part.sum.add(query));
                        s.fold::<I>(query, part.out.add(query * dim), max, sum);
                    }
                }
            }
            for query in (0..queries).filter(|&query| positions[query] >= kv_first) {
                let (row, head) = self.row_and_head(first + query);
                if self.item.partial == NO_PARTIAL {
                    s.finish::<I>(query, self.p, row, head);
                } else {
                    let slot = self.item.partial as usize + row - self.item.row as usize;
                    s.write_partial(query, partial_at(self.p, slot, head));
                }
            }
        }
    }

    /// Scores of all queries: (queries, CHUNK), valid up to each query's last visible page.
    #[inline(always)]
    unsafe fn score<I: Isa>(&self, seen: &[usize], pages: *const u32) {
        let (s, dim) = (self.scratch, self.scratch.head_dim);
        let page_count = seen.iter().copied().max().unwrap_or(0).div_ceil(PAGE);
        for first in (0..page_count).step_by(GROUP_PAGES) {
            let count = GROUP_PAGES.min(page_count - first);
            // SAFETY: the pages up to page_count hold visible positions, so the page table names them.
            unsafe {
                let keys = self.page_group(self.p.kv.k, pages.add(first), count, None);
                let next = first + GROUP_PAGES;
                let ahead = match page_count.checked_sub(next) {
                    Some(left @ 1..) => self.page_group(self.p.kv.k, pages.add(next), left, Some(keys)),
                    _ => self.page_group(self.p.kv.v, pages, page_count, Some(keys)),
                };
                let mut query = 0;
                while query < seen.len() {
                    let q = s.q.add(query * dim);
                    let out = s.scores.add(query * CHUNK + first * PAGE);
                    let at = Scoring { q, dim, keys: &keys[..count], ahead: (query == 0).then_some(&ahead), out };
                    query += match seen.len() - query {
                        1 => score_rows::<I, E, 1>(&at),
                        2 => score_rows::<I, E, 2>(&at),
                        3 => score_rows::<I, E, 3>(&at),
                        _ => score_rows::<I, E, 4>(&at),
                    };
                }
            }
        }
    }

    /// Σ weight · value of all queries into `out` (queries, head_dim). `pages_after` follow the chunk's in the table.
    #[inline(always)]
    unsafe fn weigh<I: Isa>(&self, seen: &[usize], pages: *const u32, pages_after: usize, out: *mut f32) {
        let (s, dim) = (self.scratch, self.scratch.head_dim);
        let page_count = seen.iter().copied().max().unwrap_or(0).div_ceil(PAGE);
        for first in (0..page_count).step_by(GROUP_PAGES) {
            let count = GROUP_PAGES.min(page_count - first);
            let (from, to) = (first * PAGE, (first + count) * PAGE);
            // SAFETY: as in `score`.
            unsafe {
                let values = self.page_group(self.p.kv.v, pages.add(first), count, None);
                let next = first + GROUP_PAGES;
                let ahead = match page_count.checked_sub(next) {
                    Some(left @ 1..) => self.page_group(self.p.kv.v, pages.add(next), left, Some(values)),
                    _ => self.page_group(self.p.kv.k, pages.add(CHUNK / PAGE), pages_after, Some(values)),
                };
                let at = |query: usize, first_block: bool| Weighing {
                    weights: s.scores.add(query * CHUNK),
                    values,
                    ahead: first_block.then_some(&ahead),
                    first: from,
                    dim,
                    out: out.add(query * dim),
                };
                let mut query = 0;
                while query < seen.len() {
                    let rows = 4.min(seen.len() - query);
                    let block = &seen[query..query + rows];
                    // Together as far as all of them see, then each on its own.
                    let common = block.iter().fold(to, |least, &count| least.min(count)).max(from);
                    match rows {
                        1 => weigh_rows::<I, E, 1>(&at(query, query == 0), from..common),
                        2 => weigh_rows::<I, E, 2>(&at(query, query == 0), from..common),
                        3 => weigh_rows::<I, E, 3>(&at(query, query == 0), from..common),
                        _ => weigh_rows::<I, E, 4>(&at(query, query == 0), from..common),
                    }
                    for (i, &count) in block.iter().enumerate() {
                        weigh_rows::<I, E, 1>(&at(query + i, false), common..count.min(to));
                    }
                    query += rows;
                }
            }
        }
    }

    /// Where this KV head's part of each of the first `count` pages begins; beyond those, `otherwise`.
    #[inline(always)]
    unsafe fn page_group(
        &self,
        cache: DevicePtr<c_void>,
        pages: *const u32,
        count: usize,
        otherwise: Option<PageGroup<E>>,
    ) -> PageGroup<E> {
        let mut group = otherwise.unwrap_or([std::ptr::null(); GROUP_PAGES]);
        for (i, at) in group.iter_mut().enumerate().take(count) {
            // SAFETY: the caller gives `count` entries of the page table, which name pages of the cache.
            unsafe {
                let page = *pages.add(i) as usize;
                *at = cache
                    .cast::<E>()
                    .as_ptr()
                    .add((page * self.p.kv_heads as usize + self.kv_head) * PAGE * self.scratch.head_dim);
            }
        }
        group
    }
}

/// Turns each query's visible scores into weights e^(score − max), and notes maximum and sum.
#[inline(always)]
unsafe fn soften<I: Isa>(seen: &[usize], scores: *mut f32, part: Partial) {
    for (query, &count) in seen.iter().enumerate().filter(|(_, count)| **count > 0) {
        // SAFETY: the caller gives a row of CHUNK scores per query; `count` is at most CHUNK.
        unsafe {
            let row = scores.add(query * CHUNK);
            let (whole, rest) = (count / LANES * LANES, count % LANES);
            let mut max = I::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(LANES) {
                max = I::max(I::load(row.add(i)), max);
            }
            if rest > 0 {
                max = I::max(I::keep_first(I::load(row.add(whole)), rest, f32::NEG_INFINITY), max);
            }
            let max = I::max_lane(max);
            let mut sum = I::splat(0.0);
            for i in (0..count).step_by(LANES) {
                let weight = exp::<I>(I::sub(I::load(row.add(i)), I::splat(max)));
                let weight = I::keep_first(weight, count - i, 0.0);
                I::store(row.add(i), weight);
                sum = I::add(sum, weight);
            }
            *part.max.add(query) = max;
            *part.sum.add(query) = I::sum_lanes(sum);
        }
    }
}

/// Where slot × head of the partial results begins: (head_dim) values, maximum, sum.
#[inline(always)]
unsafe fn partial_at(p: &AttentionParams, slot: usize, head: usize) -> *mut f32 {
    // SAFETY: the caller gives a slot that the work list names.
    unsafe { p.partials.as_mut_ptr().add((slot * p.heads as usize + head) * (p.head_dim as usize + 2)) }
}

impl Scratch {
    /// Adds a later chunk to a query's total. The only place where chunks meet, for items of many chunks and of one.
    #[inline(always)]
    unsafe fn fold<I: Isa>(&self, query: usize, out: *const f32, max: f32, sum: f32) {
        // SAFETY: the caller gives a query of the block and head_dim values.
        unsafe {
            let (total_max, total_sum) = (self.total.max.add(query), self.total.sum.add(query));
            let new_max = if max > *total_max { max } else { *total_max };
            let old_factor = exp::<I>(I::splat(*total_max - new_max));
            let new_factor = exp::<I>(I::splat(max - new_max));
            *total_sum = *total_sum * I::max_lane(old_factor) + sum * I::max_lane(new_factor);
            *total_max = new_max;
            for d in (0..self.head_dim).step_by(LANES) {
                let total = self.total.out.add(query * self.head_dim + d);
                I::store(total, I::fma(I::load(out.add(d)), new_factor, I::mul(I::load(total), old_factor)));
            }
        }
    }

    /// Divides a query's total by its sum, into the output.
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, query: usize, p: &AttentionParams, row: usize, head: usize) {
        // SAFETY: the caller gives a query of the block, and a row and head of the output.
        unsafe {
            let out = p.out.as_mut_ptr().add((row * p.heads as usize + head) * self.head_dim);
            let inverse = I::splat(1.0 / *self.total.sum.add(query));
            for d in (0..self.head_dim).step_by(LANES) {
                I::store(out.add(d), I::mul(I::load(self.total.out.add(query * self.head_dim + d)), inverse));
            }
        }
    }

    #[inline(always)]
    unsafe fn write_partial(&self, query: usize, to: *mut f32) {
        // SAFETY: the caller gives a query of the block and a place for head_dim + 2 values.
        unsafe {
            std::ptr::copy_nonoverlapping(self.total.out.add(query * self.head_dim), to, self.head_dim);
            *to.add(self.head_dim) = *self.total.max.add(query);
            *to.add(self.head_dim + 1) = *self.total.sum.add(query);
        }
    }
}

/// Folds the partial results of the split rows among `rows`, for the query heads of one KV head.
struct Combine<'a> {
    p: &'a AttentionParams,
    rows: std::ops::Range<usize>,
    kv_head: usize,
    scratch: Scratch,
}

impl Body for Combine<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (p, s, dim) = (self.p, self.scratch, self.scratch.head_dim);
        let group = (p.heads / p.kv_heads) as usize;
        for row in self.rows.clone() {
            // SAFETY: there is an entry per row; the slots that it names were written before the barrier.
            unsafe {
                let split = *p.splits.as_ptr().add(row);
                if split.count == 0 {
                    continue;
                }
                for head in self.kv_head * group..(self.kv_head + 1) * group {
                    let first = partial_at(p, split.first as usize, head);
                    std::ptr::copy_nonoverlapping(first, s.total.out, dim);
                    *s.total.max = *first.add(dim);
                    *s.total.sum = *first.add(dim + 1);
                    for chunk in 1..split.count {
                        let part = partial_at(p, (split.first + chunk * split.stride) as usize, head);
                        s.fold::<I>(0, part, *part.add(dim), *part.add(dim + 1));
                    }
                    s.finish::<I>(0, p, row, head);
                }
            }
        }
    }
}
