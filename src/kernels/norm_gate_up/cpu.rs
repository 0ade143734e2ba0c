//! Norm, gate and up projections, SiLU.

use std::ops::Range;

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::activations::{Norm, load_first};
use crate::kernels::cpu::linear::{self, Input, Instances, TILE_FLOATS, Tiling, row_blocks, store_first, tile_at};
use crate::kernels::cpu::math::silu;
use crate::kernels::cpu::product::Product;
use crate::kernels::cpu::{Choice, instance};
use crate::kernels::params::*;

pub(in crate::kernels) fn choose(p: &NormGateUpParams, bucket: u32, isa: IsaChoice) -> Choice {
    let instances =
        Instances { alone: instance!(isa, norm_gate_up, true), together: instance!(isa, norm_gate_up, false) };
    linear::choose("norm_gate_up", &[p.gate, p.up], 2, (bucket, isa), instances)
}

unsafe fn norm_gate_up<I: Isa, const ALONE: bool>(params: &KernelParams, worker: &Worker) {
    let KernelParams::NormGateUp(p) = params else { unreachable!("chosen for NormGateUp") };
    // SAFETY: the addresses are the node's; each tile writes elements of its own.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        let norm = Norm::of(p.gamma, p.eps);
        let input = Input { weights: [p.gate, p.up], rows, norm, prepared: p.rows };
        let x = p.x.as_ptr();
        let ([for_gate, for_up], gate) = input.prepare::<I, ALONE>(worker, |row| x.add(row * p.hidden as usize));
        let up = gate.add(TILE_FLOATS);
        let tiling = Tiling::new(row_blocks(&p.gate), rows, worker.count());
        worker.for_each_tile(tiling.tiles(), |tile| {
            let (blocks, rows) = tiling.tile(tile);
            for (weight, activations, out) in [(p.gate, for_gate, gate), (p.up, for_up, up)] {
                I::enter(Product { weight, blocks: blocks.clone(), activations, rows: rows.clone(), out });
            }
            I::enter(Finish { p, blocks, rows, gate, up });
        });
    }
}

/// out = silu(gate) · up
struct Finish<'a> {
    p: &'a NormGateUpParams,
    blocks: Range<usize>,
    rows: Range<usize>,
    /// Both (blocks, rows, 16).
    gate: *mut f32,
    up: *mut f32,
}

impl Body for Finish<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let ffn = self.p.ffn as usize;
        let (count, out) = (self.rows.len(), self.p.out.as_mut_ptr());
        for (i, block) in self.blocks.clone().enumerate() {
            for (j, row) in self.rows.clone().enumerate() {
                // SAFETY: the addresses are the node's.
                unsafe {
                    let mut gate = I::load(tile_at(self.gate, i, j, count));
                    let mut up = I::load(tile_at(self.up, i, j, count));
                    let column = block * LANES;
                    if !self.p.bias.is_null() {
                        let bias = self.p.bias.as_ptr().add(column);
                        gate = I::add(gate, load_first::<I>(bias, ffn - column));
                        up = I::add(up, load_first::<I>(bias.add(ffn), ffn - column));
                    }
                    let value = I::mul(silu::<I>(gate), up);
                    store_first::<I>(out.add(row * ffn + column), value, ffn - column);
                }
            }
        }
    }
}
