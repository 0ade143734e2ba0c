//! What the CUDA kernels ask for beside what all kernels do.

use crate::device::buffers::Buffers;
use crate::device::params::*;
use crate::device::validate::{self, Check, Checker, require};
use crate::device::{DeviceError, GraphKey, KernelParams};

/// Widths of a head that there is an attention kernel for: csrc/attention.cu.
pub(super) const HEAD_DIMS: [u32; 4] = [16, 32, 64, 128];

/// Checks the parameters of one node.
pub(super) fn node(params: &KernelParams, key: GraphKey, ordinal: usize, buffers: &Buffers) -> Result<(), DeviceError> {
    validate::node(params, key, ordinal, buffers, Some(also))
}

fn also(checker: &Checker<'_>, params: &KernelParams) -> Check {
    match params {
        KernelParams::Embed(p) => {
            weight("weight", &p.weight)?;
            next_rows(checker, &p.next, p.weight.cols)
        }
        KernelParams::NormQkv(p) => {
            linear(checker, p.rows, &[("wq", p.wq), ("wk", p.wk), ("wv", p.wv)])?;
            kv_cache(&p.kv)
        }
        KernelParams::Attention(p) => {
            kv_cache(&p.kv)?;
            let known = HEAD_DIMS.contains(&p.head_dim);
            require(known, "head_dim", p.head_dim.into(), "16, 32, 64 or 128: others have no CUDA kernel")?;
            checker.array("arrivals", p.arrivals, checker.rows.saturating_mul(p.kv_heads as usize * 4))?;
            next_rows(checker, &p.next, p.heads.saturating_mul(p.head_dim))
        }
        KernelParams::LinearResidual(p) => {
            linear(checker, p.rows, &[("weight", p.weight)])?;
            next_rows(checker, &p.next, p.weight.rows)
        }
        KernelParams::NormGateUp(p) => {
            linear(checker, p.rows, &[("gate", p.gate), ("up", p.up)])?;
            next_rows(checker, &p.next, p.ffn)
        }
        KernelParams::NormLmHead(p) => linear(checker, p.rows, &[("weight", p.weight)]),
        KernelParams::Sample(_) => Ok(()),
    }
}

/// The matrices of a linear kernel, which all read the same rows.
fn linear(checker: &Checker<'_>, rows: u64, weights: &[(&'static str, WeightRef)]) -> Check {
    let first = &weights[0].1;
    prepared(checker, rows, first.cols, first.activations)?;
    for (what, matrix) in weights {
        weight(what, matrix)?;
        let same = matrix.activations == first.activations;
        require(same, what, matrix.activations.into(), "a matrix that reads activations as the node's first one does")?;
    }
    Ok(())
}

fn weight(what: &'static str, weight: &WeightRef) -> Check {
    let reading: &[u32] = match weight.format {
        FORMAT_BF16 => &[ACTIVATIONS_BF16],
        FORMAT_Q8_0 | FORMAT_Q4_0 | FORMAT_Q4_1 => &[ACTIVATIONS_INT8, ACTIVATIONS_INT8X2],
        _ => &[],
    };
    require(
        !reading.is_empty(),
        what,
        weight.format.into(),
        "in a format that CUDA kernels read: bf16, q8_0, q4_0, q4_1",
    )?;
    let fits = reading.contains(&weight.activations);
    require(
        fits,
        what,
        weight.activations.into(),
        "a matrix that reads bf16 activations if it is bf16, else int8 ones",
    )?;
    require(weight.data.is_multiple_of(16), what, weight.data, "aligned to 16 bytes")?;
    require(weight.cols.is_multiple_of(QUANT_BLOCK), what, weight.cols.into(), "whole blocks of 32 columns")
}

fn kv_cache(kv: &KvCacheRef) -> Check {
    require(kv.format == FORMAT_F16, "kv.format", kv.format.into(), "f16: CUDA kernels read no other KV cache")?;
    require(kv.k.is_multiple_of(16), "kv.k", kv.k, "aligned to 16 bytes")?;
    require(kv.v.is_multiple_of(16), "kv.v", kv.v, "aligned to 16 bytes")
}

/// Where the kernel leaves its rows for the next layer.
fn next_rows(checker: &Checker<'_>, next: &NextRows, cols: u32) -> Check {
    if next.rows == 0 {
        return Ok(());
    }
    if next.gamma != 0 {
        checker.array("next.gamma", next.gamma, cols as usize * size_of::<f32>())?;
    }
    prepared(checker, next.rows, cols, next.activations)
}

/// Rows of activations as products read them: csrc/common/rows.cuh.
fn prepared(checker: &Checker<'_>, addr: u64, cols: u32, activations: u32) -> Check {
    let values_bytes = match activations {
        ACTIVATIONS_INT8 => 32,
        ACTIVATIONS_BF16 | ACTIVATIONS_INT8X2 => 64,
        _ => return require(false, "activations", activations.into(), "bf16, int8 or int8x2"),
    };
    require(cols.is_multiple_of(QUANT_BLOCK), "columns of rows", cols.into(), "whole blocks of 32")?;
    let blocks = (cols / QUANT_BLOCK) as usize;
    let row_bytes = (blocks * (values_bytes + 3 * size_of::<f32>())).next_multiple_of(16);
    let bytes = checker.rows.saturating_mul(row_bytes);
    require(bytes < 1 << 32, "bytes of rows", bytes as u64, "less than 4 GiB")?;
    require(addr.is_multiple_of(16), "rows", addr, "aligned to 16 bytes")?;
    checker.array("rows", addr, bytes)
}
