//! One kernel of csrc on the host: memory, packed weights, prepared rows, launches.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use softcuda::emulate::{Launch, Library, Mode};
use vitrum::device::cuda::pack;
use vitrum::device::{PackSource, pod_bytes};
use vitrum::doctor::bench as cases;
use vitrum::doctor::bench::{Numbers, Weight, encode};
use vitrum::formats::WeightFormat;
use vitrum::formats::cuda::packed_format;
use vitrum::kernels::DevicePtr;
use vitrum::kernels::cuda::rows::RowsLayout;
use vitrum::kernels::params::*;

/// How a block shares its work, and its tokens: a name's end.
pub(crate) const BLOCKS: [Block; 5] =
    [Block::Sliced(8), Block::Sliced(16), Block::Sliced(32), Block::Sliced(64), Block::Wide];
const BLOCK_THREADS: u32 = 256;
/// Blocks of outputs of a wide block.
const WIDE_WARPS: usize = 8;
pub(crate) const BLOCK_OUTPUTS: usize = 32;
/// What memory holds that a kernel must not touch.
pub(crate) const POISON: u8 = 0x5a;

/// The way in which a block shares its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Of so many tokens.
    Sliced(u32),
    /// Of as many tokens as there is a kernel for.
    Wide,
}

impl Block {
    /// Its tokens: there is no variant of int8x2 with more than 32, nor a wide one of gate and up.
    fn tokens(self, op: &str, activations: u32) -> u32 {
        match self {
            Block::Sliced(tokens) if activations == ACTIVATIONS_INT8X2 => tokens.min(32),
            Block::Sliced(tokens) => tokens,
            Block::Wide if activations == ACTIVATIONS_INT8X2 || op == "norm_gate_up" => 32,
            Block::Wide => 64,
        }
    }
}

/// A weight's format and how its input is read.
pub(crate) type Pairing = (WeightFormat, u32);

/// All that the kernels take.
pub(crate) fn pairings() -> Vec<Pairing> {
    let quantised = [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4_1];
    let integers = [ACTIVATIONS_INT8, ACTIVATIONS_INT8X2];
    let mut all = vec![(WeightFormat::Bf16, ACTIVATIONS_BF16)];
    all.extend(quantised.into_iter().flat_map(|format| integers.map(|activations| (format, activations))));
    all
}

/// How a node reads its rows whose weights have these formats, if it reads `integers` where all are quantised.
pub(crate) fn activations_of(formats: &[WeightFormat], integers: u32) -> u32 {
    let is_float = formats.iter().any(|format| packed_format(*format, formats) == WeightFormat::Bf16);
    if is_float { ACTIVATIONS_BF16 } else { integers }
}

fn form(activations: u32) -> &'static str {
    match activations {
        ACTIVATIONS_BF16 => "bf16",
        ACTIVATIONS_INT8 => "int8",
        ACTIVATIONS_INT8X2 => "int8x2",
        other => panic!("no kernel reads activations {other}"),
    }
}

/// Every mode with every kind of block.
pub(crate) fn variants() -> impl Iterator<Item = (Mode, Block)> + Clone {
    Mode::ALL.into_iter().flat_map(|mode| BLOCKS.map(|block| (mode, block)))
}

/// Memory of the device: it ends where its contents end, up to 16 bytes.
pub(crate) struct Memory {
    words: Rc<[Cell<u128>]>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn addr<T>(&self) -> DevicePtr<T> {
        DevicePtr::new(self.words.as_ptr() as u64)
    }

    pub(crate) fn read<T: Copy>(&self) -> Vec<T> {
        let count = self.bytes / size_of::<T>();
        // SAFETY: the memory has so many bytes, is aligned to 16, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<T>(), count) }.to_vec()
    }
}

/// The memory that a test has put anything in, so that accesses elsewhere are found.
#[derive(Default)]
pub(crate) struct Bench {
    known: RefCell<Vec<(u64, u64)>>,
    /// What the kernel before leaves.
    left: RefCell<Vec<Weak<[Cell<u128>]>>>,
}

impl Bench {
    pub(crate) fn put<T: Copy>(&self, values: &[T]) -> Memory {
        let bytes = size_of_val(values);
        let mut words = vec![0u128; bytes.div_ceil(16).max(1)];
        // SAFETY: plain numbers, copied as bytes into memory that has room for them.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), words.as_mut_ptr().cast(), bytes) }
        let words: Rc<[Cell<u128>]> = words.into_iter().map(Cell::new).collect();
        self.known.borrow_mut().push((words.as_ptr() as u64, words.len() as u64 * 16));
        Memory { words, bytes }
    }

    pub(crate) fn shape(&self, rows: usize) -> Memory {
        self.put(&[StepShape { tokens: rows as u32, logit_rows: rows as u32, ..StepShape::default() }])
    }

    /// A weight near random values of at most `scale`. The memory has to live as long as it.
    pub(crate) fn weight(
        &self,
        pairing: Pairing,
        shape: (usize, usize),
        numbers: (&mut Numbers, f32),
    ) -> (Weight, Memory) {
        self.weight_beside(pairing, &[], shape, numbers)
    }

    /// The same in a node with weights of other formats.
    pub(crate) fn weight_beside(
        &self,
        (format, activations): Pairing,
        beside: &[WeightFormat],
        (rows, cols): (usize, usize),
        (numbers, scale): (&mut Numbers, f32),
    ) -> (Weight, Memory) {
        let (data, mut values) = encode(format, rows, cols, &numbers.values(rows * cols, scale));
        let to_format = packed_format(format, beside);
        if to_format != format {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        }
        let source = PackSource { name: "test", format, rows, cols, data: &data };
        let memory = self.put(&pack::pack(&source, to_format).expect("a shape"));
        let (data, rows, cols) = (memory.addr(), rows as u32, cols as u32);
        (Weight { packed: WeightRef { data, rows, cols, format: to_format as u32, activations }, values }, memory)
    }

    /// Rows as the kernel before leaves them: while a kernel runs, they are not there until it has waited.
    pub(crate) fn rows(&self, values: &[f32], cols: usize, gamma: Option<&[f32]>, activations: u32) -> Memory {
        let memory = self.put(&prepared(values, cols, gamma, activations));
        self.left.borrow_mut().push(Rc::downgrade(&memory.words));
        memory
    }

    /// Runs one variant of a kernel over `outputs` blocks of outputs.
    pub(crate) fn run<P: cust_core::DeviceCopy>(
        &self,
        op: &str,
        activations: u32,
        variant: (Mode, Block),
        (outputs, bucket): (usize, usize),
        params: &P,
    ) {
        self.run_stamped(op, activations, variant, (outputs, bucket), params, LaunchInfo::default());
    }

    pub(crate) fn run_stamped<P: cust_core::DeviceCopy>(
        &self,
        op: &str,
        activations: u32,
        (mode, block): (Mode, Block),
        (outputs, bucket): (usize, usize),
        params: &P,
        info: LaunchInfo,
    ) {
        let tokens = block.tokens(op, activations);
        let (letter, outputs, shared_bytes) = match block {
            Block::Sliced(_) => ("t", outputs, 0),
            Block::Wide => ("w", outputs.div_ceil(WIDE_WARPS), LINEAR_WIDE_SHARED),
        };
        let kernel = format!("{op}_{}_{letter}{tokens}", form(activations));
        let left: Vec<Rc<[Cell<u128>]>> = self.left.borrow().iter().filter_map(Weak::upgrade).collect();
        let words = || left.iter().flat_map(|words| words.iter());
        let held: Vec<u128> = words().map(|word| word.replace(u128::MAX)).collect();
        let mut end_of_predecessor = || words().zip(&held).for_each(|(word, held)| word.set(*held));
        let known = self.known.borrow();
        let is_memory = |addr: u64, bytes: u64| {
            known.iter().any(|(first, length)| addr >= *first && addr + bytes <= first + length)
        };
        let launch = Launch {
            kernel: &kernel,
            grid: [outputs as u32, (bucket as u32).div_ceil(tokens), 1],
            block: [BLOCK_THREADS, 1, 1],
            shared_bytes,
            params: &[pod_bytes(std::slice::from_ref(params)), pod_bytes(std::slice::from_ref(&info))],
            mode,
            chained: true,
            predecessor: Some(&mut end_of_predecessor),
            is_memory: Some(&is_memory),
        };
        Library::kernels().launch(launch).unwrap_or_else(|error| panic!("{mode:?}: {error}"));
    }
}

/// Prepared rows over memory full of [`POISON`].
pub(crate) fn prepared(values: &[f32], cols: usize, gamma: Option<&[f32]>, activations: u32) -> Vec<u8> {
    let layout = RowsLayout::new(cols, activations);
    let mut rows = vec![POISON; values.len() / cols * layout.row_bytes];
    for (values, row) in values.chunks_exact(cols).zip(rows.chunks_exact_mut(layout.row_bytes)) {
        layout.encode(values, gamma, row);
    }
    rows
}

/// Rows that exist are near the reference; what lies behind them is untouched.
pub(crate) fn check(what: &str, got: &[f32], want: &[f64], tolerance: &[f64]) {
    cases::check(what, got, want, tolerance).unwrap_or_else(|error| panic!("{error}"));
}
