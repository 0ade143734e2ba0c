//! A ring on the writer's side: which place is next, and what is gone when a block has gone over another.

use std::collections::BTreeMap;

use super::CLOSING_BYTES;
use crate::trace::schema::GraphTable;
use crate::trace::session::{Closing, Overwritten, RecordedGraph};
use crate::trace::spool::{BLOCK_BYTES, Block, Packing, Record, Seam, graph_json_bytes, graph_places, read_records};

/// The fewest places: while a block goes over another, one is whole.
pub(super) const PLACES_MIN: u64 = 2;

/// How many places a file of so many bytes has, header and closing block apart.
pub(super) fn places(header_bytes: u64, max_bytes: u64) -> u64 {
    max_bytes.saturating_sub(header_bytes.saturating_add(CLOSING_BYTES)) / BLOCK_BYTES as u64
}

/// What graphs may take of a ring: it is theirs as long as the recording goes on.
#[derive(Debug)]
pub(super) struct GraphRoom {
    packing: Packing,
    left: u64,
    /// There was no room for one.
    is_reached: bool,
}

impl GraphRoom {
    /// All places but the fewest that a ring has.
    pub(super) fn of(places: u64) -> GraphRoom {
        GraphRoom { packing: Packing::default(), left: places.saturating_sub(PLACES_MIN), is_reached: false }
    }

    /// There was no room for one: there is none for the next.
    pub(super) fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// Takes the room of a graph, as the writer will; `false` if there is not so much.
    pub(super) fn take(&mut self, table: &GraphTable) -> bool {
        let mut packing = self.packing;
        let places = graph_json_bytes(table).map(|bytes| packing.put(bytes) as u64);
        match places.ok().and_then(|places| self.left.checked_sub(places)) {
            Some(left) => (self.packing, self.left) = (packing, left),
            None => self.is_reached = true,
        }
        !self.is_reached
    }
}

/// The places of a file, as they are written.
#[derive(Debug)]
pub(super) struct Ring {
    places_max: usize,
    places: Vec<Held>,
    last: usize,
    /// Where graphs are, the place of the last one, and the number of the next.
    packing: Packing,
    graph_place: u64,
    graph_sequence: u32,
    /// Of the next block.
    seam: Seam,
    /// The last replay and its graph.
    replay: Option<(u64, u32)>,
    /// What is not in the file any more.
    gone: BTreeMap<u32, Nodes>,
}

/// What stands in a place.
#[derive(Debug)]
enum Held {
    Graph,
    Records(Tally),
}

/// The replays and node times of a block, by graph.
#[derive(Debug, Default)]
struct Tally {
    seam: Seam,
    graphs: BTreeMap<u32, Nodes>,
    /// Those among them whose replay is in the block before.
    leading: Option<(u32, Nodes)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Nodes {
    replays: u64,
    valid: u64,
    invalid: u64,
}

impl Ring {
    pub(super) fn new(places_max: u64) -> Ring {
        Ring {
            places_max: usize::try_from(places_max).unwrap_or(usize::MAX),
            places: Vec::new(),
            last: 0,
            packing: Packing::default(),
            graph_place: 0,
            graph_sequence: 0,
            seam: Seam::default(),
            replay: None,
            gone: BTreeMap::new(),
        }
    }

    /// Bytes of the file that places take.
    pub(super) fn bytes(&self) -> u64 {
        self.places.len() as u64 * BLOCK_BYTES as u64
    }

    /// Takes the place of a block of records: where it begins, behind the file's header, and the block's seam.
    pub(super) fn take(&mut self, block: &Block) -> (u64, Seam) {
        let seam = self.seam;
        let tally = self.tally(block);
        (self.put(Held::Records(tally)), seam)
    }

    /// The blocks of a graph, each with where it begins.
    pub(super) fn take_for_graph(&mut self, table: &GraphTable) -> Result<Vec<(u64, Vec<u8>)>, serde_json::Error> {
        let rest = self.packing.rest() as u64;
        let blocks = graph_places(self.graph_sequence, table, &mut self.packing)?;
        self.graph_sequence += blocks.len() as u32;
        let place = |block: Vec<u8>| {
            if block.len() < BLOCK_BYTES {
                return (self.graph_place + BLOCK_BYTES as u64 - rest, block);
            }
            self.graph_place = self.put(Held::Graph);
            (self.graph_place, block)
        };
        Ok(blocks.into_iter().map(place).collect())
    }

    /// The next place: a new one, or that of the oldest records.
    fn put(&mut self, held: Held) -> u64 {
        let place = if self.places.len() < self.places_max { self.places.len() } else { self.oldest() };
        match self.places.get_mut(place) {
            Some(before) => {
                if let Held::Records(tally) = std::mem::replace(before, held) {
                    tally.graphs.into_iter().for_each(|(graph, nodes)| self.gone.entry(graph).or_default().add(nodes));
                }
            }
            None => self.places.push(held),
        }
        self.last = place;
        place as u64 * BLOCK_BYTES as u64
    }

    /// The place behind the last one that holds records; of a full ring the oldest.
    fn oldest(&self) -> usize {
        let count = self.places.len();
        let mut behind = (1..=count).map(|step| (self.last + step) % count);
        behind.find(|place| matches!(self.places[*place], Held::Records(_))).unwrap_or(0)
    }

    fn tally(&mut self, block: &Block) -> Tally {
        let mut tally = Tally { seam: self.seam, ..Tally::default() };
        let mut is_first = true;
        let (seam, last_replay) = (&mut self.seam, &mut self.replay);
        let mut names = |step: u64| seam.whole_from_step = seam.whole_from_step.max(step.saturating_add(1));
        read_records(block.records(), |record| match record {
            Record::Step(step) => names(step.step),
            Record::Member(member) => names(member.step),
            Record::Span(span) => names(span.step),
            Record::Replay(replay) => {
                names(replay.step);
                is_first = false;
                *last_replay = Some((replay.replay, replay.graph));
                tally.graphs.entry(replay.graph).or_default().replays += 1;
            }
            Record::Nodes { replay, stamps, .. } => {
                let Some((_, graph)) = last_replay.filter(|(last, _)| *last == replay) else { return };
                let valid = stamps.iter().filter(|stamp| stamp.is_valid()).count() as u64;
                let nodes = Nodes { replays: 0, valid, invalid: stamps.len() as u64 - valid };
                tally.graphs.entry(graph).or_default().add(nodes);
                if is_first {
                    tally.leading.get_or_insert((graph, Nodes::default())).1.add(nodes);
                }
            }
            Record::Request(_) | Record::Name { .. } | Record::Activity(_) | Record::Graph(_) | Record::Closing(_) => {}
        });
        self.seam.before += block.counts();
        tally
    }

    /// Makes the counts of all that was recorded those of what is in the file, and of what is gone.
    pub(super) fn settle(&mut self, closing: &mut Closing) {
        let is_full = self.places.len() >= self.places_max;
        let Some(Held::Records(oldest)) = self.places.get(self.oldest()).filter(|_| is_full) else { return };
        let Seam { before: mut records, whole_from_step } = oldest.seam;
        if records.total() == 0 {
            return;
        }
        if let Some((graph, nodes)) = oldest.leading {
            records.nodes += nodes.valid + nodes.invalid;
            self.gone.entry(graph).or_default().add(nodes);
        }
        closing.limit_reached = true;
        closing.written = closing.written.without(&records);
        closing.overwritten = Some(Overwritten { records, whole_from_step });
        for recorded in &mut closing.graphs {
            self.gone.get(&recorded.graph).copied().unwrap_or_default().take_from(recorded);
        }
    }
}

impl Nodes {
    fn add(&mut self, other: Nodes) {
        self.replays += other.replays;
        self.valid += other.valid;
        self.invalid += other.invalid;
    }

    fn take_from(self, recorded: &mut RecordedGraph) {
        recorded.received = recorded.received.saturating_sub(self.valid);
        recorded.invalid = recorded.invalid.saturating_sub(self.invalid);
        recorded.overwritten = self.valid + self.invalid;
        recorded.overwritten_replays = self.replays;
    }
}
