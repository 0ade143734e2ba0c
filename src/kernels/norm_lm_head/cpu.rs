//! Final norm and vocabulary projection of the rows that need logits.

use std::ops::Range;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::activations::Norm;
use crate::kernels::cpu::linear::{self, Input, Instances, Tiling, row_blocks, tile_at};
use crate::kernels::cpu::product::Product;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;

pub(in crate::kernels) fn choose(p: &NormLmHeadParams, bucket: u32, isa: IsaChoice) -> Choice {
    let instances =
        Instances { alone: instance!(isa, norm_lm_head, true), together: instance!(isa, norm_lm_head, false) };
    linear::choose("norm_lm_head", &[p.weight], 1, (bucket, isa), instances)
}

unsafe fn norm_lm_head<I: Isa, const ALONE: bool>(params: &KernelParams, worker: &Worker) {
    let KernelParams::NormLmHead(p) = params else { unreachable!("chosen for NormLmHead") };
    let weight = p.weight;
    // SAFETY: the addresses are the node's; each tile writes elements of its own.
    unsafe {
        let rows = (*p.shape.as_ptr()).logit_rows as usize;
        let norm = Norm::of(p.gamma, p.eps);
        let input = Input { weights: [weight], rows, norm, prepared: p.rows };
        let (x, logit_rows) = (p.x.as_ptr(), p.logit_rows.as_ptr());
        let row = |row| x.add(logit_rows.add(row).read() as usize * p.hidden as usize);
        let ([activations], out) = input.prepare::<I, ALONE>(worker, row);
        let tiling = Tiling::new(row_blocks(&weight), rows, worker.count());
        worker.for_each_tile(tiling.tiles(), |tile| {
            let (blocks, rows) = tiling.tile(tile);
            I::enter(Product { weight, blocks: blocks.clone(), activations, rows: rows.clone(), out });
            I::enter(Finish { p, blocks, rows, out });
        });
    }
}

/// logits = scale · out
struct Finish<'a> {
    p: &'a NormLmHeadParams,
    blocks: Range<usize>,
    rows: Range<usize>,
    /// (blocks, rows, 16)
    out: *mut f32,
}

impl Body for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (stride, logits) = (self.p.stride as usize, self.p.logits.as_mut_ptr());
        for (i, block) in self.blocks.clone().enumerate() {
            for (j, row) in self.rows.clone().enumerate() {
                // SAFETY: the addresses are the node's; the stride is a multiple of 16, so the last block has room.
                unsafe {
                    let values = I::load(tile_at(self.out, i, j, self.rows.len()));
                    let values = I::mul(values, I::splat(self.p.scale));
                    I::store(logits.add(row * stride + block * LANES), values);
                }
            }
        }
    }
}
