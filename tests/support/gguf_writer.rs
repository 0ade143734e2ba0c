//! Writes GGUF files: any metadata, tensors of every supported format, and files that are wrong on purpose.

use half::f16;
use vitrum::formats::WeightFormat;

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Meta {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// GGUF's number of the element type, and the elements.
    Array(u32, Vec<Meta>),
    /// GGUF's number of the type, and bytes that are written as they are.
    Raw(u32, Vec<u8>),
}

impl From<u32> for Meta {
    fn from(value: u32) -> Meta {
        Meta::U32(value)
    }
}

impl From<f32> for Meta {
    fn from(value: f32) -> Meta {
        Meta::F32(value)
    }
}

impl From<bool> for Meta {
    fn from(value: bool) -> Meta {
        Meta::Bool(value)
    }
}

impl From<&str> for Meta {
    fn from(value: &str) -> Meta {
        Meta::Text(value.to_owned())
    }
}

impl From<Vec<String>> for Meta {
    fn from(values: Vec<String>) -> Meta {
        Meta::Array(8, values.into_iter().map(Meta::Text).collect())
    }
}

impl From<Vec<i32>> for Meta {
    fn from(values: Vec<i32>) -> Meta {
        Meta::Array(5, values.into_iter().map(Meta::I32).collect())
    }
}

impl From<Vec<f32>> for Meta {
    fn from(values: Vec<f32>) -> Meta {
        Meta::Array(6, values.into_iter().map(Meta::F32).collect())
    }
}

impl Meta {
    fn kind(&self) -> u32 {
        match self {
            Meta::U8(_) => 0,
            Meta::I8(_) => 1,
            Meta::U16(_) => 2,
            Meta::I16(_) => 3,
            Meta::U32(_) => 4,
            Meta::I32(_) => 5,
            Meta::F32(_) => 6,
            Meta::Bool(_) => 7,
            Meta::Text(_) => 8,
            Meta::Array(..) => 9,
            Meta::U64(_) => 10,
            Meta::I64(_) => 11,
            Meta::F64(_) => 12,
            Meta::Raw(kind, _) => *kind,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Meta::U8(value) => out.push(*value),
            Meta::I8(value) => out.push(*value as u8),
            Meta::U16(value) => out.extend(value.to_le_bytes()),
            Meta::I16(value) => out.extend(value.to_le_bytes()),
            Meta::U32(value) => out.extend(value.to_le_bytes()),
            Meta::I32(value) => out.extend(value.to_le_bytes()),
            Meta::F32(value) => out.extend(value.to_le_bytes()),
            Meta::Bool(value) => out.push(u8::from(*value)),
            Meta::Text(value) => write_text(value, out),
            Meta::U64(value) => out.extend(value.to_le_bytes()),
            Meta::I64(value) => out.extend(value.to_le_bytes()),
            Meta::F64(value) => out.extend(value.to_le_bytes()),
            Meta::Array(kind, values) => {
                out.extend(kind.to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Meta::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub name: String,
    /// GGML's order: the first dimension is contiguous.
    pub dims: Vec<u64>,
    /// GGML's number of the type.
    pub type_id: u32,
    pub data: Vec<u8>,
    /// Where the table says that the data begin; `None`: where they do.
    pub claimed_offset: Option<u64>,
}

/// A file under construction.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    pub version: u32,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<TensorEntry>,
    /// Of the data; written as `general.alignment` unless it is the default of 32.
    pub alignment: u64,
    /// What the header says instead of the true number.
    pub claimed_tensor_count: Option<u64>,
}

impl GgufWriter {
    pub fn new() -> GgufWriter {
        GgufWriter { version: 3, metadata: Vec::new(), tensors: Vec::new(), alignment: 32, claimed_tensor_count: None }
    }

    /// Sets a key, replacing an earlier value.
    pub fn set(&mut self, key: &str, value: impl Into<Meta>) -> &mut GgufWriter {
        let value = value.into();
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Takes a key out.
    pub fn unset(&mut self, key: &str) -> &mut GgufWriter {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    /// Appends a matrix (rows, cols) of these values in this format; one row is written as a vector.
    pub fn tensor(&mut self, name: &str, format: WeightFormat, rows: usize, values: &[f32]) -> &mut GgufWriter {
        let cols = (values.len() / rows) as u64;
        let dims = if rows == 1 { vec![cols] } else { vec![cols, rows as u64] };
        let (name, data, type_id) = (name.to_owned(), quantise(format, values), format.ggml_type());
        self.tensors.push(TensorEntry { name, dims, type_id, data, claimed_offset: None });
        self
    }

    /// Has the table say that a tensor has another type than its data.
    pub fn claim_type(&mut self, name: &str, type_id: u32) -> &mut GgufWriter {
        self.entry(name).type_id = type_id;
        self
    }

    /// Has the table say that a tensor has another shape than its data.
    pub fn claim_dims(&mut self, name: &str, dims: &[u64]) -> &mut GgufWriter {
        self.entry(name).dims = dims.to_vec();
        self
    }

    /// Has the table say that a tensor's data lie elsewhere in the data section.
    pub fn claim_offset(&mut self, name: &str, offset: u64) -> &mut GgufWriter {
        self.entry(name).claimed_offset = Some(offset);
        self
    }

    /// Has the header say that there are as many tensors.
    pub fn claim_tensor_count(&mut self, count: u64) -> &mut GgufWriter {
        self.claimed_tensor_count = Some(count);
        self
    }

    /// Gives a tensor another name.
    pub fn rename(&mut self, name: &str, new_name: &str) -> &mut GgufWriter {
        self.entry(name).name = new_name.to_owned();
        self
    }

    fn entry(&mut self, name: &str) -> &mut TensorEntry {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect("a tensor of this name")
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let mut metadata = self.metadata.clone();
        if self.alignment != 32 {
            metadata.push(("general.alignment".to_owned(), Meta::U32(self.alignment as u32)));
        }
        out.extend(self.version.to_le_bytes());
        out.extend(self.claimed_tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in &metadata {
            write_text(key, &mut out);
            out.extend(value.kind().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            write_text(&tensor.name, &mut out);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.claimed_offset.unwrap_or(offset).to_le_bytes());
            offset = (offset + tensor.data.len() as u64).next_multiple_of(self.alignment);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Rounds values to a format, block by block.
pub fn quantise(format: WeightFormat, values: &[f32]) -> Vec<u8> {
    assert!(values.len().is_multiple_of(format.block_values()), "whole blocks of {}", format.as_str());
    let mut out = Vec::with_capacity(format.row_bytes(values.len()));
    match format {
        WeightFormat::Q8_0 => values.chunks(32).for_each(|block| {
            let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let scale = put_f16(largest / 127.0, &mut out);
            out.extend(block.iter().map(|value| ratio(*value, scale).clamp(-127.0, 127.0) as i8 as u8));
        }),
        WeightFormat::Q4_0 => values.chunks(32).for_each(|block| {
            let largest = block.iter().copied().fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
            let scale = put_f16(largest / -8.0, &mut out);
            put_nibbles(block.iter().map(|value| ratio(*value, scale) + 8.0), &mut out);
        }),
        WeightFormat::Q4_1 => values.chunks(32).for_each(|block| {
            let low = block.iter().copied().fold(f32::INFINITY, f32::min);
            let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scale = put_f16((high - low) / 15.0, &mut out);
            let minimum = put_f16(low, &mut out);
            put_nibbles(block.iter().map(|value| ratio(*value - minimum, scale)), &mut out);
        }),
        _ => format.encode(values, &mut out),
    }
    out
}

fn put_f16(value: f32, out: &mut Vec<u8>) -> f32 {
    let rounded = f16::from_f32(value);
    out.extend(rounded.to_le_bytes());
    rounded.to_f32()
}

fn ratio(value: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (value / scale).round() }
}

fn put_nibbles(quants: impl Iterator<Item = f32>, out: &mut Vec<u8>) {
    let quants: Vec<u8> = quants.map(|quant| quant.clamp(0.0, 15.0) as u8).collect();
    out.extend((0..16).map(|i| quants[i] | quants[i + 16] << 4));
}
