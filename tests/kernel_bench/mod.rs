//! What the kernel tests share: numbers, weights in every file format, a device to run one node on.

use vitrum::device::cpu::IsaChoice;
use vitrum::device::params::*;
use vitrum::device::*;
use vitrum::ops::linear::Matrix;
use vitrum::trace::schema::{GraphKey, GraphKind};

/// Every file format.
pub(crate) const FORMATS: [WeightFormat; 6] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
];
/// Every way to read activations.
pub(crate) const ACTIVATIONS: [Activations; 3] = [Activations::F32, Activations::Reduced, Activations::ReducedFine];
/// Activations that may fall to the other side of an edge between two steps of 16 bits: f32 is only 2⁸ times finer.
const EDGES: f64 = 4.0;
/// What memory holds that a kernel must not touch.
pub(crate) const UNTOUCHED: f32 = -12345.5;
/// Behind every buffer: capture asks for room for as many rows as the graph's bucket, and steps here have fewer.
const BUCKET_ROOM_BYTES: usize = 64 << 10;

// ---- numbers --------------------------------------------------------------------------------------------------------

/// A small generator: the tests are the same on every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    pub(crate) fn unit(&mut self) -> f32 {
        self.next() as f32 / 2f32.powi(30) - 1.0
    }
    pub(crate) fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * scale).collect()
    }
}

/// One block of a format, near `values`.
fn encode_block(format: WeightFormat, values: &[f32], out: &mut Vec<u8>) {
    let f16 = |value: f32| half::f16::from_f32(value);
    let amax = values.iter().fold(0f32, |max, v| max.max(v.abs()));
    let inverse = |d: half::f16| if d.to_f32() == 0.0 { 0.0 } else { 1.0 / d.to_f32() };
    let nibbles = |q: &dyn Fn(f32) -> f32, out: &mut Vec<u8>| {
        let q: Vec<u8> = values.iter().map(|v| q(*v).round().clamp(0.0, 15.0) as u8).collect();
        out.extend((0..16).map(|i| q[i] | q[i + 16] << 4));
    };
    match format {
        WeightFormat::F32 => out.extend(values[0].to_le_bytes()),
        WeightFormat::F16 => out.extend(f16(values[0]).to_le_bytes()),
        WeightFormat::Bf16 => out.extend(half::bf16::from_f32(values[0]).to_le_bytes()),
        WeightFormat::Q8_0 => {
            let d = f16(amax / 127.0);
            out.extend(d.to_le_bytes());
            out.extend(values.iter().map(|v| (v * inverse(d)).round().clamp(-128.0, 127.0) as i8 as u8));
        }
        WeightFormat::Q4_0 => {
            let d = f16(-amax / 8.0);
            out.extend(d.to_le_bytes());
            nibbles(&|v| v * inverse(d) + 8.0, out);
        }
        WeightFormat::Q4_1 => {
            let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            let (d, m) = (f16((max - min) / 15.0), f16(min));
            out.extend(d.to_le_bytes());
            out.extend(m.to_le_bytes());
            nibbles(&|v| (v - m.to_f32()) * inverse(d), out);
        }
    }
}

/// A matrix near `values`, in a file's format, and what it is expanded.
pub(crate) fn encode(format: WeightFormat, rows: usize, cols: usize, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    assert_eq!(values.len(), rows * cols);
    let mut data = Vec::new();
    values.chunks_exact(format.block_values()).for_each(|block| encode_block(format, block, &mut data));
    let mut values = vec![0.0; rows * cols];
    let file_rows = data.chunks_exact(format.row_bytes(cols));
    file_rows.zip(values.chunks_exact_mut(cols)).for_each(|(row, out)| format.dequantise_row(row, out));
    (data, values)
}

/// A weight: packed, and expanded.
pub(crate) struct Weight {
    pub(crate) packed: WeightRef,
    pub(crate) values: Vec<f32>,
}

impl Weight {
    pub(crate) fn matrix(&self) -> Matrix<'_> {
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
    pub(crate) fn tolerances(&self, row: &[f64]) -> Vec<f64> {
        (0..self.packed.rows as usize).map(|output| self.tolerance(output, row)).collect()
    }
}

// ---- a device and its memory ----------------------------------------------------------------------------------------

pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) activations: Activations,
    pub(crate) format: WeightFormat,
    pub(crate) what: String,
}

impl Bench {
    pub(crate) fn new(isa: IsaChoice, format: WeightFormat, activations: Activations) -> Bench {
        let options = DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(2), isa: Some(isa), delay: None };
        let what = format!("{isa} {} {activations:?}", format.as_str());
        Bench { device: Device::open(&options).expect("the set is available"), activations, format, what }
    }

    pub(crate) fn weight(&mut self, rows: usize, cols: usize, values: &[f32]) -> Weight {
        let format = self.format;
        let (data, values) = encode(format, rows, cols, values);
        let source = PackSource { name: "test", format, rows, cols, data: &data };
        Weight { packed: self.device.pack(&source, self.activations).expect("the shape is right"), values }
    }

    pub(crate) fn put<T: Copy>(&mut self, values: &[T]) -> u64 {
        // SAFETY: plain numbers, read as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        let buffer = self.device.alloc(bytes.len() + BUCKET_ROOM_BYTES, "test").expect("memory");
        self.device.upload(&buffer, 0, bytes);
        buffer.addr
    }

    pub(crate) fn shape(&mut self, rows: usize) -> u64 {
        self.put(&[StepShape { tokens: rows as u32, logit_rows: rows as u32, ..StepShape::default() }])
    }

    pub(crate) fn activation_rows(&mut self, bucket: usize, cols: usize) -> u64 {
        self.device.alloc(activation_rows_bytes(bucket, cols), "test").expect("memory").addr
    }

    /// Runs a node of a graph of this bucket, and reads `count` values at `result` back.
    pub(crate) fn run<T: Copy + Default>(&mut self, node: Node, bucket: usize, result: u64, count: usize) -> Vec<T> {
        let key = GraphKey { kind: GraphKind::ForwardMixed, bucket: bucket as u32 };
        let graph = self.device.capture(key, &[node]).expect("a kernel");
        let downloads = [Download { addr: result, bytes: count * size_of::<T>() }];
        let submission = Submission { uploads: &[], graphs: &[graph], downloads: &downloads, traced: false };
        let ticket = self.device.submit(&submission).expect("room");
        let done = self.device.wait(ticket).expect("done");
        let mut values = vec![T::default(); count];
        assert_eq!(done.data.len(), count * size_of::<T>());
        // SAFETY: `values` has room for the bytes, and any bytes are numbers.
        unsafe { std::ptr::copy_nonoverlapping(done.data.as_ptr(), values.as_mut_ptr().cast(), done.data.len()) }
        values
    }
}

pub(crate) fn isas() -> impl Iterator<Item = IsaChoice> {
    IsaChoice::ALL.into_iter().filter(|isa| isa.is_available())
}

/// Every format, way to read activations, and instruction set.
pub(crate) fn benches() -> impl Iterator<Item = Bench> {
    isas().flat_map(|isa| {
        FORMATS.into_iter().flat_map(move |format| ACTIVATIONS.into_iter().map(move |a| Bench::new(isa, format, a)))
    })
}

/// Rows that exist are near the reference; what lies behind them is untouched.
pub(crate) fn check(what: &str, got: &[f32], want: &[f64], tolerance: &[f64]) {
    assert_eq!(want.len(), tolerance.len(), "{what}");
    for (i, (want, tolerance)) in want.iter().zip(tolerance).enumerate() {
        let off = (f64::from(got[i]) - want).abs();
        assert!(off <= *tolerance, "{what}, value {i}: {} and not {want} (off by {off:e} > {tolerance:e})", got[i]);
    }
    let behind = got[want.len()..].iter().position(|value| *value != UNTOUCHED);
    assert_eq!(behind, None, "{what}: touched beyond the last row");
}

pub(crate) fn bucket_of(rows: usize) -> usize {
    rows.next_power_of_two()
}

pub(crate) fn as_f64(row: &[f32]) -> Vec<f64> {
    row.iter().map(|value| f64::from(*value)).collect()
}
