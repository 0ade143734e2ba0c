//! What the kernels of every device take, checked once, at capture: shapes that fit together, formats, addresses of the
//! device. What only one device asks for, it adds.
//!
//! A kernel trusts its parameters; so whatever it would read or write beyond a buffer has to be found here. The true
//! sizes of a step are at most the graph's bucket.

use crate::device::buffers::Buffers;
use crate::device::params::*;
use crate::device::{DeviceError, GraphKey, KernelParams, activation_forms, activation_rows_bytes};
use crate::formats::WeightFormat;

/// A parameter that no kernel takes.
#[derive(Debug)]
pub(super) struct Wrong {
    what: &'static str,
    value: u64,
    expected: &'static str,
}

pub(super) type Check = Result<(), Wrong>;

/// What one device asks for beside what all do.
pub(super) type Also = fn(&Checker<'_>, &KernelParams) -> Check;

/// Checks the parameters of one node.
pub(super) fn node(
    params: &KernelParams,
    key: GraphKey,
    ordinal: usize,
    buffers: &Buffers,
    also: Option<Also>,
) -> Result<(), DeviceError> {
    let checker = Checker { buffers, rows: key.bucket as usize };
    let (kernel, check) = match params {
        KernelParams::Embed(p) => ("embed", checker.embed(p)),
        KernelParams::NormQkv(p) => ("norm_qkv", checker.norm_qkv(p)),
        KernelParams::Attention(p) => ("attention", checker.attention(p)),
        KernelParams::LinearResidual(p) => ("linear_residual", checker.linear_residual(p)),
        KernelParams::NormGateUp(p) => ("norm_gate_up", checker.norm_gate_up(p)),
        KernelParams::NormLmHead(p) => ("norm_lm_head", checker.norm_lm_head(p)),
        KernelParams::Sample(p) => ("sample", checker.sample(p)),
    };
    let check = check.and_then(|()| also.map_or(Ok(()), |also| also(&checker, params)));
    check.map_err(|Wrong { what, value, expected }| DeviceError::Unsupported {
        graph: key,
        ordinal,
        kernel,
        what,
        value,
        expected,
    })
}

/// Checks against the buffers of a device.
pub(super) struct Checker<'a> {
    buffers: &'a Buffers,
    /// The most rows that a step of this graph has: tokens of a forward graph, logit rows of a sample graph.
    pub(super) rows: usize,
}

impl Checker<'_> {
    fn embed(&self, p: &EmbedParams) -> Check {
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("token_source", p.token_source, self.rows * 4)?;
        self.array("slot_tokens", p.slot_tokens, 4)?;
        self.array("x", p.x, self.floats(p.weight.cols, 1))?;
        self.weight("weight", &p.weight, p.weight.rows, p.weight.cols)
    }

    fn norm_qkv(&self, p: &NormQkvParams) -> Check {
        self.heads(p.heads, p.kv_heads, p.head_dim)?;
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("x", p.x, self.floats(p.hidden, 1))?;
        self.array("gamma", p.gamma, p.hidden as usize * 4)?;
        self.array("rope", p.rope, p.head_dim as usize * 4)?;
        self.array("positions", p.positions, self.rows * 4)?;
        self.array("slot_mapping", p.slot_mapping, self.rows * 4)?;
        self.array("q", p.q, self.floats(p.heads, p.head_dim))?;
        self.rows_of_input(p.rows, &[p.wq, p.wk, p.wv])?;
        self.weight("wq", &p.wq, p.heads.saturating_mul(p.head_dim), p.hidden)?;
        self.weight("wk", &p.wk, p.kv_heads.saturating_mul(p.head_dim), p.hidden)?;
        self.weight("wv", &p.wv, p.kv_heads.saturating_mul(p.head_dim), p.hidden)?;
        self.kv_cache(&p.kv, p.kv_heads, p.head_dim)
    }

    fn attention(&self, p: &AttentionParams) -> Check {
        self.heads(p.heads, p.kv_heads, p.head_dim)?;
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("q", p.q, self.floats(p.heads, p.head_dim))?;
        self.array("positions", p.positions, self.rows * 4)?;
        self.array("page_tables", p.page_tables, p.max_pages as usize * 4)?;
        self.array("items", p.items, size_of::<AttentionItem>())?;
        self.array("splits", p.splits, self.rows * size_of::<AttentionSplit>())?;
        self.array("partials", p.partials, 0)?;
        self.array("out", p.out, self.floats(p.heads, p.head_dim))?;
        at_least("max_pages", p.max_pages, 1)?;
        self.kv_cache(&p.kv, p.kv_heads, p.head_dim)
    }

    fn linear_residual(&self, p: &LinearResidualParams) -> Check {
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("input", p.input, self.floats(p.weight.cols, 1))?;
        self.array("x", p.x, self.floats(p.weight.rows, 1))?;
        self.rows_of_input(p.rows, &[p.weight])?;
        self.weight("weight", &p.weight, p.weight.rows, p.weight.cols)
    }

    fn norm_gate_up(&self, p: &NormGateUpParams) -> Check {
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("x", p.x, self.floats(p.hidden, 1))?;
        self.array("gamma", p.gamma, p.hidden as usize * 4)?;
        self.array("out", p.out, self.floats(p.ffn, 1))?;
        self.rows_of_input(p.rows, &[p.gate, p.up])?;
        self.weight("gate", &p.gate, p.ffn, p.hidden)?;
        self.weight("up", &p.up, p.ffn, p.hidden)
    }

    fn norm_lm_head(&self, p: &NormLmHeadParams) -> Check {
        self.stride(p.stride, p.vocab)?;
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("x", p.x, p.hidden as usize * 4)?;
        self.array("logit_rows", p.logit_rows, self.rows * 4)?;
        self.array("gamma", p.gamma, p.hidden as usize * 4)?;
        self.array("logits", p.logits, self.floats(p.stride, 1))?;
        self.rows_of_input(p.rows, &[p.weight])?;
        self.weight("weight", &p.weight, p.vocab, p.hidden)
    }

    fn sample(&self, p: &SampleParams) -> Check {
        self.stride(p.stride, p.vocab)?;
        self.array("shape", p.shape, size_of::<StepShape>())?;
        self.array("logits", p.logits, self.floats(p.stride, 1))?;
        self.array("rows", p.rows, self.rows * size_of::<SampleRow>())?;
        require(p.rows.is_multiple_of(8), "rows", p.rows, "aligned to 8 bytes")?;
        self.array("slot_tokens", p.slot_tokens, 4)?;
        self.array("tokens", p.tokens, self.rows * 4)?;
        // Null: no row asks for log probabilities.
        if p.logprobs == 0 { Ok(()) } else { self.array("logprobs", p.logprobs, self.rows * size_of::<LogprobRow>()) }
    }

    // ---- pieces ----------------------------------------------------------------------------------------------------

    pub(super) fn array(&self, what: &'static str, addr: u64, bytes: usize) -> Check {
        let expected = "an address in a buffer of this device with room for the graph's bucket";
        require(self.buffers.holds(addr, bytes), what, addr, expected)?;
        require(addr.is_multiple_of(4), what, addr, "aligned to 4 bytes")
    }

    /// Bytes of (rows, a, b) floats; more than any buffer has, if they cannot be counted.
    fn floats(&self, a: u32, b: u32) -> usize {
        bytes_of([self.rows, a as usize, b as usize, size_of::<f32>()])
    }

    /// Null: a kernel that asks for none has none.
    fn rows_of_input(&self, addr: u64, weights: &[WeightRef]) -> Check {
        let bytes =
            activation_forms(weights).saturating_mul(activation_rows_bytes(self.rows, weights[0].cols as usize));
        if addr == 0 { Ok(()) } else { self.array("rows", addr, bytes) }
    }

    /// How many bytes the packed matrix takes is the packing's own affair: the address has to be one of its buffers.
    fn weight(&self, what: &'static str, weight: &WeightRef, rows: u32, cols: u32) -> Check {
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

    fn heads(&self, heads: u32, kv_heads: u32, head_dim: u32) -> Check {
        at_least("kv_heads", kv_heads, 1)?;
        at_least("heads", heads, 1)?;
        require(heads.is_multiple_of(kv_heads), "heads", heads.into(), "a multiple of kv_heads")?;
        let fits = head_dim > 0 && head_dim.is_multiple_of(16);
        require(fits, "head_dim", head_dim.into(), "a multiple of 16")
    }

    fn kv_cache(&self, kv: &KvCacheRef, kv_heads: u32, head_dim: u32) -> Check {
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

    fn stride(&self, stride: u32, vocab: u32) -> Check {
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

fn at_least(what: &'static str, value: u32, least: u32) -> Check {
    require(value >= least, what, value.into(), "at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceBuffer;
    use crate::trace::schema::GraphKind;

    const BASE: u64 = 4096;

    fn check(params: &KernelParams) -> Result<(), String> {
        let mut buffers = Buffers::default();
        buffers.insert(DeviceBuffer { addr: BASE, bytes: 1 << 20 });
        let key = GraphKey { kind: GraphKind::ForwardDecode, bucket: 4 };
        node(params, key, 3, &buffers, None).map_err(|error| error.to_string())
    }

    fn weight(rows: u32, cols: u32) -> WeightRef {
        WeightRef { data: BASE, rows, cols, format: FORMAT_Q4_0, activations: ACTIVATIONS_INT8 }
    }

    fn attention() -> AttentionParams {
        AttentionParams {
            shape: BASE,
            q: BASE,
            positions: BASE,
            page_tables: BASE,
            items: BASE,
            splits: BASE,
            partials: BASE,
            arrivals: 0,
            out: BASE,
            next: NextRows::default(),
            kv: KvCacheRef { k: BASE, v: BASE, format: FORMAT_F16, pages: 8 },
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
        let error = check(&KernelParams::Attention(params)).unwrap_err();
        assert!(error.starts_with(&format!("forward.decode.4, node 3 (attention): {what} is ")), "{error}");
    }

    #[test]
    fn attention_takes_what_its_kernel_takes() {
        expect_wrong("head_dim", |p| p.head_dim = 24);
        expect_wrong("head_dim", |p| p.head_dim = 0);
        expect_wrong("heads", |p| p.heads = 3);
        expect_wrong("kv_heads", |p| p.kv_heads = 0);
        expect_wrong("kv.format", |p| p.kv.format = FORMAT_Q4_0);
        expect_wrong("kv.k", |p| p.kv.pages = 1 << 20);
        expect_wrong("kv.v", |p| p.kv.v = BASE + (1 << 20) - 64);
        expect_wrong("max_pages", |p| p.max_pages = 0);
        expect_wrong("q", |p| p.q = 0);
        expect_wrong("q", |p| p.q = BASE + 2);
        expect_wrong("q", |p| (p.heads, p.kv_heads, p.head_dim) = (1 << 31, 1 << 31, 1 << 31));
        expect_wrong("out", |p| p.out = BASE + (1 << 20) - 4 * 4 * 64 * 4 + 4);
    }

    #[test]
    fn matrices_have_to_fit_their_node() {
        let with = |weight: WeightRef| {
            let params =
                LinearResidualParams { shape: BASE, input: BASE, x: BASE, rows: 0, weight, next: NextRows::default() };
            check(&KernelParams::LinearResidual(params))
        };
        assert_eq!(with(weight(64, 96)), Ok(()));
        for wrong in [
            weight(64, 100),
            weight(0, 96),
            WeightRef { format: 77, ..weight(64, 96) },
            WeightRef { activations: 9, ..weight(64, 96) },
            WeightRef { data: 0, ..weight(64, 96) },
        ] {
            with(wrong).unwrap_err();
        }
        let exact = WeightRef { format: FORMAT_F32, activations: ACTIVATIONS_F32, ..weight(64, 100) };
        assert_eq!(with(exact), Ok(()), "f32 rows have no blocks");
    }
}
