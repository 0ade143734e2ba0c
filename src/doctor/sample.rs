//! Cases of the kernel that draws tokens: rows of logits, a step of the sample graph, and what it may draw.

use super::bench::{Case, CaseError, ensure};
use crate::device::{Device, DeviceError, Download, Submission};
use crate::kernels::params::*;
use crate::kernels::sample::uniform;
use crate::kernels::sample::{reference, reference_logprobs};
use crate::trace::schema::{GraphKey, GraphKind, NodeSources};

/// Probabilities are ratios of f32 exponentials, whose arguments (below 30) are rounded by 10⁻⁶ and which are off by
/// 2.4 × 10⁻⁷; sums are in f64. Running probabilities have less than this error.
pub const PROBABILITY_TOLERANCE: f64 = 4e-6;

/// Log probabilities (below 40) are rounded to f32, by 2 × 10⁻⁶, and their sum is off by what probabilities are.
pub const LOGPROB_TOLERANCE: f64 = 6e-6;

/// Takes the largest logit.
pub const GREEDY: SampleRow =
    SampleRow { seed: 1, position: 0, slot: 0, temperature: 0.0, top_p: 1.0, top_k: 0, logprobs: 0 };
/// Draws from all.
pub const DRAW: SampleRow = SampleRow { temperature: 1.0, ..GREEDY };

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
}

fn row_words(row: &SampleRow) -> [u32; 8] {
    let (temperature, top_p) = (row.temperature.to_bits(), row.top_p.to_bits());
    let [low, high] = [row.seed as u32, (row.seed >> 32) as u32];
    [low, high, row.position, row.slot, temperature, top_p, row.top_k, row.logprobs]
}

/// What memory holds that the kernel must not touch.
pub const UNTOUCHED: u32 = 0xDEAD_BEEF;

/// What a step left.
#[derive(Debug)]
pub struct Drawn {
    /// (rows)
    pub tokens: Vec<u32>,
    /// (slots)
    pub slot_tokens: Vec<u32>,
    /// `None` where nothing was written.
    pub logprobs: Vec<Option<LogprobRow>>,
    /// The same, bit by bit.
    pub logprob_words: Vec<u32>,
}

/// A step: a row of logits for each way of drawing.
#[derive(Clone, Copy, Debug)]
pub struct Draws<'a> {
    /// (rows, vocabulary)
    pub logits: &'a [&'a [f32]],
    /// (rows)
    pub how: &'a [SampleRow],
}

const LOGPROB_WORDS: usize = size_of::<LogprobRow>() / 4;

impl Draws<'_> {
    /// Logits of a row.
    pub fn vocab(&self) -> usize {
        self.logits[0].len()
    }

    /// The node, whose buffers `put` makes.
    pub fn node<E>(&self, mut put: impl FnMut(&[u8]) -> Result<u64, E>) -> Result<SampleParams, E> {
        assert_eq!(self.logits.len(), self.how.len());
        let (vocab, rows) = (self.vocab(), self.how.len());
        let stride = vocab.next_multiple_of(16);
        // Past the vocabulary stands what would win if it were looked at.
        let padded = |row: &&[f32]| {
            let mut row = row.to_vec();
            row.resize(stride, f32::INFINITY);
            row.into_iter().map(f32::to_bits)
        };
        Ok(SampleParams {
            vocab: vocab as u32,
            stride: stride as u32,
            shape: put(&words([0, 0, rows as u32, 0, 0, 0, 0, 0]))?.into(),
            logits: put(&words(self.logits.iter().flat_map(padded)))?.into(),
            rows: put(&words(self.how.iter().flat_map(row_words)))?.into(),
            slot_tokens: put(&words(vec![UNTOUCHED; self.slots()]))?.into(),
            tokens: put(&words(vec![UNTOUCHED; rows]))?.into(),
            logprobs: put(&words(vec![UNTOUCHED; rows * LOGPROB_WORDS]))?.into(),
        })
    }

    fn slots(&self) -> usize {
        self.how.iter().map(|row| row.slot as usize + 1).max().unwrap_or(0)
    }

    /// The results, of which `read` gives so many words at an address.
    pub fn results(&self, node: &SampleParams, read: impl Fn(u64, usize) -> Vec<u32>) -> Drawn {
        let rows = self.how.len();
        let logprob_words = read(node.logprobs.addr(), rows * LOGPROB_WORDS);
        let logprobs = logprob_words.chunks_exact(LOGPROB_WORDS).map(|words| {
            let (ids, values) = words[2..].split_at(MAX_LOGPROBS as usize);
            let row = LogprobRow {
                chosen: f32::from_bits(words[0]),
                rank: words[1],
                ids: std::array::from_fn(|i| ids[i]),
                values: std::array::from_fn(|i| f32::from_bits(values[i])),
            };
            words.iter().any(|word| *word != UNTOUCHED).then_some(row)
        });
        Drawn {
            tokens: read(node.tokens.addr(), rows),
            slot_tokens: read(node.slot_tokens.addr(), self.slots()),
            logprobs: logprobs.collect(),
            logprob_words,
        }
    }
}

/// One step on a device.
pub fn draw(device: &mut Device, logits: &[&[f32]], how: &[SampleRow]) -> Result<Drawn, DeviceError> {
    let draws = Draws { logits, how };
    let node = draws.node(|data| {
        let buffer = device.alloc(data.len(), "rows to draw from")?;
        device.upload(&buffer, 0, data);
        Ok::<_, DeviceError>(buffer.addr)
    })?;
    let key = GraphKey { kind: GraphKind::SampleFull, bucket: how.len() as u32 };
    let graph = device.capture(key, &[node.node()])?;
    let sizes = [
        (node.tokens.addr(), how.len()),
        (node.slot_tokens.addr(), draws.slots()),
        (node.logprobs.addr(), how.len() * LOGPROB_WORDS),
    ];
    let downloads = sizes.map(|(addr, words)| Download { addr, bytes: 4 * words });
    let submission = Submission { uploads: &[], graphs: &[graph], downloads: &downloads, sources: NodeSources::NONE };
    let ticket = device.submit(&submission)?;
    let data = words_of(device.wait(ticket)?.data);
    Ok(draws.results(&node, |addr, count| {
        let before = sizes.iter().take_while(|(first, _)| *first != addr).map(|(_, words)| words).sum::<usize>();
        data[before..before + count].to_vec()
    }))
}

/// A token that was drawn is the one in whose interval of running probabilities the row's uniform number is. `kept`:
/// what [`reference`] says for the row. Gives 0 inside the interval, else how far outside, as a part of what is
/// allowed.
pub fn check_draw(what: &str, row: &SampleRow, kept: &[(u32, f64)], token: u32) -> Case {
    let at = kept.iter().position(|(id, _)| *id == token);
    let at = at.ok_or_else(|| CaseError::Wrong(format!("{what}, {row:?}: {token} is cut off")))?;
    let u = uniform(row.seed, row.position);
    let before: f64 = kept[..at].iter().map(|(_, probability)| probability).sum();
    let after = before + kept[at].1;
    let off = f64::max(before - u, u - after).max(0.0) / PROBABILITY_TOLERANCE;
    ensure(off <= 1.0, || format!("{what}, {row:?}: {token} is drawn for {before} to {after}, not {u}"))?;
    Ok(off)
}

/// Draws of every kind from one row of logits, at four positions each, and the log probabilities of some.
pub fn check_draws(device: &mut Device, vocab: usize) -> Case {
    let logits = model_logits(vocab, 11);
    let mut rows = vec![GREEDY];
    for (temperature, top_k, top_p) in
        [(1.0, 0, 1.0), (0.3, 0, 0.9), (2.5, 0, 1.0), (1.0, 7, 1.0), (1.0, 50, 0.5), (2.5, 900, 0.9), (1.0, 1, 0.01)]
    {
        let way = SampleRow { seed: 1 << 40 | 5, temperature, top_k, top_p, logprobs: top_k.min(9), ..DRAW };
        rows.extend((0..4).map(|i| SampleRow { position: 4 * top_k + i, ..way }));
    }
    (0..).zip(&mut rows).for_each(|(slot, row)| row.slot = slot);
    let drawn = draw(device, &vec![logits.as_slice(); rows.len()], &rows)?;
    let want_logprobs = reference_logprobs(&logits);
    let mut largest = 0f64;
    for (i, row) in rows.iter().enumerate() {
        let (what, token) = (format!("{vocab} ids"), drawn.tokens[i]);
        largest = largest.max(check_draw(&what, row, &reference(&logits, row), token)?);
        ensure(drawn.slot_tokens[i] == token, || format!("{what}, {row:?}: {token} is not in its slot"))?;
        let asked = row.logprobs > 0;
        let found = drawn.logprobs[i];
        ensure(found.is_some() == asked, || format!("{what}, {row:?}: log probabilities {found:?}"))?;
        if let Some(found) = found {
            let off = (f64::from(found.chosen) - want_logprobs[token as usize]).abs() / LOGPROB_TOLERANCE;
            ensure(off <= 1.0, || format!("{what}, {row:?}: log probability {} of {token}", found.chosen))?;
            largest = largest.max(off);
        }
    }
    Ok(largest)
}

/// Logits that look like a model's: most within ±10, a few above.
pub fn model_logits(vocab: usize, name: u64) -> Vec<f32> {
    let normal = |id: usize| (0..12).map(|i| uniform(name, (id * 12 + i) as u32)).sum::<f64>() - 6.0;
    (0..vocab).map(|id| (3.0 * normal(id)) as f32).collect()
}
