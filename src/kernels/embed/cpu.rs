//! Token embedding: x[i] = scale · row of token i.

use crate::isa::{Body, Isa, IsaChoice};
use crate::kernels::KernelParams;
use crate::kernels::cpu::Worker;
use crate::kernels::cpu::weights::{format_of, unpack_row};
use crate::kernels::cpu::{Choice, KernelFn, instance};
use crate::kernels::params::*;

/// One variant: a row is a tile.
pub(in crate::kernels) fn choose(p: &EmbedParams, _: u32, isa: IsaChoice) -> Choice {
    let run: KernelFn = instance!(isa, embed);
    Choice {
        name: format!("embed.{}.{isa}", format_of(&p.weight).as_str()),
        variant: "a row per tile".into(),
        barriers: 1,
        scratch_bytes: 0,
        run,
    }
}

unsafe fn embed<I: Isa>(params: &KernelParams, worker: &Worker) {
    let KernelParams::Embed(p) = params else { unreachable!("chosen for Embed") };
    // SAFETY: the addresses are the node's; each row of x is written by one thread.
    unsafe {
        let rows = (*p.shape.as_ptr()).tokens as usize;
        worker.for_each_tile(rows, |row| I::enter(EmbedRow { p, row }));
    }
}

struct EmbedRow<'a> {
    p: &'a EmbedParams,
    row: usize,
}

impl Body for EmbedRow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (p, row) = (self.p, self.row);
        // SAFETY: the addresses are the node's, and tokens are below the vocabulary's size.
        unsafe {
            let source = p.token_source.as_ptr().add(row).read();
            let token = match usize::try_from(source) {
                Ok(token) => token,
                Err(_) => p.slot_tokens.as_ptr().add((-1 - source) as usize).read() as usize,
            };
            assert!(token < p.weight.rows as usize, "token {token} of a vocabulary of {}", p.weight.rows);
            let (x, width) = (p.x.as_mut_ptr().add(row * p.weight.cols as usize), p.weight.cols as usize);
            unpack_row(&p.weight, token, x);
            if p.scale != 1.0 {
                (0..width).for_each(|column| *x.add(column) *= p.scale);
            }
        }
    }
}
