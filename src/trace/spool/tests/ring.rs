//! Rings against cuts, tears, damage and any bytes at all, with a writer of a few lines that shares nothing with the
//! recorder's but the bytes of a block.

use super::*;
use crate::trace::session::Counts;

/// A file as a ring's writer leaves it.
struct Ring {
    header: Vec<u8>,
    places_max: usize,
    /// Each with what the block is of: a number of records, or `None`: it stays.
    places: Vec<(Option<u64>, Vec<u8>)>,
    last: usize,
    sequence: u32,
    graph_sequence: u32,
    packing: Packing,
    /// Where graphs begin behind others.
    packed: Vec<usize>,
    seam: Seam,
}

impl Ring {
    fn new(places_max: u64) -> Ring {
        let header = file_header(&SpoolHeader { ring: Some(places_max), ..header() }).expect("a header");
        let places_max = places_max as usize;
        Ring {
            header,
            places_max,
            places: Vec::new(),
            last: 0,
            sequence: 0,
            graph_sequence: 0,
            packing: Packing::default(),
            packed: Vec::new(),
            seam: Seam::default(),
        }
    }

    fn due(&self) -> usize {
        let count = self.places.len();
        let mut behind = (1..=count).map(|step| (self.last + step) % count.max(1));
        let oldest = behind.find(|place| self.places[*place].0.is_some());
        if count < self.places_max { count } else { oldest.expect("a place of records") }
    }

    fn put(&mut self, of: Option<u64>, block: Vec<u8>) {
        assert_eq!(block.len(), BLOCK_BYTES);
        self.last = self.due();
        match self.places.get_mut(self.last) {
            Some(place) => *place = (of, block),
            None => self.places.push((of, block)),
        }
    }

    fn records(&mut self) {
        let mut block = Block::with_seam();
        let base = 100 * u64::from(self.sequence + 1);
        fill(&mut block, base);
        let sealed = block.seal_in_place(self.sequence, &self.seam).to_vec();
        self.put(Some(base), sealed);
        self.sequence += 1;
        self.seam.before += block.counts();
        self.seam.whole_from_step = base + 1;
    }

    fn graph(&mut self, nodes: usize) {
        let table = table(2, nodes);
        let (packing, rest) = (self.packing, self.packing.rest());
        let blocks = graph_places(self.graph_sequence, &table, &mut self.packing).expect("a graph");
        self.graph_sequence += blocks.len() as u32;
        let places = packing.clone().put(graph_json_bytes(&table).expect("JSON"));
        assert_eq!(places, blocks.iter().filter(|block| block.len() == BLOCK_BYTES).count());
        if places > 0 {
            return blocks.into_iter().for_each(|block| self.put(None, block));
        }
        let last = self.places.iter().rposition(|(of, _)| of.is_none()).expect("a place of graphs");
        let at = BLOCK_BYTES - rest;
        self.places[last].1[at..at + blocks[0].len()].copy_from_slice(&blocks[0]);
        self.packed.push(self.begin(last) + at);
    }

    fn open_bytes(&self) -> Vec<u8> {
        let places = self.places.iter().flat_map(|(_, block)| block);
        self.header.iter().chain(places).copied().collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let closing = Closing { limit_reached: true, ..Closing::default() };
        [self.open_bytes(), closing_block(self.sequence, &closing).expect("the counts")].concat()
    }

    fn begin(&self, place: usize) -> usize {
        self.header.len() + place * BLOCK_BYTES
    }

    /// The steps of its blocks, the oldest first.
    fn steps(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self.places.iter().filter_map(|(of, _)| *of).collect();
        steps.sort_unstable();
        steps
    }

    /// Positions of a file that are worth a look: all that is not padding, and some of that.
    fn positions(&self, end: usize) -> Vec<usize> {
        let begin = self.header.len();
        let is_edge = |at: usize| (at - begin) % BLOCK_BYTES < 500 || (at - begin) % BLOCK_BYTES > BLOCK_BYTES - 3;
        let is_packed = |at: usize| self.packed.iter().any(|packed| (packed - 30..packed + 80).contains(&at));
        let is_end = |at: usize| at >= self.begin(self.places.len());
        (begin..end).filter(|at| is_edge(*at) || is_packed(*at) || is_end(*at) || at % 8191 == 0).collect()
    }

    /// Where the block begins that a position is in, or behind.
    fn block_at(&self, at: usize) -> usize {
        let places = (0..=self.places.len()).map(|place| self.begin(place));
        places.chain(self.packed.iter().copied()).filter(|begin| *begin <= at).max().expect("behind the header")
    }
}

/// A ring that has gone round more than twice, with a graph of two blocks in its middle and a small one behind it.
fn gone_round() -> Ring {
    let mut ring = Ring::new(6);
    (0..2).for_each(|_| ring.records());
    ring.graph(400);
    (0..7).for_each(|_| ring.records());
    ring.graph(5);
    (0..4).for_each(|_| ring.records());
    ring
}

/// A ring that has places left.
fn growing() -> Ring {
    let mut ring = Ring::new(6);
    (0..2).for_each(|_| ring.records());
    ring.graph(5);
    ring.graph(5);
    ring.records();
    ring
}

/// The steps read, and whether it was cut off.
fn steps_of(bytes: &[u8]) -> Result<(Vec<u64>, bool), SpoolError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let (mut steps, mut graphs, mut closings) = (Vec::new(), 0, 0);
    while let Some(record) = reader.read()? {
        match record {
            Record::Step(step) => steps.push(step.step),
            Record::Graph(graph) => graphs += graph.nodes.len(),
            Record::Closing(_) => closings += 1,
            _ => {}
        }
    }
    assert!(reader.read()?.is_none(), "the end stays the end");
    assert_eq!(reader.truncated(), closings == 0);
    assert!([0, 5, 10, 15, 400, 405, 410, 805].contains(&graphs), "{graphs} nodes");
    Ok((steps, reader.truncated()))
}

#[test]
fn the_last_blocks_are_read_in_order_and_the_first_says_what_was_before() {
    let ring = gone_round();
    assert_eq!(ring.places.iter().filter(|(of, _)| of.is_none()).count(), 2, "the graph's blocks stay");
    let bytes = ring.bytes();
    let mut reader = Reader::new(Cursor::new(&bytes)).expect("a spool");
    assert_eq!(reader.header().ring, Some(6));
    assert!(matches!(reader.read().expect("a record"), Some(Record::Graph(table)) if table.nodes.len() == 400));
    assert!(matches!(reader.read().expect("a record"), Some(Record::Graph(table)) if table.nodes.len() == 5));
    assert!(matches!(reader.read().expect("a record"), Some(Record::Step(step)) if step.step == 1000));
    let seam = *reader.seam().expect("a block of records");
    // Thirteen blocks of records, of which four are left.
    let counts = Counts { steps: 9, members: 9, spans: 9, requests: 9, replays: 9, nodes: 18, activity: 0 };
    assert_eq!(seam, Seam { before: counts, whole_from_step: 901 });
    assert_eq!(steps_of(&bytes).expect("a spool"), (vec![1000, 1100, 1200, 1300], false));
    assert_eq!(steps_of(&growing().bytes()).expect("a spool"), (vec![100, 200, 300], false));
    assert_eq!(steps_of(&Ring::new(4).bytes()).expect("nothing recorded"), (vec![], false));
    for blocks in 1..20 {
        let mut ring = Ring::new(5);
        (0..blocks).for_each(|_| ring.records());
        let first = (blocks + 1_u64).saturating_sub(5).max(1);
        let expected: Vec<u64> = (first..=blocks).map(|number| 100 * number).collect();
        assert_eq!(steps_of(&ring.bytes()).expect("a spool"), (expected.clone(), false));
        assert_eq!(steps_of(&ring.open_bytes()).expect("a spool"), (expected, true));
    }
}

#[test]
fn a_growing_ring_that_is_cut_is_read_up_to_its_last_whole_block() {
    let ring = growing();
    let (bytes, steps) = (ring.bytes(), ring.steps());
    for cut in ring.positions(bytes.len()) {
        let (found, truncated) = steps_of(&bytes[..cut]).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert!(truncated, "cut at {cut}");
        // Behind the content of a block nothing is lost but zeros.
        let (whole, rest) = ((cut - ring.header.len()) / BLOCK_BYTES, (cut - ring.header.len()) % BLOCK_BYTES);
        let certain = ring.places[..whole].iter().filter(|(of, _)| of.is_some()).count();
        let last = usize::from(rest > 900 && ring.places.get(whole).is_some_and(|(of, _)| of.is_some()));
        assert!(found.len() == certain + last || (rest > 300 && found.len() == certain + 1), "cut at {cut}: {found:?}");
        assert_eq!(found, steps[..found.len()], "cut at {cut}");
    }
}

#[test]
fn a_ring_that_has_gone_round_and_is_cut_is_damaged_up_to_its_last_place() {
    let ring = gone_round();
    let bytes = ring.bytes();
    for cut in ring.positions(bytes.len()) {
        match steps_of(&bytes[..cut]) {
            Ok((steps, true)) if steps.is_empty() => assert!(cut < ring.begin(0) + BLOCK_HEADER_BYTES, "cut at {cut}"),
            // The closing block is cut; or the last place's, in its zeros.
            Ok(found) => {
                assert!(cut > ring.begin(5) + 300, "cut at {cut}");
                assert_eq!(found, (ring.steps(), true), "cut at {cut}");
            }
            Err(SpoolError::Damaged { damage: Damage::Short, .. }) => assert!(cut < ring.begin(6), "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
}

/// What a process that is killed leaves of a block: its begin, and behind it what was there before.
#[test]
fn a_torn_block_loses_itself_alone_and_is_said() {
    let before = gone_round();
    let mut after = gone_round();
    after.records();
    let (place, at) = (after.last, after.begin(after.last));
    assert_eq!(place, before.due());
    let survivors = before.steps()[1..].to_vec();
    let whole = after.places[place].1.iter().rposition(|byte| *byte != 0).expect("a block") + 1;
    for written in (0..900).chain([5000, BLOCK_BYTES - 1, BLOCK_BYTES]) {
        let mut bytes = before.open_bytes();
        bytes[at..at + written].copy_from_slice(&after.places[place].1[..written]);
        let found = steps_of(&bytes).unwrap_or_else(|error| panic!("{written} bytes: {error}"));
        let is_old = after.places[place].1[..written] == before.places[place].1[..written];
        match found.0.len() {
            4 if is_old => assert_eq!(found, (before.steps(), true), "{written} bytes"),
            4 => assert_eq!(found, (after.steps(), true), "{written} of {whole} bytes"),
            _ => assert_eq!(found, (survivors.clone(), true), "{written} bytes"),
        }
        assert!(written < whole || found.0 == after.steps(), "{written} of {whole} bytes");
    }
    // The same in the file's only two places.
    let mut small = Ring::new(2);
    (0..5).for_each(|_| small.records());
    let mut bytes = small.open_bytes();
    let at = small.begin(small.due());
    bytes[at..at + 30].fill(7);
    assert_eq!(steps_of(&bytes).expect("one is whole"), (vec![500], true));
}

#[test]
fn damage_of_a_ring_is_an_error_with_its_offset() {
    for ring in [gone_round(), growing()] {
        let bytes = ring.bytes();
        for at in ring.positions(bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            match steps_of(&damaged) {
                Err(SpoolError::Damaged { offset, .. }) => {
                    // In zeros behind a graph no block begins.
                    let range = ring.block_at(at) as u64..=at as u64;
                    assert!(range.contains(&offset), "damaged at {at}: {offset}");
                    let is_graph = ring.places.get((at - ring.header.len()) / BLOCK_BYTES);
                    let is_graph = is_graph.is_some_and(|(of, _)| of.is_none());
                    assert!(is_graph || offset == *range.start(), "damaged at {at}: {offset}");
                }
                other => panic!("damaged at {at}: {other:?}"),
            }
        }
        assert!(matches!(
            steps_of(&[bytes.as_slice(), &[0]].concat()),
            Err(SpoolError::Damaged { damage: Damage::Trailing, .. })
        ));
    }
    // Without its closing block, all but the block that was being written.
    let ring = gone_round();
    let bytes = ring.open_bytes();
    for place in 0..6 {
        for at in [ring.begin(place) + 5, ring.begin(place) + 100] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            // The newest, the one due next by its header, and the last graph, of which this is not the begin.
            let is_torn = place == ring.last || (place == ring.due() && at == ring.begin(place) + 5);
            match steps_of(&damaged) {
                Ok((steps, true)) => assert!(is_torn && steps.len() == 3, "damaged at {at}: {steps:?}"),
                Err(SpoolError::Damaged { .. }) => assert!(!is_torn, "damaged at {at}"),
                other => panic!("damaged at {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn blocks_in_wrong_places_and_numbers_are_refused() {
    let ring = gone_round();
    let swapped = |a: usize, b: usize| {
        let mut ring = gone_round();
        ring.places.swap(a, b);
        steps_of(&ring.bytes())
    };
    let records: Vec<usize> = (0..6).filter(|place| ring.places[*place].0.is_some()).collect();
    for pair in records.windows(2) {
        let found = swapped(pair[0], pair[1]);
        assert!(matches!(found, Err(SpoolError::Damaged { damage: Damage::Place, .. })), "{pair:?}: {found:?}");
    }
    let mut twice = gone_round();
    twice.places[records[0]] = twice.places[records[1]].clone();
    let found = steps_of(&twice.bytes());
    assert!(matches!(found, Err(SpoolError::Damaged { damage: Damage::Sequence { .. }, .. })), "{found:?}");
    // More places than the header says.
    let mut more = gone_round();
    more.header = Ring::new(5).header;
    let found = steps_of(&more.bytes());
    assert!(matches!(found, Err(SpoolError::Damaged { damage: Damage::Places { places: 5 }, .. })), "{found:?}");
    // A graph whose second block is another's.
    let mut halves = gone_round();
    let parts: Vec<usize> = (0..6).filter(|place| halves.places[*place].0.is_none()).collect();
    let other = graph_places(1, &table(3, 5), &mut Packing::default()).expect("a graph").remove(0);
    halves.places[parts[1]].1 = other;
    assert!(matches!(steps_of(&halves.bytes()), Err(SpoolError::Damaged { damage: Damage::Content, .. })));
    // One that is missing, or is in the place of records.
    let mut missing = gone_round();
    missing.places[parts[0]] = missing.places[records[0]].clone();
    assert!(matches!(steps_of(&missing.bytes()), Err(SpoolError::Damaged { .. })));
}

#[test]
fn a_graph_that_was_being_written_is_left_out_and_nothing_else() {
    for (mut ring, nodes) in [(gone_round(), 400), (gone_round(), 5), (growing(), 400), (growing(), 5)] {
        let (before, steps) = (ring.open_bytes(), ring.steps());
        ring.graph(nodes);
        let after = ring.open_bytes();
        let from = before.iter().zip(&after).position(|(a, b)| a != b).unwrap_or(before.len());
        let end = after.iter().rposition(|byte| *byte != 0).expect("a block") + 1;
        for written in (from..after.len()).filter(|at| at - from < 300 || at % 4099 == 0) {
            // In the middle of the file the rest is as it was; at its end there is none.
            let rest = if written < before.len() { &before[written..] } else { &[] };
            let bytes = [&after[..written], rest].concat();
            let (found, truncated) = steps_of(&bytes).unwrap_or_else(|error| panic!("{written} of {end}: {error}"));
            assert!(truncated, "{written} of {end}");
            // A whole place may have been of the oldest records.
            let survivors = &steps[steps.len() - found.len()..];
            assert!(found == survivors && found.len() + 2 >= steps.len(), "{written} of {end}: {found:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_behind_a_rings_header_make_the_reader_panic(
        places in prop_oneof![0u64..8, Just(u64::MAX)],
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        cut in any::<prop::sample::Index>(),
        keep in any::<bool>(),
    ) {
        let mut ring = gone_round();
        ring.header = Ring::new(places).header;
        let mut bytes = ring.bytes();
        let near: Vec<usize> = ring.positions(bytes.len());
        for (at, byte) in edits {
            bytes[near[at.index(near.len())]] = byte;
        }
        let length = if keep { bytes.len() } else { near[cut.index(near.len())] };
        let _ = read_all(&bytes[..length]);
    }

    #[test]
    fn no_heads_of_a_ring_make_the_reader_panic(
        heads in prop::collection::vec((1u32..5, 0u32..9, prop::collection::vec(any::<u8>(), 1..200)), 0..8),
        places in 0u64..8,
    ) {
        // Right by their checksums.
        let mut bytes = Ring::new(places).header;
        for (kind, sequence, payload) in heads {
            let mut block = BLOCK_MAGIC.to_vec();
            for word in [kind, sequence, payload.len() as u32, crc32(&payload)] {
                block.extend_from_slice(&word.to_le_bytes());
            }
            block.extend_from_slice(&crc32(&block).to_le_bytes());
            block.extend_from_slice(&payload);
            block.resize(BLOCK_BYTES, 0);
            bytes.extend_from_slice(&block);
        }
        let _ = read_all(&bytes);
    }
}
