//! Rows of the sample graph, and a step of it on the CPU: shared by the tests of the kernels.
#![allow(dead_code, reason = "each test is a crate of its own and uses a part")]

use vitrum::device::cpu::IsaChoice;
use vitrum::device::params::*;
use vitrum::device::uniform::uniform;
use vitrum::device::{Device, DeviceChoice, DeviceOptions, Download, Submission};
use vitrum::ops::sample::Sample;
use vitrum::trace::schema::{GraphKey, GraphKind};

pub(crate) const GREEDY: SampleRow =
    SampleRow { seed: 1, position: 0, slot: 0, temperature: 0.0, top_p: 1.0, top_k: 0, logprobs: 0 };
pub(crate) const DRAW: SampleRow = SampleRow { temperature: 1.0, ..GREEDY };

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

pub(crate) const UNTOUCHED: u32 = 0xDEAD_BEEF;

pub(crate) struct Drawn {
    pub(crate) tokens: Vec<u32>,
    pub(crate) slot_tokens: Vec<u32>,
    /// `None` where nothing was written.
    pub(crate) logprobs: Vec<Option<LogprobRow>>,
    /// The same, bit by bit.
    pub(crate) logprob_words: Vec<u32>,
}

/// A step: a row of logits for each way of drawing.
pub(crate) struct Draws<'a> {
    pub(crate) logits: &'a [&'a [f32]],
    pub(crate) how: &'a [SampleRow],
}

const LOGPROB_WORDS: usize = size_of::<LogprobRow>() / 4;

impl Draws<'_> {
    pub(crate) fn vocab(&self) -> usize {
        self.logits[0].len()
    }

    /// The node, whose buffers `put` makes.
    pub(crate) fn node(&self, mut put: impl FnMut(&[u8]) -> u64) -> Sample {
        assert_eq!(self.logits.len(), self.how.len());
        let (vocab, rows) = (self.vocab(), self.how.len());
        let stride = vocab.next_multiple_of(16);
        // Past the vocabulary stands what would win if it were looked at.
        let padded = |row: &&[f32]| {
            let mut row = row.to_vec();
            row.resize(stride, f32::INFINITY);
            row.into_iter().map(f32::to_bits)
        };
        Sample {
            vocab,
            stride,
            shape: put(&words([0, 0, rows as u32, 0, 0, 0, 0, 0])),
            logits: put(&words(self.logits.iter().flat_map(padded))),
            rows: put(&words(self.how.iter().flat_map(row_words))),
            slot_tokens: put(&words(vec![UNTOUCHED; self.slots()])),
            tokens: put(&words(vec![UNTOUCHED; rows])),
            logprobs: put(&words(vec![UNTOUCHED; rows * LOGPROB_WORDS])),
        }
    }

    fn slots(&self) -> usize {
        self.how.iter().map(|row| row.slot as usize + 1).max().unwrap()
    }

    /// The results, of which `read` gives so many words at an address.
    pub(crate) fn results(&self, node: &Sample, read: impl Fn(u64, usize) -> Vec<u32>) -> Drawn {
        let rows = self.how.len();
        let logprob_words = read(node.logprobs, rows * LOGPROB_WORDS);
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
            tokens: read(node.tokens, rows),
            slot_tokens: read(node.slot_tokens, self.slots()),
            logprobs: logprobs.collect(),
            logprob_words,
        }
    }
}

/// One step on the CPU.
pub(crate) fn draw(isa: IsaChoice, threads: usize, logits: &[&[f32]], how: &[SampleRow]) -> Drawn {
    let options = DeviceOptions { choice: DeviceChoice::Cpu, threads: Some(threads), isa: Some(isa), delay: None };
    let mut device = Device::open(&options).unwrap();
    let draws = Draws { logits, how };
    let node = draws.node(|data| {
        let buffer = device.alloc(data.len(), "test").unwrap();
        device.upload(&buffer, 0, data);
        buffer.addr
    });
    let key = GraphKey { kind: GraphKind::SampleFull, bucket: how.len() as u32 };
    let graph = device.capture(key, &[node.node()]).unwrap();
    let sizes =
        [(node.tokens, how.len()), (node.slot_tokens, draws.slots()), (node.logprobs, how.len() * LOGPROB_WORDS)];
    let downloads = sizes.map(|(addr, words)| Download { addr, bytes: 4 * words });
    let submission = Submission { uploads: &[], graphs: &[graph], downloads: &downloads, traced: false };
    let ticket = device.submit(&submission).unwrap();
    let data = words_of(device.wait(ticket).unwrap().data);
    draws.results(&node, |addr, count| {
        let before = sizes.iter().take_while(|(first, _)| *first != addr).map(|(_, words)| words).sum::<usize>();
        data[before..before + count].to_vec()
    })
}

/// Logits that look like a model's: most within ±10, a few above.
pub(crate) fn model_logits(vocab: usize, name: u64) -> Vec<f32> {
    let normal = |id: usize| (0..12).map(|i| uniform(name, (id * 12 + i) as u32)).sum::<f64>() - 6.0;
    (0..vocab).map(|id| (3.0 * normal(id)) as f32).collect()
}
