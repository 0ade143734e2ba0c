//! The attention kernel, through the device interface, against its f64 reference and against itself.

#[path = "support/sets.rs"]
mod sets;

use half::f16;
use sets::sets;
use vitrum::device::cpu::IsaChoice;
use vitrum::device::params::*;
use vitrum::device::{Device, DeviceBuffer, DeviceChoice, DeviceOptions, Download, Submission, Upload};
use vitrum::ops::attention::{self, Attention, PlanOptions, Reference, SequenceRows};
use vitrum::trace::schema::{GraphKey, GraphKind, Op, StepSizes};

/// Scores are sums of at most 128 products below 4, scaled to about 1: f32 rounds them by some 10⁻⁶, and the weighted
/// mean of values below 1 by as much again. A position too many or too few, of 700, is off by 10⁻³.
const TOLERANCE: f64 = 1e-5;

const PAGE: usize = PAGE_TOKENS as usize;

#[derive(Clone, Copy, Debug)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    format: u32,
}

impl Heads {
    fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }
}

/// Rows of one sequence in a step: its name (which gives all its values), how many rows, and its length after the step.
#[derive(Clone, Copy, Debug)]
struct Rows {
    name: u64,
    rows: usize,
    kv_tokens: usize,
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

struct Step {
    device: Device,
    heads: Heads,
    plan: PlanOptions,
}

impl Step {
    fn new(isa: IsaChoice, threads: usize, heads: Heads, split: bool) -> Step {
        let options = DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(threads), isa: Some(isa), delay: None };
        // As many imaginary workers as make every range worth splitting, or none that is.
        let (workers, max_partials) = if split { (10_000, 4000) } else { (1, 0) };
        let plan = PlanOptions { kv_heads: heads.kv_heads as u32, workers, max_partials };
        Step { device: Device::open(&options).unwrap(), heads, plan }
    }

    fn buffer(&mut self, data: &[u8]) -> DeviceBuffer {
        let buffer = self.device.alloc(data.len().max(1 << 14), "test").unwrap(); // a row at least, for the empty step
        self.device.upload(&buffer, 0, data);
        buffer
    }

    /// One step over these sequences: the output, row by row.
    fn run(&mut self, sequences: &[Rows]) -> Vec<Vec<f32>> {
        let heads = self.heads;
        let width = heads.heads * heads.dim;
        let max_pages = sequences.iter().map(|s| s.kv_tokens.div_ceil(PAGE)).max().unwrap_or(1);
        let (mut positions, mut q, mut rows) = (vec![], vec![], vec![]);
        for (seq, s) in sequences.iter().enumerate() {
            let (row, seq) = (positions.len() as u32, seq as u32);
            rows.push(SequenceRows { row, rows: s.rows as u32, seq, kv_tokens: s.kv_tokens as u32 });
            for position in s.kv_tokens - s.rows..s.kv_tokens {
                positions.push(position as u32);
                q.extend((0..width).map(|index| query(s.name, position, index)));
            }
        }
        let tokens = positions.len();
        let mut items = Vec::with_capacity(attention::max_items(tokens, self.plan.max_partials as usize));
        let mut splits = Vec::with_capacity(tokens);
        let partials = attention::plan(&rows, &self.plan, &mut items, &mut splits);
        assert!(self.plan.workers == 1 || rows.iter().all(|s| s.kv_tokens <= KV_CHUNK_TOKENS) || partials > 0);
        let (keys, values, table) = cache(heads, sequences, max_pages);
        let kv = KvCacheRef {
            k: self.buffer(&keys).addr,
            v: self.buffer(&values).addr,
            format: heads.format,
            pages: (sequences.len() * max_pages + 1) as u32,
        };
        let shape = self.buffer(&[]);
        let out = self.buffer(&floats(&vec![f32::NAN; tokens * width]));
        let item_words = items.iter().flat_map(|i| [i.row, i.rows, i.seq, i.kv_first, i.kv_count, i.partial]);
        let node = Attention {
            heads: heads.heads,
            kv_heads: heads.kv_heads,
            head_dim: heads.dim,
            max_pages,
            scale: heads.scale(),
            kv,
            shape: shape.addr,
            q: self.buffer(&floats(&q)).addr,
            positions: self.buffer(&words(positions)).addr,
            page_tables: self.buffer(&words(table)).addr,
            items: self.buffer(&words(item_words)).addr,
            splits: self.buffer(&words(splits.iter().flat_map(|s| [s.first, s.stride, s.count]))).addr,
            partials: self
                .buffer(&vec![0xff; attention::partial_bytes(partials as usize, heads.heads, heads.dim)])
                .addr,
            arrivals: self.buffer(&vec![0; tokens * heads.kv_heads * size_of::<u32>()]).addr,
            out: out.addr,
            next: NextRows::default(),
        };
        let key = GraphKey { kind: GraphKind::ForwardMixed, bucket: tokens.max(1) as u32 };
        let graph = self.device.capture(key, &[node.node(0)]).unwrap();
        let shape_words = words([tokens as u32, sequences.len() as u32, 0, items.len() as u32, partials, 0, 0, 0]);
        let uploads = [Upload { addr: shape.addr, data: &shape_words }];
        let downloads = [Download { addr: out.addr, bytes: tokens * width * 4 }];
        let submission = Submission { uploads: &uploads, graphs: &[graph], downloads: &downloads, traced: false };
        let ticket = self.device.submit(&submission).unwrap();
        let data = self.device.wait(ticket).unwrap().data;
        let value = |bytes: &[u8]| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        data.chunks_exact(width * 4).map(|row| row.chunks_exact(4).map(value).collect()).collect()
    }
}

/// The reference's output, row by row.
fn reference(heads: Heads, sequences: &[Rows]) -> Vec<Vec<f64>> {
    let mut out = Vec::new();
    for s in sequences {
        let positions: Vec<u32> = (s.kv_tokens - s.rows..s.kv_tokens).map(|position| position as u32).collect();
        let (width, kv_width) = (heads.heads * heads.dim, heads.kv_heads * heads.dim);
        let q: Vec<f32> = positions
            .iter()
            .flat_map(|&position| (0..width).map(move |index| query(s.name, position as usize, index)))
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

fn check(isa: IsaChoice, threads: usize, heads: Heads, sequences: &[Rows], want: &[Vec<f64>]) {
    for split in [false, true] {
        let got = Step::new(isa, threads, heads, split).run(sequences);
        assert_eq!(got.len(), want.len());
        for (row, (got, want)) in got.iter().zip(want).enumerate() {
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(*got) - want).abs();
                assert!(
                    error <= TOLERANCE,
                    "{isa}, {threads} threads, {heads:?}, split {split}: row {row}, value {index} is {got}, not {want}"
                );
            }
        }
    }
}

fn batch(shapes: &[(usize, usize)]) -> Vec<Rows> {
    let rows = |(name, &(rows, kv_tokens))| Rows { name, rows, kv_tokens };
    (1..).zip(shapes).map(rows).collect()
}

#[test]
fn every_length_and_number_of_rows() {
    let lengths = [1, 15, 16, 17, 255, 256, 257, 700];
    let rows = [1, 3, 7, 17, 65];
    let shapes: Vec<_> =
        lengths.iter().flat_map(|&kv| rows.iter().filter(move |&&n| n <= kv).map(move |&n| (n, kv))).collect();
    let sequences = batch(&shapes);
    for format in [FORMAT_F32, FORMAT_F16] {
        let heads = Heads { heads: 3, kv_heads: 1, dim: 16, format };
        let want = reference(heads, &sequences);
        for isa in sets() {
            check(isa, 2, heads, &sequences, &want);
        }
    }
}

#[test]
fn every_shape_of_heads() {
    let sequences = batch(&[(1, 1), (17, 40), (1, 300), (5, 258)]);
    let groups = [(1, 1), (4, 1), (9, 3), (8, 8), (24, 8), (70, 1)];
    for (i, (heads, kv_heads)) in groups.into_iter().enumerate() {
        for (j, dim) in [16, 64, 80, 128].into_iter().enumerate() {
            let format = [FORMAT_F32, FORMAT_F16][(i + j) % 2];
            let heads = Heads { heads, kv_heads, dim, format };
            let want = reference(heads, &sequences);
            for isa in sets() {
                check(isa, 2, heads, &sequences, &want);
            }
        }
    }
}

#[test]
fn the_largest_head() {
    let sequences = batch(&[(3, 270)]);
    let heads = Heads { heads: 2, kv_heads: 1, dim: attention::MAX_HEAD_DIM, format: FORMAT_F32 };
    let want = reference(heads, &sequences);
    sets().for_each(|isa| check(isa, 1, heads, &sequences, &want));
}

#[test]
fn an_empty_step_writes_nothing() {
    for isa in sets() {
        let heads = Heads { heads: 3, kv_heads: 1, dim: 64, format: FORMAT_F32 };
        assert!(Step::new(isa, 2, heads, true).run(&[]).is_empty());
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

const SMOLLM: Heads = Heads { heads: 9, kv_heads: 3, dim: 64, format: FORMAT_F16 };

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    for isa in sets() {
        let sequences = batch(&[(1, 700), (33, 300), (1, 17), (1, 513), (4, 259), (2, 2)]);
        let together = bits(&Step::new(isa, 2, SMOLLM, true).run(&sequences));
        let mut row = 0;
        for &sequence in &sequences {
            for i in 0..sequence.rows {
                let kv_tokens = sequence.kv_tokens - sequence.rows + i + 1;
                let alone = Step::new(isa, 1, SMOLLM, false).run(&[Rows { rows: 1, kv_tokens, ..sequence }]);
                assert_eq!(bits(&alone)[0], together[row], "{isa}: row {i} of {sequence:?}");
                row += 1;
            }
        }
    }
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    for isa in sets() {
        let name = 7;
        let whole = bits(&Step::new(isa, 2, SMOLLM, false).run(&[Rows { name, rows: 300, kv_tokens: 300 }]));
        for chunk in [29, 255] {
            for split in [false, true] {
                let mut rows = Vec::new();
                for first in (0..300).step_by(chunk) {
                    let count = chunk.min(300 - first);
                    let step = [Rows { name, rows: count, kv_tokens: first + count }];
                    rows.extend(bits(&Step::new(isa, 2, SMOLLM, split).run(&step)));
                }
                assert!(rows == whole, "{isa}: chunks of {chunk}, split {split}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_and_the_instruction_set_change_no_bit() {
    let sequences = batch(&[(20, 600), (1, 700), (1, 30), (3, 257)]);
    for format in [FORMAT_F32, FORMAT_F16] {
        let heads = Heads { format, ..SMOLLM };
        let one = bits(&Step::new(IsaChoice::Portable, 1, heads, false).run(&sequences));
        for isa in sets() {
            for threads in [1, 2, 3] {
                for split in [false, true] {
                    let other = bits(&Step::new(isa, threads, heads, split).run(&sequences));
                    assert!(one == other, "{isa}, {threads} threads, split {split}");
                }
            }
        }
    }
}

#[test]
fn place_and_cost() {
    let kv = KvCacheRef { format: FORMAT_F16, ..Default::default() };
    let node = Attention {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        max_pages: 8,
        scale: 0.125,
        kv,
        shape: 0,
        q: 0,
        positions: 0,
        page_tables: 0,
        items: 0,
        splits: 0,
        partials: 0,
        arrivals: 0,
        out: 0,
        next: NextRows::default(),
    }
    .node(5);
    assert_eq!((node.place.layer, node.place.op), (5, Op::AttnCore));
    // Two sequences: 3 rows up to length 10, 1 row at length 100.
    let sizes = StepSizes { tokens: 4, seqs: 2, logit_rows: 2, kv_tokens: 110, qk_pairs: 8 + 9 + 10 + 100 };
    assert_eq!(node.cost.bytes.at(&sizes), f64::from(110 * 2 * 3 * 64 * 2 + 4 * 2 * 9 * 64 * 4));
    assert_eq!(node.cost.flops.at(&sizes), f64::from(127 * 4 * 9 * 64));
}
