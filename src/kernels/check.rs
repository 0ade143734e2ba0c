//! What kernels take, checked once, at capture: shapes that fit together, formats, addresses of the device. Each kernel
//! has its list in its folder; the pieces are here.
//!
//! A kernel trusts its parameters; so whatever it would read or write beyond a buffer has to be found here. The true
//! sizes of a step are at most the graph's bucket.

use std::os::raw::c_void;

use super::DevicePtr;
use super::params::*;
use super::rows::{activation_forms, activation_rows_bytes};
use crate::formats::WeightFormat;

/// A parameter that no kernel takes.
#[derive(Debug)]
pub struct Wrong {
    /// Its name.
    pub what: &'static str,
    /// Its value.
    pub value: u64,
    /// What it has to be.
    pub expected: &'static str,
}

/// What a check finds.
pub(crate) type Check = Result<(), Wrong>;

/// Checks against the buffers of a device.
pub(crate) struct Checker<'a> {
    /// Whether so many bytes from an address lie in one buffer of the device.
    pub(crate) holds: &'a dyn Fn(u64, usize) -> bool,
    /// The most rows that a step of this graph has: tokens of a forward graph, logit rows of a sample graph.
    pub(crate) rows: usize,
}

impl Checker<'_> {
    pub(super) fn array<T>(&self, what: &'static str, values: DevicePtr<T>, bytes: usize) -> Check {
        let expected = "an address in a buffer of this device with room for the graph's bucket";
        require((self.holds)(values.addr(), bytes), what, values.addr(), expected)?;
        require(values.addr().is_multiple_of(4), what, values.addr(), "aligned to 4 bytes")
    }

    /// Null: there is none.
    pub(super) fn optional<T>(&self, what: &'static str, values: DevicePtr<T>, bytes: usize) -> Check {
        if values.is_null() { Ok(()) } else { self.array(what, values, bytes) }
    }

    /// Bytes of (rows, a, b) floats; more than any buffer has, if they cannot be counted.
    pub(super) fn floats(&self, a: u32, b: u32) -> usize {
        bytes_of([self.rows, a as usize, b as usize, size_of::<f32>()])
    }

    /// Null: a kernel that asks for none has none.
    pub(super) fn rows_of_input(&self, rows: DevicePtr<c_void>, weights: &[WeightRef]) -> Check {
        let bytes =
            activation_forms(weights).saturating_mul(activation_rows_bytes(self.rows, weights[0].cols as usize));
        if rows.is_null() { Ok(()) } else { self.array("rows", rows, bytes) }
    }

    /// How many bytes the packed matrix takes is the packing's own affair: the address has to be one of its buffers.
    pub(super) fn weight(&self, what: &'static str, weight: &WeightRef, rows: u32, cols: u32) -> Check {
        self.array(what, weight.data, 1)?;
        require(weight.rows == rows, what, weight.rows.into(), "a matrix with as many rows as the node's outputs")?;
        require(weight.cols == cols, what, weight.cols.into(), "a matrix with as many columns as the node's inputs")?;
        at_least(what, rows.min(cols), 1)?;
        let Some(format) = WeightFormat::from_u32(weight.format) else {
            return require(false, what, weight.format.into(), "in a known weight format");
        };
        let int8 = [ACTIVATIONS_INT8, ACTIVATIONS_INT8X2].contains(&weight.activations);
        let known = int8 || [ACTIVATIONS_F32, ACTIVATIONS_BF16].contains(&weight.activations);
        require(known, what, weight.activations.into(), "a known way to read activations")?;
        let multiple = if int8 { QUANT_BLOCK } else { format.block_values() as u32 };
        require(cols.is_multiple_of(multiple), what, cols.into(), "whole quantisation blocks of 32 columns")
    }

    pub(super) fn heads(&self, heads: u32, kv_heads: u32, head_dim: u32) -> Check {
        at_least("kv_heads", kv_heads, 1)?;
        at_least("heads", heads, 1)?;
        require(heads.is_multiple_of(kv_heads), "heads", heads.into(), "a multiple of kv_heads")?;
        let fits = head_dim > 0 && head_dim.is_multiple_of(16);
        require(fits, "head_dim", head_dim.into(), "a multiple of 16")
    }

    pub(super) fn kv_cache(&self, kv: &KvCacheRef, kv_heads: u32, head_dim: u32) -> Check {
        let value_bytes = match kv.format {
            FORMAT_F32 => 4,
            FORMAT_F16 => 2,
            other => return require(false, "kv.format", other.into(), "f32 or f16"),
        };
        let (pages, kv_heads, head_dim) = (kv.pages as usize, kv_heads as usize, head_dim as usize);
        let bytes = bytes_of([pages, kv_heads, head_dim, PAGE_TOKENS as usize * value_bytes]);
        self.array("kv.k", kv.k, bytes)?;
        self.array("kv.v", kv.v, bytes)
    }

    pub(super) fn stride(&self, stride: u32, vocab: u32) -> Check {
        at_least("vocab", vocab, 1)?;
        let fits = stride >= vocab && stride.is_multiple_of(16);
        require(fits, "stride", stride.into(), "a multiple of 16, and no less than the vocabulary")
    }
}

fn bytes_of(factors: [usize; 4]) -> usize {
    factors.into_iter().fold(1, usize::saturating_mul)
}

pub(super) fn require(holds: bool, what: &'static str, value: u64, expected: &'static str) -> Check {
    if holds { Ok(()) } else { Err(Wrong { what, value, expected }) }
}

pub(super) fn at_least(what: &'static str, value: u32, least: u32) -> Check {
    require(value >= least, what, value.into(), "at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KernelParams;

    const BASE: u64 = 4096;

    /// What is wrong, against one buffer of 1 MiB.
    fn check(params: &KernelParams) -> Result<(), &'static str> {
        let holds = |addr: u64, bytes: usize| addr >= BASE && addr - BASE + bytes as u64 <= 1 << 20;
        params.check(&Checker { holds: &holds, rows: 4 }).map_err(|wrong| wrong.what)
    }

    fn weight(rows: u32, cols: u32) -> WeightRef {
        WeightRef { data: BASE.into(), rows, cols, format: FORMAT_Q4_0, activations: ACTIVATIONS_INT8 }
    }

    fn attention() -> AttentionParams {
        AttentionParams {
            shape: BASE.into(),
            q: BASE.into(),
            positions: BASE.into(),
            page_tables: BASE.into(),
            items: BASE.into(),
            splits: BASE.into(),
            partials: BASE.into(),
            arrivals: DevicePtr::NULL,
            out: BASE.into(),
            next: NextRows::default(),
            kv: KvCacheRef { k: BASE.into(), v: BASE.into(), format: FORMAT_F16, pages: 8 },
            scale: 0.125,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            max_pages: 8,
            reserved: 0,
        }
    }

    /// Changes what is right and expects the error to name it.
    fn expect_wrong(what: &str, change: impl FnOnce(&mut AttentionParams)) {
        let mut params = attention();
        assert_eq!(check(&KernelParams::Attention(params)), Ok(()));
        change(&mut params);
        assert_eq!(check(&KernelParams::Attention(params)), Err(what));
    }

    #[test]
    fn attention_takes_what_its_kernel_takes() {
        expect_wrong("head_dim", |p| p.head_dim = 24);
        expect_wrong("head_dim", |p| p.head_dim = 0);
        expect_wrong("heads", |p| p.heads = 3);
        expect_wrong("kv_heads", |p| p.kv_heads = 0);
        expect_wrong("kv.format", |p| p.kv.format = FORMAT_Q4_0);
        expect_wrong("kv.k", |p| p.kv.pages = 1 << 20);
        expect_wrong("kv.v", |p| p.kv.v = (BASE + (1 << 20) - 64).into());
        expect_wrong("max_pages", |p| p.max_pages = 0);
        expect_wrong("q", |p| p.q = DevicePtr::NULL);
        expect_wrong("q", |p| p.q = (BASE + 2).into());
        expect_wrong("q", |p| (p.heads, p.kv_heads, p.head_dim) = (1 << 31, 1 << 31, 1 << 31));
        expect_wrong("out", |p| p.out = (BASE + (1 << 20) - 4 * 4 * 64 * 4 + 4).into());
    }

    #[test]
    fn matrices_have_to_fit_their_node() {
        let with = |weight: WeightRef| {
            let params = LinearResidualParams {
                shape: BASE.into(),
                input: BASE.into(),
                x: BASE.into(),
                weight,
                ..LinearResidualParams::default()
            };
            check(&KernelParams::LinearResidual(params))
        };
        assert_eq!(with(weight(64, 96)), Ok(()));
        for wrong in [
            weight(64, 100),
            weight(0, 96),
            WeightRef { format: 77, ..weight(64, 96) },
            WeightRef { activations: 9, ..weight(64, 96) },
            WeightRef { data: DevicePtr::NULL, ..weight(64, 96) },
        ] {
            with(wrong).unwrap_err();
        }
        let exact = WeightRef { format: FORMAT_F32, activations: ACTIVATIONS_F32, ..weight(64, 100) };
        assert_eq!(with(exact), Ok(()), "f32 rows have no blocks");
    }
}
