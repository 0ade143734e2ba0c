//! The tensor table of a GGUF file: names, shapes, types and where the data lie.

use std::collections::HashMap;

use super::cursor::Cursor;
use crate::formats::WeightFormat;
use crate::weights::Malformed;

/// GGUF's own limit.
const NAME_BYTES_MAX: u64 = 64;
/// A hundred times what the largest models have.
const TENSORS_MAX: u64 = 1 << 20;
const DIMS_MAX: u64 = 4;
/// Name length, number of dimensions, one dimension, type, offset.
const ENTRY_BYTES_MIN: usize = 8 + 4 + 8 + 4 + 8;

/// An entry of the table.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// GGML's number of the type.
    pub(super) type_id: u32,
    /// GGML's order: the first dimension is contiguous.
    pub(super) dims: Vec<u64>,
    /// Where the data begin; from the beginning of the data section until [`place`], of the file afterwards.
    pub(super) offset: u64,
    /// Size of the data; 0 for types whose block size is not known here.
    pub(super) bytes: u64,
}

impl TensorInfo {
    /// The format, if it is supported.
    pub(super) fn format(&self) -> Option<WeightFormat> {
        WeightFormat::from_ggml_type(self.type_id)
    }

    /// Its bytes in the file, once [`place`] found that they lie within it.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.offset as usize..(self.offset + self.bytes) as usize
    }

    /// (rows, cols) of a vector or a matrix; a vector is one row.
    pub(super) fn shape(&self) -> (u64, u64) {
        (self.dims[1..].iter().fold(1, |rows, dim| rows.saturating_mul(*dim)), self.dims[0])
    }
}

/// GGML's name of a tensor type.
pub(super) fn type_name(type_id: u32) -> &'static str {
    const NAMES: [&str; 40] = [
        "F32",
        "F16",
        "Q4_0",
        "Q4_1",
        "Q4_2",
        "Q4_3",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q8_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "Q8_K",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ3_XXS",
        "IQ1_S",
        "IQ4_NL",
        "IQ3_S",
        "IQ2_S",
        "IQ4_XS",
        "I8",
        "I16",
        "I32",
        "I64",
        "F64",
        "IQ1_M",
        "BF16",
        "Q4_0_4_4",
        "Q4_0_4_8",
        "Q4_0_8_8",
        "TQ1_0",
        "TQ2_0",
        "IQ4_NL_4_4",
        "IQ4_NL_4_8",
        "IQ4_NL_8_8",
        "MXFP4",
    ];
    NAMES.get(type_id as usize).copied().unwrap_or("unknown")
}

/// Reads the number of tensors.
pub(super) fn count(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
    cursor.count("tensor count", ENTRY_BYTES_MIN, TENSORS_MAX)
}

/// Reads the table.
pub(super) fn parse(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<TensorInfo>, Malformed> {
    (0..count).map(|_| parse_one(cursor)).collect()
}

fn parse_one(cursor: &mut Cursor<'_>) -> Result<TensorInfo, Malformed> {
    let name = cursor.text("tensor name", NAME_BYTES_MAX)?.to_owned();
    let offset = cursor.offset();
    let dims = u64::from(cursor.u32("number of dimensions")?);
    if dims == 0 {
        return Err(Malformed::Zero { offset, field: "number of dimensions" });
    }
    if dims > DIMS_MAX {
        return Err(Malformed::Limit { offset, field: "number of dimensions", value: dims, limit: DIMS_MAX });
    }
    let dims = (0..dims).map(|_| dimension(cursor)).collect::<Result<Vec<_>, _>>()?;
    let type_id = cursor.u32("tensor type")?;
    let offset = cursor.u64("tensor offset")?;
    let mut info = TensorInfo { name, type_id, dims, offset, bytes: 0 };
    if let Some(format) = info.format() {
        // A row that is no whole number of blocks counts as if it were; whoever asks for the tensor is told.
        let (rows, cols) = info.shape();
        let blocks = cols.div_ceil(format.block_values() as u64);
        info.bytes = rows.saturating_mul(blocks.saturating_mul(format.block_bytes() as u64));
    }
    Ok(info)
}

fn dimension(cursor: &mut Cursor<'_>) -> Result<u64, Malformed> {
    let offset = cursor.offset();
    match cursor.u64("dimension")? {
        0 => Err(Malformed::Zero { offset, field: "dimension" }),
        value => Ok(value),
    }
}

/// Turns offsets into the data section into offsets into the file, once they are known to be aligned, inside and
/// disjoint. Returns the tensors by name.
pub(super) fn place(
    mut tensors: Vec<TensorInfo>,
    header_bytes: u64,
    file_bytes: u64,
    alignment: u64,
) -> Result<HashMap<String, TensorInfo>, Malformed> {
    // Both terms are below 2⁶³: a file's size is, and the alignment was checked to be.
    let data_start = header_bytes.next_multiple_of(alignment);
    for tensor in &mut tensors {
        let TensorInfo { name, offset, bytes, .. } = tensor;
        if !offset.is_multiple_of(alignment) {
            return Err(Malformed::Unaligned { name: name.clone(), offset: *offset, alignment });
        }
        let (offset, bytes) = (offset.saturating_add(data_start), *bytes);
        if offset.checked_add(bytes).is_none_or(|end| end > file_bytes) {
            return Err(Malformed::OutsideFile { name: name.clone(), offset, bytes, file_bytes });
        }
        tensor.offset = offset;
    }
    tensors.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in tensors.windows(2) {
        // Two tensors never begin at the same byte, whether or not the first one's size is known.
        if pair[1].offset < pair[0].offset + pair[0].bytes.max(1) {
            let (name, other) = (pair[1].name.clone(), pair[0].name.clone());
            return Err(Malformed::Overlap { name, other, offset: pair[1].offset });
        }
    }
    let mut by_name = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        let offset = tensor.offset;
        if let Some(other) = by_name.insert(tensor.name.clone(), tensor) {
            return Err(Malformed::Duplicate { offset, field: "tensor", name: other.name });
        }
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_the_numbers_of_their_names() {
        for format in WeightFormat::ALL {
            assert_eq!(type_name(format.ggml_type()).to_lowercase(), format.as_str());
        }
    }
}
