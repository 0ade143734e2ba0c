//! Norm, query, key and value projections, rotary embedding, KV cache write.

use softcuda::emulate::Mode;
use vitrum::doctor::bench::{EPS, Numbers, UNTOUCHED, Weight};
use vitrum::doctor::linear::{QkvWant, RowInput};
use vitrum::formats::WeightFormat;
use vitrum::kernels::params::*;
use vitrum::kernels::{DevicePtr, norm_qkv};

use crate::bench::*;
use crate::norm::NormCase;

const PAGE: usize = PAGE_TOKENS as usize;
const PAGES: usize = 5;
const MAX_POSITION: usize = 50;

#[test]
fn qkv_are_rotated_and_cached() {
    let mut variants = variants().cycle();
    for pairing in pairings() {
        for (heads, kv_heads, head_dim, kv_format) in [(3, 1, 16, FORMAT_F16), (2, 2, 48, FORMAT_F32)] {
            for tokens in [0, 1, 6, 33, 71] {
                let variant = variants.next().expect("they come again");
                QkvCase::new(pairing, [heads, kv_heads, head_dim], tokens).check(variant, kv_format);
            }
        }
    }
}

/// Every triple of file formats: where one of them is no integers, all are packed as bf16.
#[test]
fn qkv_of_any_formats_match() {
    let mut variants = variants().cycle();
    for query in WeightFormat::ALL {
        for formats in WeightFormat::ALL.into_iter().flat_map(|key| WeightFormat::ALL.map(|value| [query, key, value]))
        {
            let activations = activations_of(&formats, ACTIVATIONS_INT8X2);
            let variant = variants.next().expect("they come again");
            QkvCase::of(formats, activations, [3, 1, 16], 6).check(variant, FORMAT_F16);
        }
    }
}

struct QkvCase {
    case: NormCase,
    weights: [(Weight, Memory); 3],
    rope: Vec<f32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    heads: [usize; 2],
    head_dim: usize,
}

impl QkvCase {
    fn new(pairing: Pairing, heads: [usize; 3], tokens: usize) -> QkvCase {
        QkvCase::of([pairing.0; 3], pairing.1, heads, tokens)
    }

    /// With weights of these formats, which all read `activations`.
    fn of(
        formats: [WeightFormat; 3],
        activations: u32,
        [heads, kv_heads, head_dim]: [usize; 3],
        tokens: usize,
    ) -> QkvCase {
        let (mut numbers, hidden) = (Numbers(7 + tokens as u64), 64);
        let case = NormCase::new(&mut numbers, (tokens, hidden), activations);
        let weights = [0, 1, 2].map(|part: usize| {
            let rows = [heads, kv_heads, kv_heads][part] * head_dim;
            case.bench.weight_beside((formats[part], activations), &formats, (rows, hidden), (&mut numbers, 0.3))
        });
        let angles = (0..MAX_POSITION * head_dim / 2).map(|i| i as f32 * 0.37);
        let rope = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let positions = (0..tokens as u32).map(|i| (i * 7 + 3) % MAX_POSITION as u32).collect();
        let slots = (0..tokens as u32).map(|i| i * 11 % (PAGE * PAGES) as u32).collect(); // 11: no slot twice
        QkvCase { case, weights, rope, positions, slots, heads: [heads, kv_heads], head_dim }
    }

    /// Queries and the two caches, as f32.
    fn run(&self, variant: (Mode, Block), kv_format: u32) -> [Vec<f32>; 3] {
        let bench = &self.case.bench;
        let tokens = self.positions.len();
        let [q_rows, kv_rows] = self.heads.map(|heads| heads * self.head_dim);
        let half = kv_format == FORMAT_F16;
        let caches = [(); 2].map(|()| match half {
            true => bench.put(&vec![half::f16::from_f32(UNTOUCHED).to_bits(); PAGES * kv_rows * PAGE]),
            false => bench.put(&vec![UNTOUCHED; PAGES * kv_rows * PAGE]),
        });
        let q = bench.put(&vec![UNTOUCHED; (tokens + 1) * q_rows]);
        let gamma = bench.put(&self.case.gamma);
        let (rope, positions, slots) = (bench.put(&self.rope), bench.put(&self.positions), bench.put(&self.slots));
        let [wq, wk, wv] = [0, 1, 2].map(|part: usize| self.weights[part].0.packed);
        let params = NormQkvParams {
            shape: self.case.shape.addr(),
            x: DevicePtr::NULL,
            gamma: gamma.addr(),
            bias: DevicePtr::NULL,
            rope: rope.addr(),
            positions: positions.addr(),
            slot_mapping: slots.addr(),
            q: q.addr(),
            keys: DevicePtr::NULL,
            rows: self.case.rows.addr(),
            wq,
            wk,
            wv,
            kv: KvCacheRef { k: caches[0].addr(), v: caches[1].addr(), format: kv_format, pages: PAGES as u32 },
            eps: EPS,
            hidden: wq.cols,
            heads: self.heads[0] as u32,
            kv_heads: self.heads[1] as u32,
            head_dim: self.head_dim as u32,
            reserved: 0,
        };
        let blocks = q_rows.div_ceil(BLOCK_OUTPUTS) + 2 * kv_rows.div_ceil(BLOCK_OUTPUTS);
        bench.run("norm_qkv", wq.activations, variant, (blocks, (tokens + 1).next_multiple_of(8)), &params);
        let [k, v] = caches.map(|cache| match half {
            true => cache.read::<u16>().into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
            false => cache.read::<f32>(),
        });
        [q.read(), k, v]
    }

    fn reference(&self, activations: u32) -> [Vec<f64>; 3] {
        let mut all = [const { Vec::new() }; 3];
        for (x, position) in self.case.x.chunks_exact(self.case.gamma.len()).zip(&self.positions) {
            let RowInput { x, gamma, eps, activations } = RowInput::rounded_first(x, &self.case.gamma, activations);
            let row = norm_qkv::reference(&norm_qkv::Reference {
                x: &x,
                gamma: Some(&gamma),
                bias: None,
                eps,
                weights: [0, 1, 2].map(|part: usize| self.weights[part].0.matrix()),
                activations: [activations; 3],
                rope: Some(&self.rope),
                positions: &[*position],
                head_dim: self.head_dim,
            });
            all.iter_mut().zip(row).for_each(|(all, row)| all.extend(row));
        }
        all
    }

    fn check(&self, variant: (Mode, Block), kv_format: u32) {
        let packed = self.weights[0].0.packed;
        let what = format!("format {} {variant:?} {:?} x {}", packed.format, self.heads, self.positions.len());
        let want = QkvWant {
            values: self.reference(packed.activations),
            tolerances: [0, 1, 2].map(|part: usize| self.case.tolerances(&self.weights[part].0)),
            slots: &self.slots,
            head_dim: self.head_dim,
            kv_heads: self.heads[1],
            kv_format,
        };
        want.check(&what, &self.run(variant, kv_format)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A row's queries, keys and values have the same bits alone and among others.
#[test]
fn rows_do_not_depend_on_their_batch() {
    for pairing in pairings() {
        let all = QkvCase::new(pairing, [3, 1, 16], 41);
        let [q, k, v] = all.run((Mode::ALL[0], Block::Sliced(64)), FORMAT_F32);
        for (turn, variant) in variants().enumerate() {
            let row = turn * 17 % 41;
            let mut alone = QkvCase::new(pairing, [3, 1, 16], 41);
            let hidden = alone.case.gamma.len();
            let x = &alone.case.x[row * hidden..][..hidden];
            alone.case.rows = alone.case.bench.rows(x, hidden, Some(&alone.case.gamma), pairing.1);
            alone.case.shape = alone.case.bench.shape(1);
            (alone.positions, alone.slots) = (vec![all.positions[row]], vec![all.slots[row]]);
            let [q_alone, k_alone, v_alone] = alone.run(variant, FORMAT_F32);
            let what = format!("{pairing:?} {variant:?}, row {row}");
            assert!(q_alone[..48] == q[row * 48..][..48], "{what}: q");
            for (name, one, many) in [("k", &k_alone, &k), ("v", &v_alone, &v)] {
                let mine = one.iter().zip(many).filter(|(one, _)| **one != UNTOUCHED);
                assert_eq!(mine.clone().count(), 16, "{what}: {name}");
                assert!(mine.clone().all(|(one, many)| one == many), "{what}: {name}");
            }
        }
    }
}
