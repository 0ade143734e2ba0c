//! Norm of queries and keys, rotary embedding, KV cache write of the keys.

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::heads::{CachePlace, rotate};
use crate::kernels::cpu::{Choice, KernelFn, Worker, instance};
use crate::kernels::params::*;

/// One variant: the queries of a token are a tile, and its keys are another.
pub(in crate::kernels) fn choose(p: &QkNormParams, _: u32, isa: IsaChoice) -> Choice {
    let run: KernelFn = instance!(isa, qk_norm);
    let what = if p.whole == 0 { "head" } else { "row" };
    Choice {
        name: format!("qk_norm.{what}.{isa}"),
        variant: "a token's queries, or keys, per tile".into(),
        barriers: 1,
        scratch_bytes: 0,
        run,
    }
}

unsafe fn qk_norm<I: Isa>(params: &KernelParams, worker: &Worker) {
    let KernelParams::QkNorm(p) = params else { unreachable!("chosen for QkNorm") };
    // SAFETY: the addresses are the node's; each tile writes elements of its own.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        worker.for_each_tile(2 * rows, |tile| I::enter(NormRow { p, row: tile / 2, keys: tile % 2 == 1 }));
    }
}

/// The queries, or the keys, of one token.
struct NormRow<'a> {
    p: &'a QkNormParams,
    row: usize,
    keys: bool,
}

impl Body for NormRow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let p = self.p;
        let (heads, head_dim) = (if self.keys { p.kv_heads } else { p.heads } as usize, p.head_dim as usize);
        let part = if p.whole == 0 { head_dim } else { heads * head_dim };
        // SAFETY: the addresses are the node's; positions and slots are those of the step.
        unsafe {
            let (from, gamma) = match self.keys {
                true => (p.keys.as_ptr(), p.k_gamma.as_ptr()),
                false => (p.q.as_ptr(), p.q_gamma.as_ptr()),
            };
            let from = from.add(self.row * heads * head_dim);
            for first in (0..heads * head_dim).step_by(part) {
                let mut squares = I::splat(0.0);
                for k in (first..first + part).step_by(LANES) {
                    let x = I::load(from.add(k));
                    squares = I::fma(x, x, squares);
                }
                let mean = I::sum_lanes(squares) / part as f32;
                let inverse_rms = I::splat(1.0 / (mean + p.eps).sqrt());
                for k in (first..first + part).step_by(LANES) {
                    let normed = I::mul(I::mul(I::load(from.add(k)), inverse_rms), I::load(gamma.add(k - first)));
                    self.put::<I>(k, normed);
                }
            }
        }
    }
}

impl NormRow<'_> {
    /// Rotates 16 values of one head, from this column on, and puts them where they belong.
    #[inline(always)]
    unsafe fn put<I: Isa>(&self, column: usize, normed: I::F32) {
        let p = self.p;
        let head_dim = p.head_dim as usize;
        let (head, dim) = (column / head_dim, column % head_dim);
        // SAFETY: the addresses are the node's; positions and slots are those of the step.
        unsafe {
            let mut values = [0f32; LANES];
            I::store(values.as_mut_ptr(), normed);
            if !p.rope.is_null() {
                let position = p.positions.as_ptr().add(self.row).read() as usize;
                rotate(p.rope.as_ptr().add(position * head_dim + dim), &mut values);
            }
            let values = I::load(values.as_ptr());
            if self.keys {
                let slot = p.slot_mapping.as_ptr().add(self.row).read();
                CachePlace::of(&p.kv, slot, (p.kv_heads as usize, head), (head_dim, dim)).store_key::<I>(values);
            } else {
                let width = (p.heads * p.head_dim) as usize;
                I::store(p.q.as_mut_ptr().add(self.row * width + column), values);
            }
        }
    }
}
