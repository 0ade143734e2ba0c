//! Weight matrices as files hold them: the input of [`Device::pack`](super::Device::pack).

use crate::formats::WeightFormat;

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
