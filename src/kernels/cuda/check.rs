//! What the CUDA kernels ask for beside what all kernels do: the pieces, and the sizes of a model.

use std::os::raw::c_void;
use std::sync::LazyLock;

use super::rows::RowsLayout;
use crate::formats::WeightFormat;
use crate::kernels::DevicePtr;
use crate::kernels::check::{Check, Checker, require};
use crate::kernels::params::*;
use crate::kernels::sizes::KernelLimits;

/// Widths of a head that there is an attention kernel for: csrc/attention.cu. A wider one takes a third
/// tile of sums for each warp; from 176 on, more shared memory than any GPU has.
pub(crate) const HEAD_DIMS: [usize; 8] = [16, 32, 48, 64, 80, 96, 112, 128];

/// What a model is held to before its weights are read; what is checked below is the same, node by node.
pub(crate) const LIMITS: KernelLimits = KernelLimits {
    head_dims: Some(&HEAD_DIMS),
    // csrc/attention.cu
    heads_per_kv_head_max: 64,
    // Rows are prepared in whole blocks: csrc/common/rows.cuh.
    inputs_multiple: QUANT_BLOCK as usize,
    // csrc/sample.cu
    vocab_max: 1 << 21,
};

/// What a weight has to be in.
static FORMATS: LazyLock<String> = LazyLock::new(|| {
    let read = WeightFormat::ALL.into_iter().filter(|format| format.is_read_by_cuda());
    format!("in a format that CUDA kernels read: {}", read.map(WeightFormat::as_str).collect::<Vec<_>>().join(", "))
});

/// The matrices of a linear kernel, which all read the same rows.
pub(in crate::kernels) fn linear(
    checker: &Checker<'_>,
    rows: DevicePtr<c_void>,
    weights: &[(&'static str, WeightRef)],
) -> Check {
    let first = &weights[0].1;
    prepared(checker, rows, first.cols, first.activations)?;
    for (what, matrix) in weights {
        weight(what, matrix)?;
        let same = matrix.activations == first.activations;
        require(same, what, matrix.activations.into(), "a matrix that reads activations as the node's first one does")?;
    }
    Ok(())
}

pub(in crate::kernels) fn weight(what: &'static str, weight: &WeightRef) -> Check {
    let format = WeightFormat::from_u32(weight.format).filter(|format| format.is_read_by_cuda());
    require(format.is_some(), what, weight.format.into(), &FORMATS)?;
    let fits = match format.is_some_and(WeightFormat::is_quantised) {
        true => [ACTIVATIONS_INT8, ACTIVATIONS_INT8X2].contains(&weight.activations),
        false => weight.activations == ACTIVATIONS_BF16,
    };
    require(
        fits,
        what,
        weight.activations.into(),
        "a matrix that reads bf16 activations if it is bf16, else int8 ones",
    )?;
    require(weight.data.addr().is_multiple_of(16), what, weight.data.addr(), "aligned to 16 bytes")?;
    require(weight.cols.is_multiple_of(QUANT_BLOCK), what, weight.cols.into(), "whole blocks of 32 columns")
}

pub(in crate::kernels) fn kv_cache(kv: &KvCacheRef) -> Check {
    require(kv.format == FORMAT_F16, "kv.format", kv.format.into(), "f16: CUDA kernels read no other KV cache")?;
    require(kv.k.addr().is_multiple_of(16), "kv.k", kv.k.addr(), "aligned to 16 bytes")?;
    require(kv.v.addr().is_multiple_of(16), "kv.v", kv.v.addr(), "aligned to 16 bytes")
}

/// Where the kernel leaves its rows for the next layer.
pub(in crate::kernels) fn next_rows(checker: &Checker<'_>, next: &NextRows, cols: u32) -> Check {
    if next.rows.is_null() {
        return Ok(());
    }
    if !next.gamma.is_null() {
        checker.array("next.gamma", next.gamma, cols as usize * size_of::<f32>())?;
    }
    prepared(checker, next.rows, cols, next.activations)
}

/// Rows of activations as products read them: csrc/common/rows.cuh.
fn prepared(checker: &Checker<'_>, rows: DevicePtr<c_void>, cols: u32, activations: u32) -> Check {
    let known = [ACTIVATIONS_BF16, ACTIVATIONS_INT8, ACTIVATIONS_INT8X2].contains(&activations);
    require(known, "activations", activations.into(), "bf16, int8 or int8x2")?;
    require(cols.is_multiple_of(QUANT_BLOCK), "columns of rows", cols.into(), "whole blocks of 32")?;
    let bytes = checker.rows.saturating_mul(RowsLayout::new(cols as usize, activations).row_bytes);
    require(bytes < 1 << 32, "bytes of rows", bytes as u64, "less than 4 GiB")?;
    require(rows.addr().is_multiple_of(16), "rows", rows.addr(), "aligned to 16 bytes")?;
    checker.array("rows", rows, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KernelParams;

    const BASE: u64 = 4096;
    const BYTES: usize = 1 << 20;

    /// What is wrong, against one buffer.
    fn check(params: &KernelParams) -> Result<(), &'static str> {
        let holds = |addr: u64, bytes: usize| addr >= BASE && addr - BASE + bytes as u64 <= BYTES as u64;
        let checker = Checker { holds: &holds, rows: 4 };
        params.check(&checker).and_then(|()| params.check_for_cuda(&checker)).map_err(|wrong| wrong.what)
    }

    fn matrix() -> WeightRef {
        WeightRef { data: BASE.into(), rows: 64, cols: 96, format: FORMAT_Q4_0, activations: ACTIVATIONS_INT8 }
    }

    fn next() -> NextRows {
        NextRows { rows: BASE.into(), gamma: BASE.into(), activations: ACTIVATIONS_INT8X2, reserved: 0 }
    }

    /// Changes what is right and expects the error to name it.
    fn residual(what: &str, change: impl FnOnce(&mut LinearResidualParams)) {
        let (weight, next) = (matrix(), next());
        let mut params = LinearResidualParams {
            shape: BASE.into(),
            input: BASE.into(),
            x: BASE.into(),
            rows: BASE.into(),
            weight,
            next,
            ..LinearResidualParams::default()
        };
        assert_eq!(check(&KernelParams::LinearResidual(params)), Ok(()));
        change(&mut params);
        assert_eq!(check(&KernelParams::LinearResidual(params)), Err(what));
    }

    #[test]
    fn linear_kernels_take_packed_formats_and_prepared_rows() {
        residual("weight", |p| p.weight.format = FORMAT_F16);
        residual("weight", |p| p.weight.format = FORMAT_BF16); // which reads no int8
        residual("activations", |p| p.weight.activations = ACTIVATIONS_F32);
        residual("weight", |p| (p.weight.format, p.weight.cols) = (FORMAT_BF16, 100));
        residual("weight", |p| p.weight.data = (BASE + 8).into());
        residual("rows", |p| p.rows = DevicePtr::NULL);
        residual("rows", |p| p.rows = (BASE + BYTES as u64 - 16).into()); // no room for four rows
        residual("rows", |p| p.next.rows = (BASE + 4).into());
        residual("next.gamma", |p| p.next.gamma = 4.into());
        residual("activations", |p| p.next.activations = ACTIVATIONS_F32);
    }

    fn attention(what: &str, change: impl FnOnce(&mut AttentionParams)) {
        let kv = KvCacheRef { k: BASE.into(), v: BASE.into(), format: FORMAT_F16, pages: 8 };
        let (heads, kv_heads, head_dim, max_pages) = (4, 2, 64, 8);
        let mut params = AttentionParams {
            shape: BASE.into(),
            q: BASE.into(),
            positions: BASE.into(),
            page_tables: BASE.into(),
            items: BASE.into(),
            splits: BASE.into(),
            partials: BASE.into(),
            arrivals: BASE.into(),
            out: BASE.into(),
            next: NextRows { gamma: DevicePtr::NULL, ..next() },
            kv,
            scale: 0.125,
            heads,
            kv_heads,
            head_dim,
            max_pages,
            reserved: 0,
        };
        assert_eq!(check(&KernelParams::Attention(params)), Ok(()));
        change(&mut params);
        assert_eq!(check(&KernelParams::Attention(params)), Err(what));
    }

    #[test]
    fn attention_takes_half_precision_and_the_widths_it_is_compiled_for() {
        attention("kv.format", |p| p.kv.format = FORMAT_F32);
        attention("head_dim", |p| p.head_dim = 144);
        attention("arrivals", |p| p.arrivals = DevicePtr::NULL);
        attention("heads", |p| (p.heads, p.kv_heads, p.head_dim) = (66, 1, 16));
        attention("heads", |p| (p.heads, p.head_dim) = (2, 16)); // half a block for each KV head
    }
}
