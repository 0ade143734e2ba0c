//! What every format says of itself, and what is asked of a format by its value.

use super::WeightFormat;
use super::cuda::CudaLayout;
use super::random::Stream;

/// One format's own, but for the code that kernels are compiled with ([`CpuFormat`](super::cpu::CpuFormat)).
pub(super) trait Format: Sync {
    /// Its name in tables and flags.
    fn name(&self) -> &'static str;

    /// Values of a block: row lengths are a multiple of it.
    fn block_values(&self) -> usize;

    /// Bytes of a block in a file.
    fn block_bytes(&self) -> usize;

    /// Its number in `enum ggml_type` of ggml.h, by which GGUF files name it.
    fn ggml_type(&self) -> u32;

    /// Its name in safetensors files, which know no blocks.
    fn safetensors_dtype(&self) -> Option<&'static str> {
        None
    }

    /// Expands a row of a file to f32, exactly.
    fn decode(&self, row: &[u8], out: &mut [f32]);

    /// Appends a row near `values`, in the plainest way: what checks multiply with.
    fn encode(&self, values: &[f32], row: &mut Vec<u8>);

    /// Fills a row with random values of mean 0, uniform in ±`amplitude` within a block.
    fn fill(&self, row: &mut [u8], random: &mut Stream, amplitude: f32);

    /// Bytes of 16 rows packed for the CPU.
    fn cpu_bytes(&self, cols: usize) -> usize;

    /// Packs up to 16 rows of a file for the CPU, into zeros.
    fn pack_for_cpu(&self, rows: &[u8], cols: usize, packed: &mut [u8]);

    /// How CUDA's kernels hold it; `None`: they read it rounded to bf16.
    fn cuda(&self) -> Option<CudaLayout> {
        None
    }
}

impl WeightFormat {
    /// The format with this number in `params.h`.
    pub fn from_u32(format: u32) -> Option<WeightFormat> {
        Self::ALL.into_iter().find(|f| *f as u32 == format)
    }

    /// The format of GGUF tensors of this type.
    pub fn from_ggml_type(type_id: u32) -> Option<WeightFormat> {
        Self::ALL.into_iter().find(|format| format.ggml_type() == type_id)
    }

    /// The format of safetensors tensors of this type.
    pub fn from_safetensors_dtype(dtype: &str) -> Option<WeightFormat> {
        Self::ALL.into_iter().find(|format| format.safetensors_dtype() == Some(dtype))
    }

    /// The format's name in tables and flags.
    pub fn as_str(self) -> &'static str {
        self.own().name()
    }

    /// GGML's number of the format.
    pub fn ggml_type(self) -> u32 {
        self.own().ggml_type()
    }

    /// What safetensors files call the format, if they can hold it.
    pub fn safetensors_dtype(self) -> Option<&'static str> {
        self.own().safetensors_dtype()
    }

    /// Values per block: row lengths are a multiple of it.
    pub fn block_values(self) -> usize {
        self.own().block_values()
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.own().block_bytes()
    }

    /// Whether values are integers with scales: products read rows of integers too.
    pub fn is_quantised(self) -> bool {
        self.block_values() > 1
    }

    /// Bytes of a row of `cols` values.
    pub fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_values() * self.block_bytes()
    }

    /// Expands one row of a file's bytes to f32, exactly.
    pub fn dequantise_row(self, row: &[u8], out: &mut [f32]) {
        assert_eq!(row.len(), self.row_bytes(out.len()), "a {} row of {} values", self.as_str(), out.len());
        self.own().decode(row, out);
    }

    /// Appends rows near `values`, for checks: whole blocks. Files are made by better encoders.
    pub fn encode(self, values: &[f32], rows: &mut Vec<u8>) {
        assert!(values.len().is_multiple_of(self.block_values()), "whole blocks of {}", self.as_str());
        self.own().encode(values, rows);
    }

    /// Fills a row with random values of mean 0, uniform in ±`amplitude` within a block.
    pub(crate) fn fill_row(self, row: &mut [u8], random: &mut Stream, amplitude: f32) {
        self.own().fill(row, random, amplitude);
    }

    /// Bytes of 16 rows packed for the CPU.
    pub(crate) fn cpu_bytes(self, cols: usize) -> usize {
        self.own().cpu_bytes(cols)
    }

    /// Packs up to 16 rows of a file for the CPU, into zeros.
    pub(crate) fn pack_for_cpu(self, rows: &[u8], cols: usize, packed: &mut [u8]) {
        self.own().pack_for_cpu(rows, cols, packed);
    }

    /// How CUDA's kernels hold it; `None`: they read it rounded to bf16.
    pub(super) fn cuda(self) -> Option<CudaLayout> {
        self.own().cuda()
    }

    /// Whether CUDA's kernels read matrices packed in this format.
    pub fn is_read_by_cuda(self) -> bool {
        self.cuda().is_some()
    }
}
