//! Cases of the norms that are ops of their own: one node, against its scalar reference.

use super::bench::*;
use crate::kernels::params::*;
use crate::kernels::{DevicePtr, norm_residual, qk_norm};
use crate::trace::schema::{Op, Place};

const PAGE: usize = PAGE_TOKENS as usize;

/// A mean of squares, a root and two products round a few times; so does a turn, of two values.
fn tolerances(want: &[f64], largest: f64) -> Vec<f64> {
    want.iter().map(|want| 2e-6 * (want.abs() + largest)).collect()
}

/// Queries, and the keys in a shuffled cache. `heads`: of queries, of keys, and the width of each; `is_whole`: the norm
/// is that of all heads together; `turns`: there is a rotary embedding.
pub fn check_qk_norm(
    bench: &mut Bench,
    [query_heads, kv_heads, head_dim]: [usize; 3],
    (is_whole, turns): (bool, bool),
    kv_format: u32,
    tokens: usize,
) -> Case {
    let mut numbers = Numbers(31 + tokens as u64);
    let (max_position, pages, bucket) = (50, tokens.div_ceil(PAGE).max(4), bucket_of(tokens));
    let [q_width, k_width] = [query_heads, kv_heads].map(|heads| heads * head_dim);
    let [q, keys] = [q_width, k_width].map(|width| numbers.values(tokens * width, 3.0));
    let gains = |width: usize| if is_whole { width } else { head_dim };
    let [q_gamma, k_gamma] = [q_width, k_width].map(|width| numbers.values(gains(width), 1.5));
    let angles = (0..max_position * head_dim / 2).map(|i| i as f32 * 0.37);
    let rope: Vec<f32> = angles.flat_map(|angle| [angle.cos(), angle.sin()]).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|i| (i * 7 + 3) % max_position as u32).collect();
    let slots: Vec<u32> = (0..tokens as u32).map(|i| i * 11 % (PAGE * pages) as u32).collect(); // 11: no slot twice
    let cache_len = pages * k_width * PAGE;
    let k = bench.untouched_cache(cache_len, kv_format)?;
    let padded = |values: &[f32], width: usize| [values, &vec![UNTOUCHED; (bucket - tokens) * width]].concat();
    let op = QkNormParams {
        shape: bench.shape(tokens)?,
        q: bench.put(&padded(&q, q_width))?,
        keys: bench.put(&padded(&keys, k_width))?,
        q_gamma: bench.put(&q_gamma)?,
        k_gamma: bench.put(&k_gamma)?,
        rope: if turns { bench.put(&rope)? } else { DevicePtr::NULL },
        positions: bench.put(&positions)?,
        slot_mapping: bench.put(&slots)?,
        kv: KvCacheRef { k, v: k, format: kv_format, pages: pages as u32 },
        eps: EPS,
        heads: query_heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: head_dim as u32,
        whole: is_whole.into(),
        reserved: 0,
    };
    let what = format!("{} heads {:?} whole: {is_whole} x {tokens}", bench.what(), [query_heads, kv_heads, head_dim]);
    let rope = turns.then_some(&rope[..]);
    let reference = |values, gamma, heads| {
        let positions = &positions;
        qk_norm::reference(&qk_norm::Reference { values, gamma, eps: EPS, rope, positions, heads, head_dim })
    };
    let got = bench.run::<f32>(op.node(0), bucket, op.q, bucket * q_width)?;
    let want = reference(&q, &q_gamma, query_heads);
    let off_q = check(&format!("{what}: q"), &got, &want, &tolerances(&want, LARGEST))?;

    // The run replaced the queries; the keys come from what they came from.
    let cache = bench.run_cached(op.node(0), bucket, (k, kv_format), cache_len)?;
    let mut written = vec![false; cache_len];
    let mut got = Vec::new();
    for slot in slots.iter().map(|slot| *slot as usize) {
        for (head, dim) in (0..kv_heads).flat_map(|head| (0..head_dim).map(move |dim| (head, dim))) {
            let at = (slot / PAGE * kv_heads + head) * head_dim * PAGE + dim * PAGE + slot % PAGE;
            got.push(cache[at]);
            written[at] = true;
        }
    }
    let want = reference(&keys, &k_gamma, kv_heads);
    let half = kv_format == FORMAT_F16;
    let rounding = if half { 0.5f64.powi(11) } else { 0.0 };
    let allowed = tolerances(&want, LARGEST).into_iter().zip(&want).map(|(t, want)| t + rounding * want.abs());
    let off_k = check(&format!("{what}: k"), &got, &want, &allowed.collect::<Vec<_>>())?;
    let untouched = if half { half::f16::from_f32(UNTOUCHED).to_f32() } else { UNTOUCHED };
    let touched = cache.iter().zip(&written).any(|(value, written)| !written && *value != untouched);
    ensure(!touched, || format!("{what}: K touched beyond the step's slots"))?;
    Ok(off_q.max(off_k))
}

/// What a normed value of these cases is at most, in magnitude: of up to 3 over a mean near 1.7, times up to 1.5.
const LARGEST: f64 = 4.0;

/// x += norm(y).
pub fn check_norm_residual(bench: &mut Bench, hidden: usize, tokens: usize) -> Case {
    let mut numbers = Numbers(33 + tokens as u64);
    let bucket = bucket_of(tokens);
    let [x, y] = [(); 2].map(|()| numbers.values(tokens * hidden, 3.0));
    let gamma = numbers.values(hidden, 1.5);
    let padded = |values: &[f32]| [values, &vec![UNTOUCHED; (bucket - tokens) * hidden]].concat();
    let op = NormResidualParams {
        shape: bench.shape(tokens)?,
        y: bench.put(&padded(&y))?,
        gamma: bench.put(&gamma)?,
        x: bench.put(&padded(&x))?,
        next: NextRows::default(),
        eps: EPS,
        hidden: hidden as u32,
    };
    let got = bench.run::<f32>(op.node(Place { layer: 0, op: Op::AttnNorm }), bucket, op.x, bucket * hidden)?;
    let want = norm_residual::reference(&x, &y, &gamma, EPS);
    check(&format!("{} ({hidden}) x {tokens}", bench.what()), &got, &want, &tolerances(&want, LARGEST))
}
