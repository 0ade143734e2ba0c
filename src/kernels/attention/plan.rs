//! The work list of a step's attention: which query rows meet which KV positions in one piece of work.
//!
//! A pool thread takes a piece (an item × a KV head) at a time. How rows are shared out changes no bit of the result,
//! so it may depend on everything: the batch, the number of threads, the room for partial results.

use std::cmp::Reverse;

use crate::kernels::params::{AttentionItem, AttentionSplit, KV_CHUNK_TOKENS, NO_PARTIAL};

/// The most query rows of an item.
const MAX_ITEM_ROWS: u32 = 16;
/// The fewest that a longer prompt is cut into for the sake of balance.
const MIN_ITEM_ROWS: u32 = 4;
/// Pieces of work per thread that are enough for balance.
const PIECES_PER_WORKER: u32 = 4;
/// Reading a chunk costs about as much as computing it for this many rows.
const READ_ROWS: u64 = 4;
/// A piece of work larger than a thread's fair share of all work divided by this is worth splitting.
const SPLIT_SHARE: u64 = 8;
const CHUNK: u32 = KV_CHUNK_TOKENS;

/// The rows of one sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// Its first row.
    pub row: u32,
    /// How many; the last has the sequence's last position.
    pub rows: u32,
    /// Its row of the page tables.
    pub seq: u32,
    /// Its length after the step.
    pub kv_tokens: u32,
}

/// What the sharing out depends on besides the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// KV heads: pieces of work per item.
    pub kv_heads: u32,
    /// Threads.
    pub workers: u32,
    /// Slots for partial results.
    pub max_partials: u32,
}

/// The most items that a step of `max_tokens` rows has.
pub fn max_items(max_tokens: usize, max_partials: usize) -> usize {
    max_tokens + max_partials
}

/// Makes the work list of a step, whose rows `sequences` names in order and without gaps. `items` and `splits` are
/// cleared and filled: the work list, the longest pieces first, and one entry per row. Their capacity has to suffice
/// ([`max_items`], rows): nothing is allocated. Returns how many slots of partial results are used, that is
/// `StepShape::attention_splits`.
pub fn plan(
    sequences: &[SequenceRows],
    options: &PlanOptions,
    items: &mut Vec<AttentionItem>,
    splits: &mut Vec<AttentionSplit>,
) -> u32 {
    items.clear();
    splits.clear();
    let (item_rows, work) = shape_of_work(sequences, options);
    // Above this a piece is worth splitting; one thread has nothing to balance.
    let large = work / (u64::from(options.workers.max(1)) * SPLIT_SHARE);
    let mut partials = 0;
    for sequence in sequences {
        assert_eq!(sequence.row as usize, splits.len(), "rows of sequences in order and without gaps");
        assert!((1..=sequence.kv_tokens).contains(&sequence.rows), "{} of {}", sequence.rows, sequence.kv_tokens);
        for range in ranges(sequence, item_rows) {
            let (chunks, slots) = (range.kv_tokens.div_ceil(CHUNK), range.rows * range.kv_tokens.div_ceil(CHUNK));
            let splits_up = options.workers > 1
                && chunks > 1
                && range_work(&range) > large
                && slots <= options.max_partials - partials;
            assert!(items.len() + if splits_up { chunks as usize } else { 1 } <= items.capacity(), "room for items");
            assert!(splits.len() + range.rows as usize <= splits.capacity(), "room for a split per row");
            let whole = AttentionItem {
                row: range.row,
                rows: range.rows,
                seq: range.seq,
                kv_first: 0,
                kv_count: range.kv_tokens,
                partial: NO_PARTIAL,
            };
            if splits_up {
                items.extend((0..chunks).map(|chunk| AttentionItem {
                    kv_first: chunk * CHUNK,
                    kv_count: CHUNK.min(range.kv_tokens - chunk * CHUNK),
                    partial: partials + chunk * range.rows,
                    ..whole
                }));
                splits.extend((0..range.rows).map(|row| AttentionSplit {
                    first: partials + row,
                    stride: range.rows,
                    count: (range.kv_tokens - (range.rows - 1 - row)).div_ceil(CHUNK),
                }));
                partials += slots;
            } else {
                items.push(whole);
                splits.extend((0..range.rows).map(|_| AttentionSplit::default()));
            }
        }
    }
    // A long piece that is taken last keeps the others waiting.
    items.sort_unstable_by_key(|item| (Reverse(piece_work(item.rows, item.kv_count)), item.row, item.kv_first));
    partials
}

/// How many rows an item has at most, and how much work there is, in chunk × row for all KV heads.
fn shape_of_work(sequences: &[SequenceRows], options: &PlanOptions) -> (u32, u64) {
    let enough = u64::from(options.workers * PIECES_PER_WORKER);
    let mut item_rows = MAX_ITEM_ROWS;
    while item_rows > MIN_ITEM_ROWS {
        let items: u64 = sequences.iter().map(|sequence| u64::from(sequence.rows.div_ceil(item_rows))).sum();
        if items * u64::from(options.kv_heads) >= enough {
            break;
        }
        item_rows /= 2;
    }
    let work: u64 = sequences.iter().flat_map(|s| ranges(s, item_rows)).map(|range| range_work(&range)).sum();
    (item_rows, work * u64::from(options.kv_heads))
}

/// A sequence's rows in ranges of `item_rows`.
fn ranges(sequence: &SequenceRows, item_rows: u32) -> impl Iterator<Item = SequenceRows> {
    let s = *sequence;
    (0..s.rows).step_by(item_rows as usize).map(move |first| {
        let rows = item_rows.min(s.rows - first);
        SequenceRows { row: s.row + first, rows, seq: s.seq, kv_tokens: s.kv_tokens - s.rows + first + rows }
    })
}

fn range_work(range: &SequenceRows) -> u64 {
    piece_work(range.rows, range.kv_tokens)
}

/// The time of a piece of work, in chunk × row.
fn piece_work(rows: u32, kv_tokens: u32) -> u64 {
    u64::from(kv_tokens.div_ceil(CHUNK)) * (READ_ROWS + u64::from(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[(u32, u32)], options: PlanOptions) -> (Vec<AttentionItem>, Vec<AttentionSplit>, u32) {
        let mut row = 0;
        let sequence = |(seq, &(rows, kv_tokens)): (usize, &(u32, u32))| {
            row += rows;
            SequenceRows { row: row - rows, rows, seq: seq as u32, kv_tokens }
        };
        let sequences: Vec<_> = sequences.iter().enumerate().map(sequence).collect();
        let mut items = Vec::with_capacity(max_items(row as usize, options.max_partials as usize));
        let mut splits = Vec::with_capacity(row as usize);
        let (items_at, splits_at) = (items.as_ptr(), splits.as_ptr());
        let partials = plan(&sequences, &options, &mut items, &mut splits);
        assert_eq!((items_at, splits_at), (items.as_ptr(), splits.as_ptr()), "nothing was allocated");
        check(&sequences, &items, &splits, partials, &options);
        (items, splits, partials)
    }

    /// Every position that a row sees is met once, partial slots are written once, and splits name those slots.
    fn check(
        sequences: &[SequenceRows],
        items: &[AttentionItem],
        splits: &[AttentionSplit],
        partials: u32,
        options: &PlanOptions,
    ) {
        assert!(partials <= options.max_partials);
        let mut slots = vec![None; partials as usize];
        for s in sequences {
            for row in s.row..s.row + s.rows {
                let position = s.kv_tokens - s.rows + (row - s.row);
                let mut seen = vec![0; position as usize + 1];
                for item in items.iter().filter(|item| (item.row..item.row + item.rows).contains(&row)) {
                    assert_eq!(item.seq, s.seq);
                    assert!(item.rows <= MAX_ITEM_ROWS && item.kv_first + item.kv_count <= s.kv_tokens);
                    let end = (item.kv_first + item.kv_count).min(position + 1);
                    (item.kv_first..end).for_each(|p| seen[p as usize] += 1);
                    if item.partial != NO_PARTIAL {
                        assert!(item.kv_first % CHUNK == 0 && item.kv_count <= CHUNK);
                        let slot = &mut slots[(item.partial + row - item.row) as usize];
                        assert_eq!(slot.replace((row, item.kv_first / CHUNK)), None, "a slot is one row's and chunk's");
                    }
                }
                assert!(seen.iter().all(|times| *times == 1), "row {row} meets its positions {seen:?} times");
            }
        }
        for (row, split) in splits.iter().enumerate() {
            for chunk in 0..split.count {
                assert_eq!(slots[(split.first + chunk * split.stride) as usize], Some((row as u32, chunk)));
            }
        }
    }

    const TWO: PlanOptions = PlanOptions { kv_heads: 3, workers: 2, max_partials: 1000 };

    #[test]
    fn an_empty_step_is_no_work() {
        let (items, splits, partials) = run(&[], TWO);
        assert_eq!((items.len(), splits.len(), partials), (0, 0, 0));
    }

    #[test]
    fn a_long_sequence_alone_is_split_by_chunks() {
        let (items, splits, partials) = run(&[(1, 1000)], TWO);
        assert_eq!((items.len(), partials), (4, 4));
        assert_eq!((splits[0].first, splits[0].stride, splits[0].count), (0, 1, 4));
    }

    #[test]
    fn no_split_where_it_cannot_help() {
        assert_eq!(run(&[(1, 1000)], PlanOptions { workers: 1, ..TWO }).2, 0, "one thread");
        assert_eq!(run(&[(1, 256)], TWO).2, 0, "one chunk");
        assert_eq!(run(&[(1, 600); 64], TWO).2, 0, "many sequences of one length");
        assert!(run(&[(1, 5000), (1, 30), (1, 30), (1, 30)], TWO).2 > 0, "one long among short ones");
    }

    #[test]
    fn partial_slots_are_bounded() {
        let (items, splits, partials) = run(&[(1, 1000), (1, 1000)], PlanOptions { max_partials: 5, ..TWO });
        assert_eq!((items.len(), partials, splits[0].count, splits[1].count), (5, 4, 4, 0));
        assert_eq!(run(&[(1, 1000)], PlanOptions { max_partials: 0, ..TWO }).2, 0);
    }

    #[test]
    fn every_shape_is_covered() {
        for workers in [1, 2, 3, 16] {
            for max_partials in [0, 3, 64, 4096] {
                let options = PlanOptions { kv_heads: 1, workers, max_partials };
                for rows in [1, 2, 3, 4, 5, 15, 16, 17, 33, 100] {
                    for before in [0, 1, 200, 250, 255, 256, 257, 700] {
                        run(&[(rows, before + rows), (1, 1), (rows, rows), (2, 257), (1, 513)], options);
                    }
                }
            }
        }
    }
}
