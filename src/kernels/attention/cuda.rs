//! The CUDA kernel: csrc/attention.cu.

use crate::kernels::check::{Check, Checker, require};
use crate::kernels::cuda::check::{self as pieces, HEAD_DIMS, LIMITS};
use crate::kernels::cuda::launch::{Launch, THREADS};
use crate::kernels::params::{ATTENTION_SHARED_FIXED, ATTENTION_SHARED_PER_DIM, AttentionParams, QUANT_BLOCK};

/// The blocks that the GPU holds at once take pieces of the work list in turn.
pub(in crate::kernels) fn launch(p: &AttentionParams, _: u32, _: u32) -> Launch {
    let shared_bytes = ATTENTION_SHARED_FIXED + p.head_dim * ATTENTION_SHARED_PER_DIM;
    let launch = Launch::of(format!("attention_f16_d{}", p.head_dim), [1, 1, 1], THREADS);
    Launch { shared_bytes, is_persistent: true, ..launch }
}

pub(in crate::kernels) fn check(checker: &Checker<'_>, p: &AttentionParams) -> Check {
    pieces::kv_cache(&p.kv)?;
    let known = HEAD_DIMS.contains(&(p.head_dim as usize));
    require(known, "head_dim", p.head_dim.into(), "at most 128: others have no CUDA kernel")?;
    // Not zero: checked for all kernels.
    let group = p.heads / p.kv_heads;
    require(group as usize <= LIMITS.heads_per_kv_head_max, "heads", p.heads.into(), "at most 64 for each KV head")?;
    let whole = p.next.rows.is_null() || (group * p.head_dim).is_multiple_of(QUANT_BLOCK);
    require(whole, "heads", p.heads.into(), "so many that those of a KV head are whole blocks of 32 values")?;
    checker.array("arrivals", p.arrivals, checker.rows.saturating_mul(p.kv_heads as usize * 4))?;
    pieces::next_rows(checker, &p.next, p.heads.saturating_mul(p.head_dim))
}
