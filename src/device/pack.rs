//! Weight matrices as files hold them: the input of [`Device::pack`](super::Device::pack).

use super::params::*;

/// How the values of a weight matrix are stored, in GGUF's and safetensors' encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum WeightFormat {
    /// IEEE single precision.
    F32 = FORMAT_F32,
    /// IEEE half precision.
    F16 = FORMAT_F16,
    /// bfloat16.
    Bf16 = FORMAT_BF16,
    /// Blocks of 32: f16 scale d, 32 × i8; value = d·q.
    Q8_0 = FORMAT_Q8_0,
    /// Blocks of 32: f16 scale d, 16 bytes of nibbles (low: values 0..16, high: 16..32); value = d·(q − 8).
    Q4_0 = FORMAT_Q4_0,
    /// Blocks of 32: f16 scale d, f16 minimum m, 16 bytes of nibbles; value = d·q + m.
    Q4_1 = FORMAT_Q4_1,
}

impl WeightFormat {
    /// The format with this number in `params.h`.
    pub fn from_u32(format: u32) -> Option<WeightFormat> {
        use WeightFormat::*;
        [F32, F16, Bf16, Q8_0, Q4_0, Q4_1].into_iter().find(|f| *f as u32 == format)
    }

    /// Values per block: row lengths are a multiple of it.
    pub fn block_values(self) -> usize {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 1,
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => QUANT_BLOCK as usize,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 2,
            WeightFormat::Q8_0 => 34,
            WeightFormat::Q4_0 => 18,
            WeightFormat::Q4_1 => 20,
        }
    }

    /// Bytes of a row of `cols` values.
    pub fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_values() * self.block_bytes()
    }

    /// The format's name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Q8_0 => "q8_0",
            WeightFormat::Q4_0 => "q4_0",
            WeightFormat::Q4_1 => "q4_1",
        }
    }

    /// Expands one row of a file's bytes to f32, exactly.
    pub fn dequantise_row(self, row: &[u8], out: &mut [f32]) {
        assert_eq!(row.len(), self.row_bytes(out.len()), "a {} row of {} values", self.as_str(), out.len());
        let f16_at = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let blocks = row.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block_values()));
        match self {
            WeightFormat::F32 => {
                blocks.for_each(|(b, o)| o[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            WeightFormat::F16 => blocks.for_each(|(b, o)| o[0] = f16_at(b)),
            WeightFormat::Bf16 => {
                blocks.for_each(|(b, o)| o[0] = half::bf16::from_le_bytes([b[0], b[1]]).to_f32());
            }
            WeightFormat::Q8_0 => blocks.for_each(|(b, o)| {
                let d = f16_at(b);
                for (value, byte) in o.iter_mut().zip(&b[2..]) {
                    *value = d * f32::from(*byte as i8);
                }
            }),
            WeightFormat::Q4_0 => blocks.for_each(|(b, o)| {
                let d = f16_at(b);
                for (i, byte) in b[2..].iter().enumerate() {
                    o[i] = d * (f32::from(byte & 15) - 8.0);
                    o[i + 16] = d * (f32::from(byte >> 4) - 8.0);
                }
            }),
            WeightFormat::Q4_1 => blocks.for_each(|(b, o)| {
                let (d, m) = (f16_at(b), f16_at(&b[2..]));
                for (i, byte) in b[4..].iter().enumerate() {
                    o[i] = d * f32::from(byte & 15) + m;
                    o[i + 16] = d * f32::from(byte >> 4) + m;
                }
            }),
        }
    }
}

/// A weight matrix as a file holds it, row by row.
#[derive(Clone, Copy, Debug)]
pub struct PackSource<'a> {
    /// The tensor's name, for errors.
    pub name: &'a str,
    /// How the values are stored.
    pub format: WeightFormat,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * format.row_bytes(cols)` bytes.
    pub data: &'a [u8],
}
