//! Steps of attention, their reference, and how far from it a result is: shared by the tests of the kernels.

use half::f16;
use vitrum::device::params::*;
use vitrum::ops::attention::{self, Attention, PlanOptions, Reference, SequenceRows};

const PAGE: usize = PAGE_TOKENS as usize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
    pub(crate) format: u32,
}

impl Heads {
    /// Values of a row.
    pub(crate) fn width(&self) -> usize {
        self.heads * self.dim
    }

    pub(crate) fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }
}

/// Rows of one sequence in a step: its name (which gives all its values), how many rows, and its length after the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) name: u64,
    pub(crate) rows: usize,
    pub(crate) kv_tokens: usize,
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
pub(crate) struct StepData {
    heads: Heads,
    max_pages: usize,
    pages: usize,
    seqs: usize,
    partials: u32,
    pub(crate) positions: Vec<u32>,
    q: Vec<f32>,
    items: Vec<AttentionItem>,
    splits: Vec<AttentionSplit>,
    keys: Vec<u8>,
    values: Vec<u8>,
    table: Vec<u32>,
}

impl StepData {
    /// `split`: every range that has several chunks is split, or none is.
    pub(crate) fn new(heads: Heads, sequences: &[Rows], split: bool) -> StepData {
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
    pub(crate) fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// The node, whose buffers `put` makes.
    pub(crate) fn node(&self, mut put: impl FnMut(&[u8]) -> u64) -> Attention {
        let heads = self.heads;
        let items = self.items.iter().flat_map(|i| [i.row, i.rows, i.seq, i.kv_first, i.kv_count, i.partial]);
        let (tokens, seqs) = (self.tokens() as u32, self.seqs as u32);
        let partial_bytes = attention::partial_bytes(self.partials as usize, heads.heads, heads.dim);
        Attention {
            heads: heads.heads,
            kv_heads: heads.kv_heads,
            head_dim: heads.dim,
            max_pages: self.max_pages,
            scale: heads.scale(),
            kv: KvCacheRef { k: put(&self.keys), v: put(&self.values), format: heads.format, pages: self.pages as u32 },
            shape: put(&words([tokens, seqs, 0, self.items.len() as u32, self.partials, 0, 0, 0])),
            q: put(&floats(&self.q)),
            positions: put(&words(self.positions.iter().copied())),
            page_tables: put(&words(self.table.iter().copied())),
            items: put(&words(items)),
            splits: put(&words(self.splits.iter().flat_map(|s| [s.first, s.stride, s.count]))),
            partials: put(&vec![0xff; partial_bytes]),
            arrivals: put(&vec![0; self.tokens() * heads.kv_heads * size_of::<u32>()]),
            out: put(&floats(&vec![f32::NAN; self.tokens() * heads.width()])),
            next: NextRows::default(),
        }
    }
}

/// The reference's output, row by row, for queries that went through `prepare`.
pub(crate) fn reference(heads: Heads, sequences: &[Rows], prepare: impl Fn(f32) -> f32) -> Vec<Vec<f64>> {
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

/// Every value is near the reference: at most what `tolerance` says for its row.
pub(crate) fn check_rows(what: &str, got: &[Vec<f32>], want: &[Vec<f64>], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (row, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{what}");
        let tolerance = tolerance(row);
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= tolerance, "{what}: row {row}, value {index} is {got}, not {want} (off by {error:e})");
        }
    }
}

pub(crate) fn batch(shapes: &[(usize, usize)]) -> Vec<Rows> {
    let rows = |(name, &(rows, kv_tokens))| Rows { name, rows, kv_tokens };
    (1..).zip(shapes).map(rows).collect()
}

pub(crate) fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

pub(crate) const SMOLLM: Heads = Heads { heads: 9, kv_heads: 3, dim: 64, format: FORMAT_F16 };
