//! A norm behind a projection, added to the residual stream.

use crate::isa::{Body, Isa, IsaChoice, LANES};
use crate::kernels::KernelParams;
use crate::kernels::cpu::activations::load_first;
use crate::kernels::cpu::linear::store_first;
use crate::kernels::cpu::{Choice, KernelFn, Worker, instance};
use crate::kernels::params::*;

/// One variant: a row is a tile.
pub(in crate::kernels) fn choose(_: &NormResidualParams, _: u32, isa: IsaChoice) -> Choice {
    let run: KernelFn = instance!(isa, norm_residual);
    let variant = "a row per tile".into();
    Choice { name: format!("norm_residual.{isa}"), variant, barriers: 1, scratch_bytes: 0, run }
}

unsafe fn norm_residual<I: Isa>(params: &KernelParams, worker: &Worker) {
    let KernelParams::NormResidual(p) = params else { unreachable!("chosen for NormResidual") };
    // SAFETY: the addresses are the node's; each row of x is written by one thread.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        worker.for_each_tile(rows, |row| I::enter(NormRow { p, row }));
    }
}

struct NormRow<'a> {
    p: &'a NormResidualParams,
    row: usize,
}

impl Body for NormRow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (p, hidden) = (self.p, self.p.hidden as usize);
        // SAFETY: the addresses are the node's; values beyond the width are neither read nor written.
        unsafe {
            let (y, x) = (p.y.as_ptr().add(self.row * hidden), p.x.as_mut_ptr().add(self.row * hidden));
            let mut squares = I::splat(0.0);
            for k in (0..hidden).step_by(LANES) {
                let y = load_first::<I>(y.add(k), hidden - k);
                squares = I::fma(y, y, squares);
            }
            let inverse_rms = I::splat(1.0 / (I::sum_lanes(squares) / hidden as f32 + p.eps).sqrt());
            for k in (0..hidden).step_by(LANES) {
                let count = hidden - k;
                let gamma = load_first::<I>(p.gamma.as_ptr().add(k), count);
                let normed = I::mul(I::mul(load_first::<I>(y.add(k), count), inverse_rms), gamma);
                store_first::<I>(x.add(k), I::add(load_first::<I>(x.add(k), count), normed), count);
            }
        }
    }
}
