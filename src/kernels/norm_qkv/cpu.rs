//! Norm, query, key and value projections, rotary embedding, KV cache write.

use std::ops::Range;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::activations::Norm;
use crate::kernels::cpu::heads::{CachePlace, rotate};
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
        let norm = Norm::of(p.gamma, p.eps);
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
            if !p.bias.is_null() {
                let before = [0, p.wq.rows, p.wq.rows + p.wk.rows][self.part as usize] as usize;
                let bias = p.bias.as_ptr().add(before + column);
                I::store(values.as_mut_ptr(), I::add(I::load(values.as_ptr()), I::load(bias)));
            }
            if self.part != Part::Value && !p.rope.is_null() {
                let position = p.positions.as_ptr().add(row).read() as usize;
                rotate(p.rope.as_ptr().add(position * head_dim + dim), values);
            }
            let values = I::load(values.as_ptr());
            if self.part == Part::Query {
                let width = (p.heads * p.head_dim) as usize;
                return I::store(p.q.as_mut_ptr().add(row * width + column), values);
            }
            if self.part == Part::Key && !p.keys.is_null() {
                return I::store(p.keys.as_mut_ptr().add(row * p.wk.rows as usize + column), values);
            }
            let slot = p.slot_mapping.as_ptr().add(row).read();
            let at = CachePlace::of(&p.kv, slot, (p.kv_heads as usize, head), (head_dim, dim));
            if self.part == Part::Key { at.store_key::<I>(values) } else { at.store_value::<I>(values) }
        }
    }
}
