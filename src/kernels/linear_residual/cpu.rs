//! A projection added to the residual stream.

use std::ops::Range;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::activations::load_first;
use crate::kernels::cpu::linear::{self, Input, Instances, Tiling, row_blocks, store_first, tile_at};
use crate::kernels::cpu::product::Product;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;

pub(in crate::kernels) fn choose(p: &LinearResidualParams, bucket: u32, isa: IsaChoice) -> Choice {
    let instances =
        Instances { alone: instance!(isa, linear_residual, true), together: instance!(isa, linear_residual, false) };
    linear::choose("linear_residual", &[p.weight], 1, (bucket, isa), instances)
}

unsafe fn linear_residual<I: Isa, const ALONE: bool>(params: &KernelParams, worker: &Worker) {
    let KernelParams::LinearResidual(p) = params else { unreachable!("chosen for LinearResidual") };
    let weight = p.weight;
    // SAFETY: the addresses are the node's; each tile writes elements of its own.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        let input = Input { weights: [weight], rows, norm: None, prepared: p.rows };
        let from = p.input.as_ptr();
        let ([activations], out) = input.prepare::<I, ALONE>(worker, |row| from.add(row * weight.cols as usize));
        let tiling = Tiling::new(row_blocks(&weight), rows, worker.count());
        worker.for_each_tile(tiling.tiles(), |tile| {
            let (blocks, rows) = tiling.tile(tile);
            I::enter(Product { weight, blocks: blocks.clone(), activations, rows: rows.clone(), out });
            I::enter(Finish { p, blocks, rows, out });
        });
    }
}

/// x = from + scale · (out + bias)
struct Finish<'a> {
    p: &'a LinearResidualParams,
    blocks: Range<usize>,
    rows: Range<usize>,
    /// (blocks, rows, 16)
    out: *mut f32,
}

impl Body for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let width = self.p.weight.rows as usize;
        for (i, block) in self.blocks.clone().enumerate() {
            for (j, row) in self.rows.clone().enumerate() {
                // SAFETY: the addresses are the node's; lanes beyond the width are neither read nor written.
                unsafe {
                    let column = block * LANES;
                    let count = width - column;
                    let mut value = I::load(tile_at(self.out, i, j, self.rows.len()));
                    if !self.p.bias.is_null() {
                        value = I::add(value, load_first::<I>(self.p.bias.as_ptr().add(column), count));
                    }
                    value = I::mul(value, I::splat(self.p.scale));
                    if !self.p.from.is_null() {
                        value = I::add(load_first::<I>(self.p.from.as_ptr().add(row * width + column), count), value);
                    }
                    store_first::<I>(self.p.x.as_mut_ptr().add(row * width + column), value, count);
                }
            }
        }
    }
}
