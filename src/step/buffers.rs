//! The step's memory at fixed addresses: one contiguous input buffer, activations, results.

use super::StepLimits;
use super::batch::{StepBatch, max_items, max_partials};
use crate::device::{Device, DeviceBuffer, DeviceError, Download, Upload, pod_bytes};
use crate::kernels::DevicePtr;
use crate::kernels::attention;
use crate::kernels::params::*;
use crate::kernels::rows::activation_rows_bytes;
use crate::model::{KvFormat, Model, StepAddresses};

/// Everything that captured graphs read and write besides weights.
#[derive(Debug)]
pub(super) struct StepBuffers {
    inputs: InputLayout,
    logits: DeviceBuffer,
    stride: usize,
    vocab: usize,
    /// Pages of the KV cache.
    pub(super) kv_pages: usize,
    /// The addresses that the model's nodes are built with.
    pub(super) addresses: StepAddresses,
}

/// Addresses inside the input buffer.
#[derive(Clone, Copy, Debug)]
struct InputLayout {
    shape: DevicePtr<StepShape>,
    token_source: DevicePtr<i32>,
    positions: DevicePtr<u32>,
    slot_mapping: DevicePtr<u32>,
    logit_rows: DevicePtr<u32>,
    sample_rows: DevicePtr<SampleRow>,
    items: DevicePtr<AttentionItem>,
    splits: DevicePtr<AttentionSplit>,
    page_tables: DevicePtr<u32>,
}

/// Places segments one after the other, each aligned to a cache line.
struct Cursor(u64);

impl Cursor {
    fn take<T>(&mut self, count: usize) -> DevicePtr<T> {
        let at = self.0;
        self.0 = (at + (count * size_of::<T>()) as u64).next_multiple_of(64);
        at.into()
    }
}

impl InputLayout {
    /// The layout from address `base` on, and its length in bytes.
    fn at(base: u64, limits: &StepLimits) -> (InputLayout, usize) {
        let (tokens, seqs) = (limits.max_tokens, limits.max_seqs);
        let mut cursor = Cursor(base);
        let layout = InputLayout {
            shape: cursor.take(1),
            token_source: cursor.take(tokens),
            positions: cursor.take(tokens),
            slot_mapping: cursor.take(tokens),
            logit_rows: cursor.take(seqs),
            sample_rows: cursor.take(seqs),
            items: cursor.take(max_items(limits)),
            splits: cursor.take(tokens),
            page_tables: cursor.take(seqs * limits.pages_per_seq()),
        };
        (layout, (cursor.0 - base) as usize)
    }
}

/// Bytes of the input buffer: the most that one step uploads.
pub(super) fn input_bytes(limits: &StepLimits) -> usize {
    InputLayout::at(0, limits).1
}

impl StepBuffers {
    pub(super) fn allocate(
        device: &mut Device,
        model: &Model,
        limits: &StepLimits,
        kv: KvFormat,
        kv_fraction: Option<f64>,
    ) -> Result<StepBuffers, DeviceError> {
        let (tokens, seqs) = (limits.max_tokens, limits.max_seqs);
        let config = model.config();
        let inputs = InputLayout::at(device.alloc(input_bytes(limits), "step inputs")?.addr, limits).0;
        let f32s = |count: usize| count * size_of::<f32>();
        let widest = config.ffn.max(config.heads * config.head_dim);
        let stride = config.vocab.next_multiple_of(16);
        let partial_bytes = attention::partial_bytes(max_partials(limits), config.heads, config.head_dim);
        let logits = device.alloc(f32s(seqs * stride), "logits")?;
        let query_bytes = f32s(tokens * config.heads * config.head_dim);
        let x_rows_bytes = model.residual_forms() * activation_rows_bytes(tokens, config.hidden);
        let mut addresses = StepAddresses {
            shape: inputs.shape,
            token_source: inputs.token_source,
            positions: inputs.positions,
            slot_mapping: inputs.slot_mapping,
            logit_rows: inputs.logit_rows,
            sample_rows: inputs.sample_rows,
            items: inputs.items,
            splits: inputs.splits,
            page_tables: inputs.page_tables,
            max_pages: limits.pages_per_seq() as u32,
            x: device.alloc(f32s(tokens * config.hidden), "residual stream")?.addr.into(),
            q: device.alloc(query_bytes, "queries")?.addr.into(),
            keys: optional(device, model.norms_keys(), tokens * config.kv_heads * config.head_dim, "keys")?,
            y: optional(device, model.norms_results(), tokens * config.hidden, "results")?,
            attention: device.alloc(query_bytes, "attention output")?.addr.into(),
            partials: device.alloc(partial_bytes, "attention partials")?.addr.into(),
            arrivals: device.alloc(tokens * config.kv_heads * size_of::<u32>(), "attention arrivals")?.addr.into(),
            mlp: device.alloc(f32s(tokens * config.ffn), "MLP activations")?.addr.into(),
            x_rows: device.alloc(x_rows_bytes, "activation rows")?.addr.into(),
            inner_rows: device.alloc(activation_rows_bytes(tokens, widest), "activation rows")?.addr.into(),
            logits: logits.addr.into(),
            logits_stride: stride as u32,
            slot_tokens: device.alloc(seqs * size_of::<u32>(), "slots")?.addr.into(),
            tokens: device.alloc(seqs * size_of::<u32>(), "drawn tokens")?.addr.into(),
            logprobs: device.alloc(seqs * size_of::<LogprobRow>(), "log probabilities")?.addr.into(),
            kv: Vec::new(),
        };
        // The last thing that is allocated: what is free now is free for it.
        let kv_pages = match (kv_fraction, device.free_bytes()?) {
            (Some(fraction), Some(free)) => {
                limits.kv_pages.min((free as f64 * fraction) as usize / kv.bytes_per_page(config))
            }
            _ => limits.kv_pages,
        };
        addresses.kv = kv_caches(device, model, kv_pages, kv)?;
        Ok(StepBuffers { inputs, logits, stride, vocab: config.vocab, kv_pages, addresses })
    }

    /// The parts of the input buffer that this batch uses.
    pub(super) fn uploads<'a>(&self, batch: &'a StepBatch) -> [Upload<'a>; 9] {
        let at = &self.inputs;
        [
            Upload { addr: at.shape.addr(), data: pod_bytes(&batch.shape) },
            Upload { addr: at.token_source.addr(), data: pod_bytes(&batch.token_source) },
            Upload { addr: at.positions.addr(), data: pod_bytes(&batch.positions) },
            Upload { addr: at.slot_mapping.addr(), data: pod_bytes(&batch.slot_mapping) },
            Upload { addr: at.logit_rows.addr(), data: pod_bytes(&batch.logit_rows) },
            Upload { addr: at.sample_rows.addr(), data: pod_bytes(&batch.sample_rows) },
            Upload { addr: at.items.addr(), data: pod_bytes(&batch.items) },
            Upload { addr: at.splits.addr(), data: pod_bytes(&batch.splits) },
            Upload { addr: at.page_tables.addr(), data: pod_bytes(&batch.page_tables) },
        ]
    }

    /// Where the batch's tokens and log probabilities come back from.
    pub(super) fn downloads(&self, batch: &StepBatch) -> [Download; 2] {
        let rows = batch.logit_rows();
        [
            Download { addr: self.addresses.tokens.addr(), bytes: rows * size_of::<u32>() },
            Download { addr: self.addresses.logprobs.addr(), bytes: rows * size_of::<LogprobRow>() },
        ]
    }

    pub(super) fn logits(&self, device: &mut Device, rows: usize) -> Vec<Vec<f32>> {
        let mut bytes = vec![0; self.vocab * size_of::<f32>()];
        (0..rows)
            .map(|row| {
                device.download(&self.logits, row * self.stride * size_of::<f32>(), &mut bytes);
                bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            })
            .collect()
    }
}

/// Room for f32 values, where it is needed.
fn optional(
    device: &mut Device,
    is_needed: bool,
    count: usize,
    purpose: &'static str,
) -> Result<DevicePtr<f32>, DeviceError> {
    match is_needed {
        true => Ok(device.alloc(count * size_of::<f32>(), purpose)?.addr.into()),
        false => Ok(DevicePtr::NULL),
    }
}

fn kv_caches(
    device: &mut Device,
    model: &Model,
    kv_pages: usize,
    kv: KvFormat,
) -> Result<Vec<KvCacheRef>, DeviceError> {
    let bytes = kv.bytes_per_page_and_layer(model.config()) / 2 * kv_pages;
    (0..model.config().layers)
        .map(|_| {
            Ok(KvCacheRef {
                k: device.alloc(bytes, "KV cache")?.addr.into(),
                v: device.alloc(bytes, "KV cache")?.addr.into(),
                format: kv.format() as u32,
                pages: kv_pages as u32,
            })
        })
        .collect()
}
