//! The loops that attention spends its time in, blocked in registers: M queries × W vectors of sums, so that a vector of
//! keys or values is loaded once for M queries. M and W change the speed, never a bit of the result.

use std::ops::Range;

use half::f16;

use super::{CHUNK, GROUP_PAGES, PAGE};
use crate::device::cpu::isa::{Isa, LANES};

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

/// How many vectors go with `rows` rows of accumulators: at least 4 sums that do not wait for each other, and no more
/// than half of the registers.
const fn width<I: Isa>(rows: usize) -> usize {
    let more_registers = I::F32_ROWS >= 8;
    match rows {
        1 => 4,
        2 => 2 + 2 * more_registers as usize,
        _ => 1 + more_registers as usize,
    }
}

/// Scores of M neighbouring queries against pages of keys, each (head_dim, PAGE). Returns M.
#[inline(always)]
pub(super) unsafe fn score_rows<I: Isa, E: Element, const M: usize>(
    q: *const f32,
    dim: usize,
    keys: &[*const E],
    out: *mut f32,
) -> usize {
    let mut page = 0;
    while page < keys.len() {
        // SAFETY: the caller gives M rows of q and of out, and whole pages of keys.
        unsafe {
            let (keys, out) = (&keys[page..], out.add(page * PAGE));
            page += match width::<I>(M) {
                4 if keys.len() >= 4 => score_pages::<I, E, M, 4>(q, dim, keys, out),
                2 if keys.len() >= 2 => score_pages::<I, E, M, 2>(q, dim, keys, out),
                _ => score_pages::<I, E, M, 1>(q, dim, keys, out),
            };
        }
    }
    M
}

/// The same for W pages. Returns W.
#[inline(always)]
unsafe fn score_pages<I: Isa, E: Element, const M: usize, const W: usize>(
    q: *const f32,
    dim: usize,
    keys: &[*const E],
    out: *mut f32,
) -> usize {
    // SAFETY: as in `score_rows`.
    unsafe {
        let mut acc = [[I::splat(0.0); W]; M];
        for d in 0..dim {
            let mut k = [I::splat(0.0); W];
            for w in 0..W {
                k[w] = E::load::<I>(keys[w].add(d * PAGE));
            }
            for m in 0..M {
                let q = I::splat(*q.add(m * dim + d));
                for w in 0..W {
                    acc[m][w] = I::fma(q, k[w], acc[m][w]);
                }
            }
        }
        for m in 0..M {
            for w in 0..W {
                I::store(out.add(m * CHUNK + w * PAGE), acc[m][w]);
            }
        }
    }
    W
}

/// A group of pages of values and the first of the queries that weigh them.
pub(super) struct Weighing<E> {
    /// (M, CHUNK)
    pub(super) weights: *const f32,
    /// Each (PAGE, head_dim).
    pub(super) values: [*const E; GROUP_PAGES],
    /// The position, within the chunk, at which the first page begins.
    pub(super) first: usize,
    pub(super) dim: usize,
    /// (M, head_dim)
    pub(super) out: *mut f32,
}

/// Adds the positions `range` of the chunk to M neighbouring queries; position 0 starts the sum.
#[inline(always)]
pub(super) unsafe fn weigh_rows<I: Isa, E: Element, const M: usize>(at: &Weighing<E>, range: Range<usize>) {
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
    at: &Weighing<E>,
    range: &Range<usize>,
    d: usize,
) -> usize {
    // SAFETY: as in `weigh_rows`.
    unsafe {
        let mut acc = [[I::splat(0.0); W]; M];
        if range.start > 0 {
            for m in 0..M {
                for w in 0..W {
                    acc[m][w] = I::load(at.out.add(m * at.dim + d + w * LANES));
                }
            }
        }
        let mut position = range.start;
        while position < range.end {
            let page = (position - at.first) / PAGE;
            let page_end = range.end.min(at.first + (page + 1) * PAGE);
            let mut values = at.values[page].add((position - at.first) % PAGE * at.dim + d);
            while position < page_end {
                let mut v = [I::splat(0.0); W];
                for w in 0..W {
                    v[w] = E::load::<I>(values.add(w * LANES));
                }
                for m in 0..M {
                    let weight = I::splat(*at.weights.add(m * CHUNK + position));
                    for w in 0..W {
                        acc[m][w] = I::fma(weight, v[w], acc[m][w]);
                    }
                }
                position += 1;
                values = values.wrapping_add(at.dim); // past the page after its last position, and not read there
            }
        }
        for m in 0..M {
            for w in 0..W {
                I::store(at.out.add(m * at.dim + d + w * LANES), acc[m][w]);
            }
        }
    }
    W
}
