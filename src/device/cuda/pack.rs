//! Packed weight matrices, as CUDA's kernels read them: what is taken. The layout is src/formats/cuda.rs.

use crate::device::{DeviceError, PackSource};
use crate::formats::{WeightFormat, cuda};
use crate::kernels::params::*;

const QUANT: usize = QUANT_BLOCK as usize;

/// Packs one matrix into the bytes of its [`WeightLayout`](cuda::WeightLayout), in its
/// [`packed_format`](cuda::packed_format).
pub fn pack(source: &PackSource<'_>, to_format: WeightFormat) -> Result<Vec<u8>, DeviceError> {
    let &PackSource { name, format, rows, cols, data } = source;
    if !cols.is_multiple_of(QUANT) {
        return Err(DeviceError::PackShape { name: name.into(), format, cols, multiple: QUANT });
    }
    assert_eq!(data.len(), rows * format.row_bytes(cols), "{name}: ({rows}, {cols}) {}", format.as_str());
    Ok(cuda::pack(format, data, cols, to_format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_no_whole_blocks_is_refused() {
        let source = PackSource { name: "odd", format: WeightFormat::Bf16, rows: 1, cols: 33, data: &[0; 66] };
        let refused = pack(&source, source.format);
        assert!(matches!(refused, Err(DeviceError::PackShape { cols: 33, multiple: 32, .. })), "{refused:?}");
    }
}
