//! What every case shares: numbers, weights in every file format, how far a result may be off, a device to run one node
//! on.

use std::os::raw::c_void;

use cust_core::DeviceCopy;
use thiserror::Error;

use crate::device::*;
use crate::formats::WeightFormat;
use crate::kernels::cuda::rows::RowsLayout;
use crate::kernels::linear::Matrix;
use crate::kernels::params::*;
use crate::kernels::rows::{activation_forms, activation_rows_bytes};
use crate::kernels::{DevicePtr, Node};
use crate::trace::schema::{GraphKey, GraphKind, NodeSources};

/// Every way to read activations.
pub const ACTIVATIONS: [Activations; 3] = [Activations::F32, Activations::Reduced, Activations::ReducedFine];
/// Of the norm, in every case.
pub const EPS: f32 = 1e-5;
/// Activations that may fall to the other side of an edge between two steps of 16 bits: f32 is only 2⁸ times finer.
const EDGES: f64 = 4.0;
/// What memory holds that a kernel must not touch.
pub const UNTOUCHED: f32 = -12345.5;
/// Behind every buffer: capture asks for room for as many rows as the graph's bucket, and steps here have fewer.
const BUCKET_ROOM_BYTES: usize = 64 << 10;

/// Why a case did not pass.
#[derive(Debug, Error)]
pub enum CaseError {
    /// The device failed, or refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A result is not what it has to be.
    #[error("{0}")]
    Wrong(String),
}

/// A case that passed: its largest error, as a part of what is allowed.
pub type Case = Result<f64, CaseError>;

/// An error unless this holds.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), CaseError> {
    if holds { Ok(()) } else { Err(CaseError::Wrong(what())) }
}

// ---- numbers --------------------------------------------------------------------------------------------------------

/// A small generator: cases are the same on every run.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    /// In [−1, 1).
    pub fn unit(&mut self) -> f32 {
        self.next() as f32 / 2f32.powi(30) - 1.0
    }

    /// So many in [−scale, scale).
    pub fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * scale).collect()
    }
}

/// A matrix near `values`, in a file's format, and what it is expanded.
pub fn encode(format: WeightFormat, rows: usize, cols: usize, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    assert_eq!(values.len(), rows * cols);
    let mut data = Vec::new();
    format.encode(values, &mut data);
    let mut values = vec![0.0; rows * cols];
    let file_rows = data.chunks_exact(format.row_bytes(cols));
    file_rows.zip(values.chunks_exact_mut(cols)).for_each(|(row, out)| format.dequantise_row(row, out));
    (data, values)
}

/// A weight: packed, and expanded.
#[derive(Debug)]
pub struct Weight {
    /// As kernels read it.
    pub packed: WeightRef,
    /// (rows, cols)
    pub values: Vec<f32>,
}

impl Weight {
    /// As references read it.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix { values: &self.values, rows: self.packed.rows as usize, cols: self.packed.cols as usize }
    }

    /// How far an f32 computation of `output` (one row of weights times one prepared row) may be from exact.
    ///
    /// A sum of n terms, one after the other, is off by at most n·2⁻²⁴·Σ|terms|; a term has a few roundings of its own,
    /// and so has the norm. The terms of quantised weights are products of whole blocks, d·Σqa and m·Σa, each at most
    /// 3·max|w|·Σ|a|. And one activation at the edge between two roundings may fall to the other side.
    fn tolerance(&self, output: usize, row: &[f64]) -> f64 {
        let cols = row.len();
        let weights = &self.values[output * cols..][..cols];
        let weight_max = weights.iter().fold(0f64, |max, w| max.max(f64::from(w.abs())));
        let (row_sum, row_max) = row.iter().fold((0.0, 0f64), |(sum, max), a| (sum + a.abs(), max.max(a.abs())));
        let unit = 0.5f64.powi(24);
        match self.packed.activations {
            kind @ (ACTIVATIONS_INT8 | ACTIVATIONS_INT8X2) => {
                let terms = 2.0 * (cols / 32) as f64 + 16.0;
                let edge = if kind == ACTIVATIONS_INT8 { row_max / 127.0 } else { EDGES * row_max / (127.0 * 254.0) };
                terms * unit * 3.0 * weight_max * row_sum + weight_max * edge
            }
            kind => {
                let sum: f64 = weights.iter().zip(row).map(|(w, a)| (f64::from(*w) * a).abs()).sum();
                let edge = if kind == ACTIVATIONS_BF16 { weight_max * row_max / 256.0 } else { 0.0 };
                (cols as f64 + 16.0) * unit * sum + edge + 1e-37
            }
        }
    }

    /// Tolerances of a whole row of results.
    pub fn tolerances(&self, row: &[f64]) -> Vec<f64> {
        (0..self.packed.rows as usize).map(|output| self.tolerance(output, row)).collect()
    }
}

// ---- a device and its memory ----------------------------------------------------------------------------------------

/// A device that single nodes run on, with weights of one format and one way to read activations.
#[derive(Debug)]
pub struct Bench {
    /// The device.
    pub device: Device,
    /// How weights read their input.
    pub activations: Activations,
    /// The format of weights.
    pub format: WeightFormat,
}

impl Bench {
    /// A bench on an open device.
    pub fn new(device: Device, format: WeightFormat, activations: Activations) -> Bench {
        Bench { device, activations, format }
    }

    /// Device, format and activations, for messages.
    pub fn what(&self) -> String {
        format!("{} {} {:?}", self.device.info().isa, self.format.as_str(), self.activations)
    }

    /// Whether linear layers find their rows prepared by the kernel ahead. Else they prepare them.
    pub fn is_cuda(&self) -> bool {
        self.device.info().kind == "cuda"
    }

    /// A weight near these values: (rows, cols).
    pub fn weight(&mut self, rows: usize, cols: usize, values: &[f32]) -> Result<Weight, DeviceError> {
        self.weight_of(self.format, &[], (rows, cols), values)
    }

    /// The same in a format, in a node with weights of others.
    pub fn weight_of(
        &mut self,
        format: WeightFormat,
        beside: &[WeightFormat],
        (rows, cols): (usize, usize),
        values: &[f32],
    ) -> Result<Weight, DeviceError> {
        let (data, mut values) = encode(format, rows, cols, values);
        let source = PackSource { name: "test", format, rows, cols, data: &data };
        let packed = self.device.pack_beside(&source, self.activations, beside)?;
        // A CUDA kernel's; what a CPU kernel reads is exact.
        if packed.format == FORMAT_BF16 && format != WeightFormat::Bf16 {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        }
        Ok(Weight { packed, values })
    }

    /// A buffer with these values; its address.
    pub fn put<T: DeviceCopy>(&mut self, values: &[T]) -> Result<DevicePtr<T>, DeviceError> {
        let bytes = pod_bytes(values);
        let buffer = self.device.alloc(bytes.len() + BUCKET_ROOM_BYTES, "a kernel's memory")?;
        self.device.upload(&buffer, 0, bytes);
        Ok(buffer.addr.into())
    }

    /// The shape of a step with so many rows, which all need logits.
    pub fn shape(&mut self, rows: usize) -> Result<DevicePtr<StepShape>, DeviceError> {
        self.put(&[StepShape { tokens: rows as u32, logit_rows: rows as u32, ..StepShape::default() }])
    }

    /// Memory for the prepared rows of a layer with these weights in a graph of this bucket; with `values` (rows, cols)
    /// in it as the kernel ahead leaves them, where one does.
    pub fn rows(
        &mut self,
        values: &[f32],
        gamma: Option<&[f32]>,
        weights: &[WeightRef],
        bucket: usize,
    ) -> Result<DevicePtr<c_void>, DeviceError> {
        let cols = weights[0].cols as usize;
        let bytes = activation_forms(weights) * activation_rows_bytes(bucket, cols);
        let buffer = self.device.alloc(bytes, "rows of activations")?;
        if self.is_cuda() {
            let layout = RowsLayout::new(cols, weights[0].activations);
            let mut rows = vec![0; values.len() / cols * layout.row_bytes];
            let encoded = values.chunks_exact(cols).zip(rows.chunks_exact_mut(layout.row_bytes));
            encoded.for_each(|(values, row)| layout.encode(values, gamma, row));
            self.device.upload(&buffer, 0, &rows);
        }
        Ok(buffer.addr.into())
    }

    /// Runs a node of a graph of this bucket, and reads `count` values at `result` back.
    pub fn run<T: DeviceCopy>(
        &mut self,
        node: Node,
        bucket: usize,
        result: DevicePtr<T>,
        count: usize,
    ) -> Result<Vec<T>, DeviceError> {
        let key = GraphKey { kind: GraphKind::ForwardMixed, bucket: bucket as u32 };
        let graph = self.device.capture(key, &[node])?;
        let downloads = [Download { addr: result.addr(), bytes: count * size_of::<T>() }];
        let submission =
            Submission { uploads: &[], graphs: &[graph], downloads: &downloads, sources: NodeSources::NONE };
        let ticket = self.device.submit(&submission)?;
        Ok(self.device.wait(ticket)?.data.chunks_exact(size_of::<T>()).map(read_pod).collect())
    }
}

impl Bench {
    /// A KV cache of so many values, none of which was written.
    pub fn untouched_cache(&mut self, len: usize, format: u32) -> Result<DevicePtr<c_void>, DeviceError> {
        match format == FORMAT_F16 {
            true => self.put(&vec![half::f16::from_f32(UNTOUCHED).to_bits(); len]).map(DevicePtr::cast),
            false => self.put(&vec![UNTOUCHED; len]).map(DevicePtr::cast),
        }
    }

    /// Runs a node, and reads a KV cache of so many values back.
    pub fn run_cached(
        &mut self,
        node: Node,
        bucket: usize,
        (cache, format): (DevicePtr<c_void>, u32),
        len: usize,
    ) -> Result<Vec<f32>, DeviceError> {
        match format == FORMAT_F16 {
            true => {
                let words = self.run::<u16>(node, bucket, cache.cast(), len)?;
                Ok(words.into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect())
            }
            false => self.run::<f32>(node, bucket, cache.cast(), len),
        }
    }
}

/// Rows that exist are near the reference; what lies behind them is untouched. Gives the largest error as a part of
/// what is allowed.
pub fn check(what: &str, got: &[f32], want: &[f64], tolerance: &[f64]) -> Case {
    assert_eq!(want.len(), tolerance.len(), "{what}");
    let mut largest = 0f64;
    for (i, (want, tolerance)) in want.iter().zip(tolerance).enumerate() {
        let off = (f64::from(got[i]) - want).abs();
        // Not a number is not near anything.
        let near = off <= *tolerance;
        ensure(near, || format!("{what}, value {i}: {} and not {want} (off by {off:e} > {tolerance:e})", got[i]))?;
        largest = largest.max(if *tolerance > 0.0 { off / tolerance } else { 0.0 });
    }
    let behind = got[want.len()..].iter().position(|value| *value != UNTOUCHED);
    ensure(behind.is_none(), || format!("{what}: touched beyond the last row"))?;
    Ok(largest)
}

/// The bucket of a step with so many rows.
pub fn bucket_of(rows: usize) -> usize {
    rows.next_power_of_two()
}

/// The same values.
pub fn as_f64(row: &[f32]) -> Vec<f64> {
    row.iter().map(|value| f64::from(*value)).collect()
}
