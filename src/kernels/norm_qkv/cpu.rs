//! Norm, query, key and value projections, rotary embedding, KV cache write.

use std::ops::Range;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::activations::Norm;
use crate::kernels::cpu::linear::{self, Input, Instances, Tiling, row_blocks, split_blocks, tile_at};
use crate::kernels::cpu::product::Product;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;

pub(in crate::kernels) fn choose(p: &NormQkvParams, bucket: u32, isa: IsaChoice) -> Choice {
    let instances = Instances { alone: instance!(isa, norm_qkv, true), together: instance!(isa, norm_qkv, false) };
    linear::choose("norm_qkv", &[p.wq, p.wk, p.wv], 1, (bucket, isa), instances)
}

unsafe fn norm_qkv<I: Isa, const ALONE: bool>(params: &KernelParams, worker: &Worker) {
    let KernelParams::NormQkv(p) = params else { unreachable!("chosen for NormQkv") };
    let weights = [p.wq, p.wk, p.wv];
    // SAFETY: the addresses are the node's; each tile writes elements of its own.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        let norm = Some(Norm { gamma: p.gamma.as_ptr(), eps: p.eps });
        let input = Input { weights, rows, norm, prepared: p.rows };
        let x = p.x.as_ptr();
        let (activations, out) = input.prepare::<I, ALONE>(worker, |row| x.add(row * p.hidden as usize));
        let tiling = Tiling::new(weights.iter().map(row_blocks).sum(), rows, worker.count());
        worker.for_each_tile(tiling.tiles(), |tile| {
            let (blocks, rows) = tiling.tile(tile);
            for (index, blocks) in split_blocks(&weights, blocks) {
                let (weight, activations) = (weights[index], activations[index]);
                I::enter(Product { weight, blocks: blocks.clone(), activations, rows: rows.clone(), out });
                let part = [Part::Query, Part::Key, Part::Value][index];
                I::enter(Finish { p, part, blocks, rows: rows.clone(), out });
            }
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Query,
    Key,
    Value,
}

/// Rotates a tile's queries and keys, and puts results where they belong.
struct Finish<'a> {
    p: &'a NormQkvParams,
    part: Part,
    blocks: Range<usize>,
    rows: Range<usize>,
    /// (blocks, rows, 16)
    out: *mut f32,
}

impl Body for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        for (i, block) in self.blocks.clone().enumerate() {
            for (j, row) in self.rows.clone().enumerate() {
                let values = tile_at(self.out, i, j, self.rows.len());
                // SAFETY: the addresses are the node's.
                unsafe { self.finish::<I>(block * LANES, row, &mut *values.cast()) }
            }
        }
    }
}

impl Finish<'_> {
    /// 16 results of one row, from column `column` of its part on. Heads are a multiple of 16 wide: they are of one.
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, column: usize, row: usize, values: &mut [f32; LANES]) {
        let p = self.p;
        let head_dim = p.head_dim as usize;
        let (head, dim) = (column / head_dim, column % head_dim);
        // SAFETY: the addresses are the node's; positions and slots are those of the step.
        unsafe {
            if self.part != Part::Value {
                let position = p.positions.as_ptr().add(row).read() as usize;
                rotate(p.rope.as_ptr().add(position * head_dim + dim), values);
            }
            let values = I::load(values.as_ptr());
            if self.part == Part::Query {
                let width = (p.heads * p.head_dim) as usize;
                return I::store(p.q.as_mut_ptr().add(row * width + column), values);
            }
            let slot = p.slot_mapping.as_ptr().add(row).read();
            let (page, offset) = ((slot / PAGE_TOKENS) as usize, (slot % PAGE_TOKENS) as usize);
            // (pages, kv_heads, head_dim, 16) or (pages, kv_heads, 16, head_dim)
            let first = (page * p.kv_heads as usize + head) * head_dim * PAGE_TOKENS as usize;
            let half = p.kv.format == FORMAT_F16;
            match (self.part, half) {
                (Part::Key, false) => {
                    let mut lanes = [0f32; LANES];
                    I::store(lanes.as_mut_ptr(), values);
                    scatter(&lanes, p.kv.k.cast::<f32>().as_mut_ptr().add(first + dim * PAGE_TOKENS as usize + offset));
                }
                (Part::Key, true) => {
                    let mut lanes = [0u16; LANES];
                    I::store_f16(lanes.as_mut_ptr(), values);
                    scatter(&lanes, p.kv.k.cast::<u16>().as_mut_ptr().add(first + dim * PAGE_TOKENS as usize + offset));
                }
                (_, false) => I::store(p.kv.v.cast::<f32>().as_mut_ptr().add(first + offset * head_dim + dim), values),
                (_, true) => {
                    I::store_f16(p.kv.v.cast::<u16>().as_mut_ptr().add(first + offset * head_dim + dim), values)
                }
            }
        }
    }
}

/// Rotates 8 pairs of neighbours by angles whose (cos, sin) are at `rope`.
#[inline(always)]
unsafe fn rotate(rope: *const f32, values: &mut [f32; LANES]) {
    // SAFETY: the caller gives 8 pairs.
    let rope = unsafe { rope.cast::<[f32; LANES]>().read_unaligned() };
    let x = *values;
    for i in (0..LANES).step_by(2) {
        let (cos, sin) = (rope[i], rope[i + 1]);
        values[i] = x[i] * cos - x[i + 1] * sin;
        values[i + 1] = x[i] * sin + x[i + 1] * cos;
    }
}

/// A column of a K page: its positions are neighbours, its dimensions PAGE_TOKENS apart.
#[inline(always)]
unsafe fn scatter<T: Copy>(lanes: &[T; LANES], to: *mut T) {
    for (i, value) in lanes.iter().enumerate() {
        // SAFETY: the caller gives a page with room for 16 dimensions.
        unsafe { to.add(i * PAGE_TOKENS as usize).write(*value) }
    }
}
