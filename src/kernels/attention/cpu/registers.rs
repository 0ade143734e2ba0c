//! The loops that attention spends its time in, blocked in registers: M queries × W vectors of sums, so that a vector
//! of keys or values is loaded once for M queries. M and W change the speed, never a bit of the result.

use std::ops::Range;

use half::f16;

use super::{CHUNK, GROUP_PAGES, PAGE};
use crate::isa::{Isa, LANES};

/// A value as the cache holds it.
pub(super) trait Element: Copy {
    /// Reads 16 values.
    unsafe fn load<I: Isa>(from: *const Self) -> I::F32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<I: Isa>(from: *const f32) -> I::F32 {
        // SAFETY: the caller gives 16 readable values.
        unsafe { I::load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(from: *const f16) -> I::F32 {
        // SAFETY: the caller gives 16 readable values.
        unsafe { I::load_f16(from.cast()) }
    }
}

/// How many vectors go with M queries: as many as make enough sums that do not wait for each other, in at most half of
/// the registers.
const fn width<I: Isa>(rows: usize) -> usize {
    let more_registers = I::F32_ROWS >= 8;
    match rows {
        1 => 4,
        2 => 2 + 2 * more_registers as usize,
        _ => 1 + more_registers as usize,
    }
}

/// Where one KV head's part of some pages begins.
pub(super) type PageGroup<E> = [*const E; GROUP_PAGES];

/// A group of pages of keys and the first of the queries that meet them.
pub(super) struct Scoring<'a, E> {
    /// (M, head_dim)
    pub(super) q: *const f32,
    pub(super) dim: usize,
    /// Each (head_dim, PAGE).
    pub(super) keys: &'a [*const E],
    /// What to fetch into the cache meanwhile, page by page.
    pub(super) ahead: Option<&'a PageGroup<E>>,
    /// (M, CHUNK)
    pub(super) out: *mut f32,
}

/// Scores of M neighbouring queries. Returns M.
#[inline(always)]
pub(super) unsafe fn score_rows<I: Isa, E: Element, const M: usize>(at: &Scoring<'_, E>) -> usize {
    let mut page = 0;
    while page < at.keys.len() {
        let left = at.keys.len() - page;
        // SAFETY: the caller gives M rows of q and of out, and whole pages of keys.
        page += unsafe {
            match width::<I>(M) {
                4 if left >= 4 => score_pages::<I, E, M, 4>(at, page),
                2 if left >= 2 => score_pages::<I, E, M, 2>(at, page),
                _ => score_pages::<I, E, M, 1>(at, page),
            }
        };
    }
    M
}

/// The same for W of the pages. Returns W.
#[inline(always)]
unsafe fn score_pages<I: Isa, E: Element, const M: usize, const W: usize>(at: &Scoring<'_, E>, page: usize) -> usize {
    // SAFETY: as in `score_rows`.
    unsafe {
        let mut acc = [[I::splat(0.0); W]; M];
        for d in 0..at.dim {
            if let Some(ahead) = at.ahead {
                for w in 0..W {
                    I::prefetch(ahead[page + w].wrapping_add(d * PAGE).cast());
                }
            }
            let mut k = [I::splat(0.0); W];
            for (w, k) in k.iter_mut().enumerate() {
                *k = E::load::<I>(at.keys[page + w].add(d * PAGE));
            }
            for (m, sums) in acc.iter_mut().enumerate() {
                let q = I::splat(*at.q.add(m * at.dim + d));
                for (sum, &k) in sums.iter_mut().zip(&k) {
                    *sum = I::fma(q, k, *sum);
                }
            }
        }
        for (m, sums) in acc.iter().enumerate() {
            for (w, &sum) in sums.iter().enumerate() {
                I::store(at.out.add(m * CHUNK + (page + w) * PAGE), sum);
            }
        }
    }
    W
}

/// A group of pages of values and the first of the queries that weigh them.
pub(super) struct Weighing<'a, E> {
    /// (M, CHUNK)
    pub(super) weights: *const f32,
    /// Each (PAGE, head_dim).
    pub(super) values: PageGroup<E>,
    /// What to fetch into the cache meanwhile, page by page.
    pub(super) ahead: Option<&'a PageGroup<E>>,
    /// The position, within the chunk, at which the first page begins.
    pub(super) first: usize,
    pub(super) dim: usize,
    /// (M, head_dim)
    pub(super) out: *mut f32,
}

/// Adds the positions `range` of the chunk to M neighbouring queries; position 0 starts the sum.
#[inline(always)]
pub(super) unsafe fn weigh_rows<I: Isa, E: Element, const M: usize>(at: &Weighing<'_, E>, range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    let mut d = 0;
    while d < at.dim {
        let vectors = (at.dim - d) / LANES;
        // SAFETY: the caller gives M rows of weights and out, and the pages of `range`; d is below head_dim.
        d += unsafe {
            match width::<I>(M) {
                4 if vectors >= 4 => weigh_vectors::<I, E, M, 4>(at, &range, d),
                2 if vectors >= 2 => weigh_vectors::<I, E, M, 2>(at, &range, d),
                _ => weigh_vectors::<I, E, M, 1>(at, &range, d),
            }
        } * LANES;
    }
}

/// The same for W vectors of the head, from dimension d on. Returns W.
#[inline(always)]
unsafe fn weigh_vectors<I: Isa, E: Element, const M: usize, const W: usize>(
    at: &Weighing<'_, E>,
    range: &Range<usize>,
    d: usize,
) -> usize {
    // SAFETY: as in `weigh_rows`.
    unsafe {
        let mut acc = [[I::splat(0.0); W]; M];
        if range.start > 0 {
            for (m, sums) in acc.iter_mut().enumerate() {
                for (w, sum) in sums.iter_mut().enumerate() {
                    *sum = I::load(at.out.add(m * at.dim + d + w * LANES));
                }
            }
        }
        let mut position = range.start;
        while position < range.end {
            let page = (position - at.first) / PAGE;
            let page_end = range.end.min(at.first + (page + 1) * PAGE);
            let mut offset = (position - at.first) % PAGE * at.dim + d;
            while position < page_end {
                if let Some(ahead) = at.ahead {
                    for w in 0..W {
                        I::prefetch(ahead[page].wrapping_add(offset + w * LANES).cast());
                    }
                }
                let mut v = [I::splat(0.0); W];
                for (w, v) in v.iter_mut().enumerate() {
                    *v = E::load::<I>(at.values[page].add(offset + w * LANES));
                }
                for (m, sums) in acc.iter_mut().enumerate() {
                    let weight = I::splat(*at.weights.add(m * CHUNK + position));
                    for (sum, &v) in sums.iter_mut().zip(&v) {
                        *sum = I::fma(weight, v, *sum);
                    }
                }
                position += 1;
                offset += at.dim;
            }
        }
        for (m, sums) in acc.iter().enumerate() {
            for (w, &sum) in sums.iter().enumerate() {
                I::store(at.out.add(m * at.dim + d + w * LANES), sum);
            }
        }
    }
    W
}
