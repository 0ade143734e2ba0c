//! Packed weight matrices: in memory of the device, in the order in which the kernels read them, which is the format's
//! own (src/formats).

use crate::device::cpu::CpuDevice;
use crate::device::{Activations, DeviceError, PackSource};
use crate::formats::WeightFormat;
use crate::isa::LANES;
use crate::kernels::params::*;

/// What one worker packs at a time, in bytes of the source.
const TILE_BYTES: usize = 1 << 18;

/// Packs one matrix, on all workers.
pub(in crate::device) fn pack(
    device: &mut CpuDevice,
    source: &PackSource<'_>,
    activations: Activations,
) -> Result<WeightRef, DeviceError> {
    let &PackSource { name, format, rows, cols, data } = source;
    if !cols.is_multiple_of(format.block_values()) {
        return Err(DeviceError::PackShape { name: name.into(), format, cols, multiple: format.block_values() });
    }
    assert_eq!(data.len(), rows * format.row_bytes(cols), "{name}: ({rows}, {cols}) {}", format.as_str());
    let quantised = format.is_quantised();
    let (packed_format, activations) = match (activations, format) {
        (Activations::F32, _) if quantised => (WeightFormat::F32, ACTIVATIONS_F32),
        (Activations::F32, _) => (format, ACTIVATIONS_F32),
        (Activations::Reduced, _) if quantised => (format, ACTIVATIONS_INT8),
        (Activations::ReducedFine, _) if quantised => (format, ACTIVATIONS_INT8X2),
        (_, WeightFormat::Bf16) if device.isa.has_bf16_dot() => (format, ACTIVATIONS_BF16),
        _ => (format, ACTIVATIONS_F32),
    };
    let block_bytes = packed_format.cpu_bytes(cols);
    let buffer = device.alloc(rows.div_ceil(LANES) * block_bytes, "weights")?;
    let source_bytes = LANES * format.row_bytes(cols).max(1);
    let tile_blocks = (TILE_BYTES / source_bytes).max(1);
    let (to, tiles) = (buffer.addr, data.len().div_ceil(tile_blocks * source_bytes));
    device.on_all_workers(&|worker| {
        let mut expanded = Vec::new();
        worker.for_each_tile(tiles, |tile| {
            for block in tile * tile_blocks..(tile + 1) * tile_blocks {
                let source = data.chunks(source_bytes).nth(block).unwrap_or_default();
                if source.is_empty() {
                    break;
                }
                let source = if packed_format == format { source } else { expand(format, source, cols, &mut expanded) };
                // SAFETY: the buffer was just allocated, zeroed, with so many bytes for each block of the source.
                // Nobody else has its address yet, and each block is one worker's.
                let packed =
                    unsafe { std::slice::from_raw_parts_mut((to as *mut u8).add(block * block_bytes), block_bytes) };
                packed_format.pack_for_cpu(source, cols, packed);
            }
        });
    });
    Ok(WeightRef {
        data: buffer.addr.into(),
        rows: rows as u32,
        cols: cols as u32,
        format: packed_format as u32,
        activations,
    })
}

/// Up to 16 rows as f32 rows.
fn expand<'a>(format: WeightFormat, source: &[u8], cols: usize, expanded: &'a mut Vec<u8>) -> &'a [u8] {
    let mut values = vec![0.0; cols];
    expanded.clear();
    for row in source.chunks_exact(format.row_bytes(cols)) {
        format.dequantise_row(row, &mut values);
        WeightFormat::F32.encode(&values, expanded);
    }
    expanded
}
