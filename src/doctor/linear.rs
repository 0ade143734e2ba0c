//! Cases of the linear kernels and the embedding: one node, against its scalar reference.

use super::bench::*;
use crate::formats::WeightFormat;
use crate::kernels::DevicePtr;
use crate::kernels::linear::rms_norm;
use crate::kernels::params::*;
use crate::kernels::{embed, linear_residual, norm_gate_up, norm_lm_head, norm_qkv};
use crate::trace::schema::{Op, Place};

/// What the references are given, so that they round where the kernels do. CUDA kernels round x · gamma, a reference
/// what was divided by the root of the mean square. For scaled integers that is the same. For bf16: what was rounded,
/// as x, and as `eps` what then makes the divisor the right one.
#[derive(Clone, Debug)]
pub struct RowInput {
    /// (hidden)
    pub x: Vec<f32>,
    /// (hidden)
    pub gamma: Vec<f32>,
    /// Of the norm.
    pub eps: f32,
    /// `ACTIVATIONS_*`
    pub activations: u32,
}

impl RowInput {
    /// Of a reference of a kernel that divides before it rounds.
    pub fn divided_first(x: &[f32], gamma: &[f32], activations: u32) -> RowInput {
        RowInput { x: x.to_vec(), gamma: gamma.to_vec(), eps: EPS, activations }
    }

    /// Of a reference of a kernel that rounds before it divides.
    pub fn rounded_first(x: &[f32], gamma: &[f32], activations: u32) -> RowInput {
        if activations != ACTIVATIONS_BF16 {
            return RowInput::divided_first(x, gamma, activations);
        }
        let rounded = x.iter().zip(gamma).map(|(x, gamma)| half::bf16::from_f32(x * gamma).to_f32());
        let rounded: Vec<f32> = rounded.collect();
        let mean_square = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
        let eps = (mean_square(x) + f64::from(EPS) - mean_square(&rounded)) as f32;
        RowInput { x: rounded, gamma: vec![1.0; x.len()], eps, activations: ACTIVATIONS_F32 }
    }
}

/// Rows that go through a norm before they meet weights.
struct NormRows {
    /// (tokens, hidden)
    x: Vec<f32>,
    gamma: Vec<f32>,
    is_cuda: bool,
}

impl NormRows {
    fn new(bench: &Bench, numbers: &mut Numbers, tokens: usize, hidden: usize) -> NormRows {
        let (x, gamma) = (numbers.values(tokens * hidden, 3.0), numbers.values(hidden, 1.5));
        NormRows { x, gamma, is_cuda: bench.is_cuda() }
    }

    fn each(&self) -> impl Iterator<Item = &[f32]> {
        self.x.chunks_exact(self.gamma.len())
    }

    fn input(&self, x: &[f32], activations: u32) -> RowInput {
        let of = if self.is_cuda { RowInput::rounded_first } else { RowInput::divided_first };
        of(x, &self.gamma, activations)
    }

    /// Tolerances of a weight's products with the normalised rows.
    fn tolerances(&self, weight: &Weight) -> Vec<f64> {
        self.each().flat_map(|x| self.row_tolerances(weight, x)).collect()
    }

    fn row_tolerances(&self, weight: &Weight, x: &[f32]) -> Vec<f64> {
        // A CUDA kernel rounds the whole once more, and divides by a root with roundings of its own.
        let further = if self.is_cuda { 1.01 } else { 1.0 };
        weight.tolerances(&rms_norm(x, &self.gamma, EPS)).into_iter().map(|tolerance| tolerance * further).collect()
    }
}

// ---- x = from + scale · (input Wᵀ + bias) ---------------------------------------------------------------------------

/// What a projection is besides its product.
#[derive(Clone, Copy, Debug)]
struct Besides<'a> {
    adds: bool,
    bias: Option<&'a [f32]>,
    scale: f32,
}

/// Added to the residual stream as it is.
const PLAIN: Besides<'_> = Besides { adds: true, bias: None, scale: 1.0 };

/// One residual projection of the rows of `input` in a graph of this bucket: x, as many rows as the bucket has.
pub fn residual(
    bench: &mut Bench,
    weight: &Weight,
    input: &[f32],
    x: &[f32],
    bucket: usize,
) -> Result<Vec<f32>, CaseError> {
    projection(bench, weight, (input, x), bucket, PLAIN)
}

fn projection(
    bench: &mut Bench,
    weight: &Weight,
    (input, x): (&[f32], &[f32]),
    bucket: usize,
    besides: Besides<'_>,
) -> Result<Vec<f32>, CaseError> {
    let (rows, width) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let tokens = input.len() / width;
    let mut memory = x.to_vec();
    memory.resize(bucket * rows, UNTOUCHED);
    let mut padded = input.to_vec();
    padded.resize(bucket * width, f32::NAN);
    let x = bench.put(&memory)?;
    let op = LinearResidualParams {
        shape: bench.shape(tokens)?,
        input: bench.put(&padded)?,
        from: if besides.adds { x } else { DevicePtr::NULL },
        x,
        bias: besides.bias.map_or(Ok(DevicePtr::NULL), |bias| bench.put(bias))?,
        rows: bench.rows(input, None, &[weight.packed], bucket)?,
        weight: weight.packed,
        next: NextRows::default(),
        scale: besides.scale,
        reserved: 0,
    };
    Ok(bench.run(op.node(Place { layer: 0, op: Op::MlpDown }), bucket, op.x, bucket * rows)?)
}

/// A residual projection; the same with bias and factor, and with those by itself.
pub fn check_residual(bench: &mut Bench, weight: &Weight, input: &[f32], x: &[f32]) -> Case {
    let (rows, width) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let tokens = input.len() / width;
    let bias = Numbers(12).values(rows, 2.0);
    let scaled = Besides { bias: Some(&bias), scale: 0.75, ..PLAIN };
    let mut largest = 0.0f64;
    for besides in [PLAIN, scaled, Besides { adds: false, ..scaled }] {
        let got = projection(bench, weight, (input, x), bucket_of(tokens), besides)?;
        let from = besides.adds.then_some(x);
        let (activations, Besides { bias, scale, .. }) = (weight.packed.activations, besides);
        let reference = linear_residual::Reference { weight: weight.matrix(), activations, input, from, bias, scale };
        let want = linear_residual::reference(&reference);
        let tolerance = residual_tolerances(weight, input, x, &want);
        let what = format!("{} ({rows}, {width}) x {tokens}, {scale} adds: {}", bench.what(), besides.adds);
        largest = largest.max(check(&what, &got, &want, &tolerance)?);
    }
    Ok(largest)
}

/// How far the results of a residual projection may be off, with a factor of at most 1 and a bias of at most 2.
pub fn residual_tolerances(weight: &Weight, input: &[f32], x: &[f32], want: &[f64]) -> Vec<f64> {
    let (rows, width) = (weight.packed.rows as usize, weight.packed.cols as usize);
    let mut tolerances = Vec::new();
    for (input, x) in input.chunks_exact(width).zip(x.chunks_exact(rows)) {
        let row = weight.tolerances(&as_f64(input));
        tolerances.extend(row.iter().zip(x).map(|(t, x)| t * 1.01 + 1e-7 * (2.0 + f64::from(x.abs()))));
    }
    want.iter().zip(&mut tolerances).for_each(|(want, tolerance)| *tolerance += want.abs() * 1e-7);
    tolerances
}

// ---- embedding ------------------------------------------------------------------------------------------------------

/// Rows of an embedding of 37 tokens: of tokens that the host names, and of those in slots.
pub fn check_embedding(bench: &mut Bench, hidden: usize, sources: &[i32]) -> Case {
    let (vocab, slots, bucket) = (37, [36, 2, 17], bucket_of(sources.len()));
    let weight = bench.weight(vocab, hidden, &Numbers(6).values(vocab * hidden, 1.0))?;
    let op = EmbedParams {
        shape: bench.shape(sources.len())?,
        token_source: bench.put(sources)?,
        slot_tokens: bench.put(&slots)?,
        x: bench.put(&vec![UNTOUCHED; bucket * hidden])?,
        weight: weight.packed,
        next: NextRows::default(),
        scale: 1.0,
        reserved: 0,
    };
    let want = embed::reference(&weight.matrix(), sources, &slots);
    for scale in [1.0f32, 11.3] {
        let got = bench.run(EmbedParams { scale, ..op }.node(), bucket, op.x, bucket * hidden)?;
        // The same products, rounded once.
        let want: Vec<f64> = want.iter().map(|value| f64::from(*value as f32 * scale)).collect();
        check(&format!("{} ({vocab}, {hidden})", bench.what()), &got, &want, &vec![0.0; want.len()])?;
    }
    Ok(0.0)
}

// ---- norm, q, k, v --------------------------------------------------------------------------------------------------

const PAGE: usize = PAGE_TOKENS as usize;

/// A rotated pair takes the errors of both of its values, and three roundings.
fn rotated(values: &[f64], tolerances: &[f64]) -> Vec<f64> {
    let pairs = values.chunks_exact(2).zip(tolerances.chunks_exact(2));
    pairs.flat_map(|(v, t)| [t[0] + t[1] + 4e-7 * (v[0].abs() + v[1].abs()); 2]).collect()
}

/// What an entry of the cache may be off by, beside what its value may.
fn cached(tolerances: &[f64], want: &[f64], kv_format: u32) -> Vec<f64> {
    let rounding = if kv_format == FORMAT_F16 { 0.5f64.powi(11) } else { 0.0 };
    tolerances.iter().zip(want).map(|(t, want)| t * 1.01 + want.abs() * rounding + 1e-7).collect()
}

/// Queries, and the keys and values in a shuffled cache, of rows of 64 values. `heads`: of queries, of keys and values,
/// and the width of each. `formats`: of the three weights.
pub fn check_qkv(
    bench: &mut Bench,
    formats: [WeightFormat; 3],
    heads: [usize; 3],
    kv_format: u32,
    tokens: usize,
) -> Case {
    let [query_heads, kv_heads, head_dim] = heads;
    let mut numbers = Numbers(7 + tokens as u64);
    let (hidden, max_position, pages, bucket) = (64, 50, tokens.div_ceil(PAGE).max(4), bucket_of(tokens));
    let (q_rows, kv_rows) = (query_heads * head_dim, kv_heads * head_dim);
    let mut weight = |part: usize, rows: usize| {
        bench.weight_of(formats[part], &formats, (rows, hidden), &numbers.values(rows * hidden, 0.3))
    };
    let weights = [weight(0, q_rows)?, weight(1, kv_rows)?, weight(2, kv_rows)?];
    let packed = [0, 1, 2].map(|part: usize| weights[part].packed);
    let rows = NormRows::new(bench, &mut numbers, tokens, hidden);
    let bias = numbers.values(q_rows + 2 * kv_rows, 1.0);
    let angles = (0..max_position * head_dim / 2).map(|i| i as f32 * 0.37);
    let rope: Vec<f32> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|i| (i * 7 + 3) % max_position as u32).collect();
    let slots: Vec<u32> = (0..tokens as u32).map(|i| i * 11 % (PAGE * pages) as u32).collect(); // 11: no slot twice
    let cache_len = pages * kv_rows * PAGE;
    let caches = [bench.untouched_cache(cache_len, kv_format)?, bench.untouched_cache(cache_len, kv_format)?];
    let op = NormQkvParams {
        shape: bench.shape(tokens)?,
        x: bench.put(&rows.x)?,
        gamma: bench.put(&rows.gamma)?,
        bias: bench.put(&bias)?,
        rope: bench.put(&rope)?,
        positions: bench.put(&positions)?,
        slot_mapping: bench.put(&slots)?,
        q: bench.put(&vec![UNTOUCHED; bucket * q_rows])?,
        keys: DevicePtr::NULL,
        rows: bench.rows(&rows.x, Some(&rows.gamma), &packed, bucket)?,
        wq: packed[0],
        wk: packed[1],
        wv: packed[2],
        kv: KvCacheRef { k: caches[0], v: caches[1], format: kv_format, pages: pages as u32 },
        eps: EPS,
        hidden: hidden as u32,
        heads: (q_rows / head_dim) as u32,
        kv_heads: (kv_rows / head_dim) as u32,
        head_dim: head_dim as u32,
        reserved: 0,
    };
    let q = bench.run::<f32>(op.node(0), bucket, op.q, bucket * q_rows)?;
    let mut read_cache = |cache| bench.run_cached(op.node(0), bucket, (cache, kv_format), cache_len);
    let results = [q, read_cache(caches[0])?, read_cache(caches[1])?];
    let case = QkvCase {
        rows: &rows,
        weights: &weights,
        bias: &bias,
        rope: &rope,
        positions: &positions,
        slots: &slots,
        head_dim,
    };
    case.check(&format!("{} {formats:?} heads {heads:?} x {tokens}", bench.what()), &results, kv_format)
}

/// The inputs of a node whose results are checked.
struct QkvCase<'a> {
    rows: &'a NormRows,
    weights: &'a [Weight; 3],
    bias: &'a [f32],
    rope: &'a [f32],
    positions: &'a [u32],
    slots: &'a [u32],
    head_dim: usize,
}

impl QkvCase<'_> {
    fn reference(&self) -> [Vec<f64>; 3] {
        let mut all = [const { Vec::new() }; 3];
        for (x, position) in self.rows.each().zip(self.positions) {
            let [RowInput { x, gamma, eps, activations }, key, value] =
                [0, 1, 2].map(|part: usize| self.rows.input(x, self.weights[part].packed.activations));
            let row = norm_qkv::reference(&norm_qkv::Reference {
                x: &x,
                gamma: Some(&gamma),
                bias: Some(self.bias),
                eps,
                weights: [self.weights[0].matrix(), self.weights[1].matrix(), self.weights[2].matrix()],
                activations: [activations, key.activations, value.activations],
                rope: Some(self.rope),
                positions: &[*position],
                head_dim: self.head_dim,
            });
            all.iter_mut().zip(row).for_each(|(all, row)| all.extend(row));
        }
        all
    }

    fn check(&self, what: &str, results: &[Vec<f32>; 3], kv_format: u32) -> Case {
        let want = QkvWant {
            values: self.reference(),
            tolerances: [0, 1, 2].map(|part: usize| self.rows.tolerances(&self.weights[part])),
            slots: self.slots,
            head_dim: self.head_dim,
            kv_heads: self.weights[1].packed.rows as usize / self.head_dim,
            kv_format,
        };
        want.check(what, results)
    }
}

/// What queries, keys and values have to be.
#[derive(Debug)]
pub struct QkvWant<'a> {
    /// q (tokens, heads · head_dim), k and v (tokens, kv_heads · head_dim)
    pub values: [Vec<f64>; 3],
    /// How far each may be off, before it is rotated and stored.
    pub tolerances: [Vec<f64>; 3],
    /// (tokens): where keys and values are stored
    pub slots: &'a [u32],
    /// Width of a head.
    pub head_dim: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// `FORMAT_F32` or `FORMAT_F16`
    pub kv_format: u32,
}

impl QkvWant<'_> {
    /// Compares queries, and the caches as f32, which were full of `UNTOUCHED`. They are read in the order of tokens;
    /// what no token wrote is untouched.
    pub fn check(&self, what: &str, [q, k_cache, v_cache]: &[Vec<f32>; 3]) -> Case {
        let QkvWant { values: [want_q, want_k, want_v], tolerances, slots, .. } = self;
        let (head_dim, kv_heads) = (self.head_dim, self.kv_heads);
        let off_q = check(what, q, want_q, &rotated(want_q, &tolerances[0]))?;
        let (mut k, mut v) = (Vec::new(), Vec::new());
        let mut written = [vec![false; k_cache.len()], vec![false; v_cache.len()]];
        for slot in slots.iter().map(|slot| *slot as usize) {
            for (head, dim) in (0..kv_heads).flat_map(|head| (0..head_dim).map(move |dim| (head, dim))) {
                let page = (slot / PAGE * kv_heads + head) * head_dim * PAGE;
                let (at_k, at_v) = (page + dim * PAGE + slot % PAGE, page + slot % PAGE * head_dim + dim);
                k.push(k_cache[at_k]);
                v.push(v_cache[at_v]);
                written[0][at_k] = true;
                written[1][at_v] = true;
            }
        }
        let stored_k = cached(&rotated(want_k, &tolerances[1]), want_k, self.kv_format);
        let off_k = check(&format!("{what}: k"), &k, want_k, &stored_k)?;
        let off_v = check(&format!("{what}: v"), &v, want_v, &cached(&tolerances[2], want_v, self.kv_format))?;
        let half = half::f16::from_f32(UNTOUCHED).to_f32();
        let untouched = if self.kv_format == FORMAT_F16 { half } else { UNTOUCHED };
        for (name, cache, written) in [("K", k_cache, &written[0]), ("V", v_cache, &written[1])] {
            let touched = cache.iter().zip(written).any(|(value, written)| !written && *value != untouched);
            ensure(!touched, || format!("{what}: {name} touched beyond the step's slots"))?;
        }
        Ok(off_q.max(off_k).max(off_v))
    }
}

// ---- norm, gate, up -------------------------------------------------------------------------------------------------

/// How far SiLU(gate) · up may be off. SiLU's slope is at most 1.1, SiLU itself at most |gate|; exp, division and
/// product round a few times.
pub fn gate_up_tolerances([gates, ups]: [&[f64]; 2], [gate_off, up_off]: [&[f64]; 2]) -> Vec<f64> {
    let tolerance = |i: usize| {
        let up_max = ups[i].abs() + up_off[i];
        1.1 * gate_off[i] * up_max + gates[i].abs() * up_off[i] + 1e-6 * (gates[i] * ups[i]).abs() + 1e-12
    };
    (0..gates.len()).map(tolerance).collect()
}

/// SiLU(gate) · up, of weights of these formats.
pub fn check_gate_up(
    bench: &mut Bench,
    formats: [WeightFormat; 2],
    (ffn, hidden): (usize, usize),
    tokens: usize,
) -> Case {
    let mut numbers = Numbers(8 + tokens as u64);
    let mut weight =
        |part: usize| bench.weight_of(formats[part], &formats, (ffn, hidden), &numbers.values(ffn * hidden, 0.4));
    let (gate, up) = (weight(0)?, weight(1)?);
    let rows = NormRows::new(bench, &mut numbers, tokens, hidden);
    let bucket = bucket_of(tokens);
    let values = numbers.values(2 * ffn, 1.0);
    // CUDA's kernel takes none.
    let bias = (!bench.is_cuda()).then_some(&values[..]);
    let op = NormGateUpParams {
        shape: bench.shape(tokens)?,
        x: bench.put(&rows.x)?,
        gamma: bench.put(&rows.gamma)?,
        bias: bias.map_or(Ok(DevicePtr::NULL), |bias| bench.put(bias))?,
        out: bench.put(&vec![UNTOUCHED; bucket * ffn])?,
        rows: bench.rows(&rows.x, Some(&rows.gamma), &[gate.packed, up.packed], bucket)?,
        gate: gate.packed,
        up: up.packed,
        next: NextRows::default(),
        eps: EPS,
        hidden: hidden as u32,
        ffn: ffn as u32,
        reserved: 0,
    };
    let got = bench.run(op.node(0), bucket, op.out, bucket * ffn)?;
    let [gates, ups, want] = gate_up_reference(&rows, [&gate, &up], bias);
    let tolerance = gate_up_tolerances([&gates, &ups], [&rows.tolerances(&gate), &rows.tolerances(&up)]);
    check(&format!("{} {formats:?} ffn {ffn} x {tokens}", bench.what()), &got, &want, &tolerance)
}

fn gate_up_reference(rows: &NormRows, weights: [&Weight; 2], bias: Option<&[f32]>) -> [Vec<f64>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for x in rows.each() {
        let [RowInput { x, gamma, eps, activations }, for_up] =
            weights.map(|weight| rows.input(x, weight.packed.activations));
        let [gate, up] = weights.map(Weight::matrix);
        let activations = [activations, for_up.activations];
        let input = norm_gate_up::Reference { x: &x, gamma: Some(&gamma), bias, eps, gate, up, activations };
        all.iter_mut().zip(norm_gate_up::reference(&input)).for_each(|(all, row)| all.extend(row));
    }
    all
}

// ---- logits ---------------------------------------------------------------------------------------------------------

/// Logits of a vocabulary, of some of 40 rows.
pub fn check_logits(bench: &mut Bench, vocab: usize, logit_rows: &[u32]) -> Case {
    let mut numbers = Numbers(9);
    let (stride, hidden, tokens) = (vocab.next_multiple_of(32), 64, 40);
    let weight = bench.weight(vocab, hidden, &numbers.values(vocab * hidden, 0.4))?;
    let rows = NormRows::new(bench, &mut numbers, tokens, hidden);
    let (count, bucket) = (logit_rows.len(), bucket_of(logit_rows.len()));
    let op = NormLmHeadParams {
        shape: bench.shape(count)?,
        x: bench.put(&rows.x)?,
        logit_rows: bench.put(logit_rows)?,
        gamma: bench.put(&rows.gamma)?,
        logits: bench.put(&vec![UNTOUCHED; bucket * stride])?,
        rows: bench.rows(&rows.x, Some(&rows.gamma), &[weight.packed], bucket.max(tokens))?,
        weight: weight.packed,
        eps: EPS,
        hidden: hidden as u32,
        vocab: vocab as u32,
        stride: stride as u32,
        scale: 0.5, // exact
        reserved: 0,
    };
    let got = bench.run::<f32>(op.node(), bucket, op.logits, bucket * stride)?;
    let (logits, behind) = got.split_at(count * stride);
    let logits: Vec<f32> = logits.chunks_exact(stride).flat_map(|row| &row[..vocab]).copied().collect();
    let (mut want, mut tolerance) = (Vec::new(), Vec::new());
    for row in logit_rows {
        let x = &rows.x[*row as usize * hidden..][..hidden];
        tolerance.extend(rows.row_tolerances(&weight, x));
        let RowInput { x, gamma, eps, activations } = rows.input(x, weight.packed.activations);
        let (x, gamma, weight) = (&x, &gamma, weight.matrix());
        let scale = op.scale;
        let input = norm_lm_head::Reference { x, logit_rows: &[0], gamma, eps, weight, activations, scale };
        want.extend(norm_lm_head::reference(&input));
    }
    let what = format!("{} x {count}", bench.what());
    let off = check(&what, &logits, &want, &tolerance)?;
    ensure(behind.iter().all(|value| *value == UNTOUCHED), || format!("{what}: touched beyond the last row"))?;
    Ok(off)
}
