//! Cases of the attention kernels: steps over a paged cache, their f64 reference, and how far from it a result may be.

use half::f16;

use super::bench::{Bench, Case, CaseError, ensure};
use crate::kernels::DevicePtr;
use crate::kernels::attention::{self, PlanOptions, Reference, SequenceRows};
use crate::kernels::params::*;

const PAGE: usize = PAGE_TOKENS as usize;

/// Heads, and the format of their cache.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Of queries.
    pub heads: usize,
    /// Of keys and values.
    pub kv_heads: usize,
    /// Values of each.
    pub dim: usize,
    /// Of the cache: `FORMAT_F32` or `FORMAT_F16`.
    pub format: u32,
}

impl Heads {
    /// Values of a row.
    pub fn width(&self) -> usize {
        self.heads * self.dim
    }

    /// What scores are multiplied by.
    pub fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }
}

/// Rows of one sequence in a step: its name (which gives all its values), how many rows, and its length after the step.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Its name.
    pub name: u64,
    /// Rows of the step.
    pub rows: usize,
    /// Its length after the step.
    pub kv_tokens: usize,
}

/// A number in [−1, 1) that depends on all of these.
fn value(name: u64, what: u64, position: usize, index: usize) -> f32 {
    let mut x = name << 48 ^ what << 40 ^ (position as u64) << 16 ^ index as u64;
    for _ in 0..3 {
        x = (x ^ x >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1);
    }
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn query(name: u64, position: usize, index: usize) -> f32 {
    4.0 * value(name, 0, position, index)
}

/// A key (1) or a value (2), as the cache's format holds it.
fn cached(name: u64, what: u64, format: u32, position: usize, index: usize) -> f32 {
    let exact = value(name, what, position, index);
    if format == FORMAT_F16 { f16::from_f32(exact).to_f32() } else { exact }
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    words(values.iter().map(|value| value.to_bits()))
}

/// The cache's bytes for these sequences and their page tables: pages in a shuffled order, everything that no sequence
/// has written NaN.
fn cache(heads: Heads, sequences: &[Rows], max_pages: usize) -> (Vec<u8>, Vec<u8>, Vec<u32>) {
    let pages = sequences.len() * max_pages + 1;
    let page_len = heads.kv_heads * heads.dim * PAGE;
    let (mut keys, mut values) = (vec![f32::NAN; pages * page_len], vec![f32::NAN; pages * page_len]);
    let mut table = vec![u32::MAX; sequences.len() * max_pages];
    let stride = (1..pages).rev().find(|stride| pages % stride == 1).unwrap_or(1); // shares no factor with `pages`
    for (seq, rows) in sequences.iter().enumerate() {
        for position in 0..rows.kv_tokens {
            let entry = seq * max_pages + position / PAGE;
            let page = (entry + 1) * stride % pages;
            table[entry] = page as u32;
            for index in 0..heads.kv_heads * heads.dim {
                let (head, d) = (index / heads.dim, index % heads.dim);
                let base = (page * heads.kv_heads + head) * heads.dim * PAGE;
                let of = |what| cached(rows.name, what, heads.format, position, index);
                keys[base + d * PAGE + position % PAGE] = of(1);
                values[base + position % PAGE * heads.dim + d] = of(2);
            }
        }
    }
    let bytes = |values: Vec<f32>| match heads.format {
        FORMAT_F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_bits().to_ne_bytes()).collect(),
        _ => floats(&values),
    };
    (bytes(keys), bytes(values), table)
}

/// One step over some sequences, as the kernels read it.
#[derive(Debug)]
pub struct StepData {
    heads: Heads,
    max_pages: usize,
    pages: usize,
    seqs: usize,
    partials: u32,
    /// (rows)
    pub positions: Vec<u32>,
    q: Vec<f32>,
    items: Vec<AttentionItem>,
    splits: Vec<AttentionSplit>,
    keys: Vec<u8>,
    values: Vec<u8>,
    table: Vec<u32>,
}

impl StepData {
    /// `split`: every range that has several chunks is split, or none is.
    pub fn new(heads: Heads, sequences: &[Rows], split: bool) -> StepData {
        // As many imaginary workers as make every range worth splitting, or none that is.
        let (workers, max_partials) = if split { (10_000, 4000) } else { (1, 0) };
        let plan = PlanOptions { kv_heads: heads.kv_heads as u32, workers, max_partials };
        let max_pages = sequences.iter().map(|s| s.kv_tokens.div_ceil(PAGE)).max().unwrap_or(1);
        let (mut positions, mut q, mut rows) = (vec![], vec![], vec![]);
        for (seq, s) in sequences.iter().enumerate() {
            let (row, seq) = (positions.len() as u32, seq as u32);
            rows.push(SequenceRows { row, rows: s.rows as u32, seq, kv_tokens: s.kv_tokens as u32 });
            for position in s.kv_tokens - s.rows..s.kv_tokens {
                positions.push(position as u32);
                q.extend((0..heads.width()).map(|index| query(s.name, position, index)));
            }
        }
        let mut items = Vec::with_capacity(attention::max_items(positions.len(), max_partials as usize));
        let mut splits = Vec::with_capacity(positions.len());
        let partials = attention::plan(&rows, &plan, &mut items, &mut splits);
        assert!(!split || rows.iter().all(|s| s.kv_tokens <= KV_CHUNK_TOKENS) || partials > 0);
        let (keys, values, table) = cache(heads, sequences, max_pages);
        let (pages, seqs) = (sequences.len() * max_pages + 1, sequences.len());
        StepData { heads, max_pages, pages, seqs, partials, positions, q, items, splits, keys, values, table }
    }

    /// Rows of the step.
    pub fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// The node, whose buffers `put` makes.
    pub fn node<E>(&self, mut put: impl FnMut(&[u8]) -> Result<u64, E>) -> Result<AttentionParams, E> {
        let heads = self.heads;
        let items = self.items.iter().flat_map(|i| [i.row, i.rows, i.seq, i.kv_first, i.kv_count, i.partial]);
        let (tokens, seqs) = (self.tokens() as u32, self.seqs as u32);
        let partial_bytes = attention::partial_bytes(self.partials as usize, heads.heads, heads.dim);
        Ok(AttentionParams {
            heads: heads.heads as u32,
            kv_heads: heads.kv_heads as u32,
            head_dim: heads.dim as u32,
            max_pages: self.max_pages as u32,
            reserved: 0,
            scale: heads.scale(),
            kv: KvCacheRef {
                k: put(&self.keys)?.into(),
                v: put(&self.values)?.into(),
                format: heads.format,
                pages: self.pages as u32,
            },
            shape: put(&words([tokens, seqs, 0, self.items.len() as u32, self.partials, 0, 0, 0]))?.into(),
            q: put(&floats(&self.q))?.into(),
            positions: put(&words(self.positions.iter().copied()))?.into(),
            page_tables: put(&words(self.table.iter().copied()))?.into(),
            items: put(&words(items))?.into(),
            splits: put(&words(self.splits.iter().flat_map(|s| [s.first, s.stride, s.count])))?.into(),
            partials: put(&vec![0xff; partial_bytes])?.into(),
            arrivals: put(&vec![0; self.tokens() * heads.kv_heads * size_of::<u32>()])?.into(),
            out: put(&floats(&vec![f32::NAN; self.tokens() * heads.width()]))?.into(),
            next: NextRows::default(),
        })
    }
}

/// The reference's output, row by row, for queries that went through `prepare`.
pub fn reference(heads: Heads, sequences: &[Rows], prepare: impl Fn(f32) -> f32) -> Vec<Vec<f64>> {
    let mut out = Vec::new();
    for s in sequences {
        let positions: Vec<u32> = (s.kv_tokens - s.rows..s.kv_tokens).map(|position| position as u32).collect();
        let (width, kv_width) = (heads.heads * heads.dim, heads.kv_heads * heads.dim);
        let q: Vec<f32> = positions
            .iter()
            .flat_map(|&position| (0..width).map(move |index| query(s.name, position as usize, index)))
            .map(&prepare)
            .collect();
        let of = |what| -> Vec<f32> {
            (0..s.kv_tokens * kv_width)
                .map(|i| cached(s.name, what, heads.format, i / kv_width, i % kv_width))
                .collect()
        };
        let input = Reference {
            heads: heads.heads,
            kv_heads: heads.kv_heads,
            head_dim: heads.dim,
            scale: f64::from(heads.scale()),
            q: &q,
            positions: &positions,
            keys: &of(1),
            values: &of(2),
        };
        out.extend(attention::reference(&input).chunks(width).map(<[f64]>::to_vec));
    }
    out
}

/// Every value is near the reference: at most what `tolerance` says for its row. Gives the largest error as a part of
/// it.
pub fn check_rows(what: &str, got: &[Vec<f32>], want: &[Vec<f64>], tolerance: impl Fn(usize) -> f64) -> Case {
    ensure(got.len() == want.len(), || format!("{what}: {} rows and not {}", got.len(), want.len()))?;
    let mut largest = 0f64;
    for (row, (got, want)) in got.iter().zip(want).enumerate() {
        ensure(got.len() == want.len(), || format!("{what}: {} values and not {}", got.len(), want.len()))?;
        let tolerance = tolerance(row);
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            let near = error <= tolerance;
            ensure(near, || format!("{what}: row {row}, value {index} is {got}, not {want} (off by {error:e})"))?;
            largest = largest.max(error / tolerance);
        }
    }
    Ok(largest)
}

/// Sequences of (rows, length), each of a name of its own.
pub fn batch(shapes: &[(usize, usize)]) -> Vec<Rows> {
    let rows = |(name, &(rows, kv_tokens))| Rows { name, rows, kv_tokens };
    (1..).zip(shapes).map(rows).collect()
}

/// The values' bits.
pub fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

/// Those of SmolLM2-135M.
pub const SMOLLM: Heads = Heads { heads: 9, kv_heads: 3, dim: 64, format: FORMAT_F16 };

/// Scores are sums of at most 128 products below 4, scaled to about 1: f32 rounds them by some 10⁻⁶, and the weighted
/// mean of values below 1 by as much again. A position too many or too few, of 700, is off by 10⁻³.
pub const F32_TOLERANCE: f64 = 1e-5;

/// A query as CUDA kernels multiply it: scaled, rounded to f16.
pub fn as_prepared(heads: Heads) -> impl Fn(f32) -> f32 {
    let scale = heads.scale();
    move |q| f16::from_f32(q * scale).to_f32() / scale
}

/// How far a CUDA kernel's result may be from the reference, of rounded queries. Weights are rounded to f16, by at most
/// 2⁻¹² of each: their mean of values within ±1 by twice that at most. The roundings are independent: for n positions
/// of similar weights the error is about 2⁻¹² · 0.6 / √n, times √(n Σ p²), here 2 to 3; six times that are allowed. A
/// position too many or too few, of 700, is off by 10⁻³.
pub fn f16_tolerance(position: u32) -> f64 {
    let positions = f64::from(position + 1);
    (2.5e-3 / positions.sqrt()).min(2f64.powi(-11)) + F32_TOLERANCE
}

/// One step over these sequences on a device: the output, row by row.
pub fn run(bench: &mut Bench, heads: Heads, sequences: &[Rows], split: bool) -> Result<Vec<Vec<f32>>, CaseError> {
    let step = StepData::new(heads, sequences, split);
    let node = step.node(|bytes| bench.put(bytes).map(DevicePtr::addr))?;
    let (tokens, width) = (step.tokens(), heads.width());
    let values: Vec<f32> = bench.run(node.node(0), tokens.max(1), node.out, tokens * width)?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// A step, with ranges split among workers and whole: near the reference, and the same bits.
pub fn check_step(bench: &mut Bench, heads: Heads, sequences: &[Rows]) -> Case {
    let is_cuda = bench.is_cuda();
    let want =
        if is_cuda { reference(heads, sequences, as_prepared(heads)) } else { reference(heads, sequences, |q| q) };
    let positions = StepData::new(heads, sequences, false).positions;
    let tolerance = |row: usize| if is_cuda { f16_tolerance(positions[row]) } else { F32_TOLERANCE };
    let whole = run(bench, heads, sequences, false)?;
    let off = check_rows(&format!("{heads:?}"), &whole, &want, tolerance)?;
    let parts = run(bench, heads, sequences, true)?;
    ensure(bits(&whole) == bits(&parts), || format!("{heads:?}: other bits when ranges are split"))?;
    Ok(off)
}
