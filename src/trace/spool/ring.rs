//! Rings: what a block says of those before it, and in which order the places of a file are read.

use std::io::{Read, Seek, SeekFrom};

use super::head::Head;
use super::reader::read_up_to;
use super::wire::{Decoder, Encoder};
use super::{BLOCK_BYTES, BLOCK_HEADER_BYTES, BlockKind, Damage, PLACE_JSON_BYTES, SpoolError};
use crate::trace::session::Counts;

/// Where a ring's block of records joins those before it, which may be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seam {
    /// All records before the block.
    pub before: Counts,
    /// No record before the block names this step or a later one.
    pub whole_from_step: u64,
}

impl Seam {
    pub(super) const BYTES: usize = 8 * 8;

    pub(super) fn put(&self, out: &mut Encoder<'_>) {
        let Counts { steps, members, spans, requests, replays, nodes, activity } = self.before;
        for value in [steps, members, spans, requests, replays, nodes, activity, self.whole_from_step] {
            out.put_u64(value);
        }
    }

    pub(super) fn take(from: &mut Decoder<'_>) -> Option<Seam> {
        let before = Counts {
            steps: from.take_u64()?,
            members: from.take_u64()?,
            spans: from.take_u64()?,
            requests: from.take_u64()?,
            replays: from.take_u64()?,
            nodes: from.take_u64()?,
            activity: from.take_u64()?,
        };
        Some(Seam { before, whole_from_step: from.take_u64()? })
    }
}

/// How graphs share places: one goes behind another where there is room, and has places of its own otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packing {
    rest: usize,
}

impl Packing {
    /// Packs a graph of so many bytes of JSON: how many new places it takes, none if it goes behind the last one.
    pub fn put(&mut self, json_bytes: usize) -> usize {
        if BLOCK_HEADER_BYTES + json_bytes <= self.rest {
            self.rest -= BLOCK_HEADER_BYTES + json_bytes;
            return 0;
        }
        let places = json_bytes.div_ceil(PLACE_JSON_BYTES);
        self.rest = places * PLACE_JSON_BYTES - json_bytes;
        places
    }

    /// Bytes left in the last place that has a graph.
    pub fn rest(&self) -> usize {
        self.rest
    }
}

/// A block where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) at: u64,
    pub(super) head: Head,
    /// So many zeros come behind it.
    pub(super) zeros: usize,
    /// The file may end inside it.
    pub(super) may_be_cut: bool,
    /// It may be half of what stood there before.
    pub(super) may_be_torn: bool,
}

/// What stands in a place.
#[derive(Clone, Copy, Debug)]
enum Found {
    Records(Placed),
    Graphs,
    Nothing(Damage),
}

/// All that the places of a file hold.
struct Scan {
    found: Vec<Found>,
    graphs: Vec<Placed>,
    /// Behind a graph, where something stands that is no block.
    torn_graphs: Vec<(u64, Damage)>,
    closing: Option<Placed>,
    /// Where the closing block is, or should be.
    end: u64,
}

/// The blocks of a ring: graphs, records and the closing block, each kind in the order of its numbers.
pub(super) fn in_order<R: Read + Seek>(source: &mut R, begin: u64, places: u64) -> Result<Vec<Placed>, SpoolError> {
    let Scan { found, graphs: mut blocks, torn_graphs, closing, end } = scan(source, begin, places)?;
    let (is_open, is_full) = (closing.is_none(), found.len() as u64 == places);
    let records = found.iter().enumerate().filter_map(|(place, found)| match found {
        Found::Records(block) => Some((place, *block)),
        _ => None,
    });
    let mut records: Vec<(usize, Placed)> = records.collect();
    records.sort_by_key(|(_, block)| block.head.sequence);
    blocks.sort_by_key(|block| block.head.sequence);
    let is_gone_round = records.first().is_some_and(|(_, first)| first.head.sequence > 0);
    // What was being written when the process ended is the block behind the newest, or behind the last graph.
    let before = records.last().map_or(found.len().saturating_sub(1), |(newest, _)| *newest);
    let due = place_behind(before, &found);
    for (place, found) in found.iter().enumerate() {
        if let Found::Nothing(damage) = *found
            && !(is_open && is_full && place == due)
        {
            let offset = begin + place as u64 * BLOCK_BYTES as u64;
            return Err(SpoolError::Damaged { offset, damage });
        }
    }
    let last_graph = blocks.last().map_or(0, |last| last.at);
    let is_behind_last = |at: u64| at.checked_sub(last_graph).is_some_and(|bytes| bytes < BLOCK_BYTES as u64);
    if let Some((offset, damage)) = torn_graphs.into_iter().find(|(at, _)| !(is_open && is_behind_last(*at))) {
        return Err(SpoolError::Damaged { offset, damage });
    }
    if is_gone_round && !is_full {
        return Err(SpoolError::Damaged { offset: end, damage: Damage::Short });
    }
    for (at, graph) in blocks.iter().enumerate() {
        check_number(graph, at as u32)?;
    }
    check_records(&records, &found)?;
    if let Some(last) = blocks.last_mut() {
        (last.may_be_cut, last.may_be_torn) = (is_open, is_open);
    }
    blocks.extend(records.iter().map(|(_, block)| *block));
    let newest = records.last().map(|(_, newest)| newest.head.sequence);
    if let Some(closing) = closing {
        check_number(&closing, newest.map_or(0, |newest| newest.wrapping_add(1)))?;
        blocks.push(closing);
    } else if let Some(last) = blocks.last_mut().filter(|_| newest.is_some()) {
        (last.may_be_cut, last.may_be_torn) = (true, is_gone_round);
    }
    Ok(blocks)
}

/// Looks at every place up to the file's end or to its closing block.
fn scan<R: Read + Seek>(source: &mut R, begin: u64, places: u64) -> Result<Scan, SpoolError> {
    let mut scan = Scan { found: Vec::new(), graphs: Vec::new(), torn_graphs: Vec::new(), closing: None, end: begin };
    loop {
        let at = scan.end;
        let Some(head) = read_head(source, at)? else { return Ok(scan) };
        let placed = |head: Head, zeros| Placed { at, head, zeros, may_be_cut: false, may_be_torn: false };
        if let Ok(head) = head
            && head.kind == BlockKind::Closing
        {
            scan.closing = Some(Placed { may_be_cut: true, ..placed(head, 0) });
            return Ok(scan);
        }
        if scan.found.len() as u64 >= places {
            return Err(SpoolError::Damaged { offset: at, damage: head.err().unwrap_or(Damage::Places { places }) });
        }
        let found = match head {
            Ok(head) if head.is_graph() => {
                scan_graphs(source, placed(head, 0), &mut scan)?;
                Found::Graphs
            }
            Ok(head) => Found::Records(placed(head, PLACE_JSON_BYTES - head.bytes)),
            Err(damage) => Found::Nothing(damage),
        };
        scan.found.push(found);
        scan.end = at.saturating_add(BLOCK_BYTES as u64);
    }
}

/// The graphs that share a place with the first one.
fn scan_graphs<R: Read + Seek>(source: &mut R, first: Placed, scan: &mut Scan) -> Result<(), SpoolError> {
    let end = first.at.saturating_add(BLOCK_BYTES as u64);
    let mut graph = first;
    loop {
        let behind = graph.at.saturating_add((BLOCK_HEADER_BYTES + graph.head.bytes) as u64);
        let Some(rest) = end.checked_sub(behind) else {
            let damage = Damage::Length { bytes: graph.head.bytes as u32 };
            return Err(SpoolError::Damaged { offset: graph.at, damage });
        };
        let has_next = rest >= BLOCK_HEADER_BYTES as u64;
        let next = if has_next { read_head(source, behind)? } else { None };
        match next {
            Some(Ok(head)) if head.is_graph() => {
                scan.graphs.push(graph);
                graph = Placed { at: behind, head, ..first };
            }
            Some(Ok(head)) => {
                let damage = Damage::Kind { kind: head.kind as u32 };
                return Err(SpoolError::Damaged { offset: behind, damage });
            }
            Some(Err(damage)) if damage != Damage::Empty => {
                scan.graphs.push(graph);
                scan.torn_graphs.push((behind, damage));
                return Ok(());
            }
            Some(Err(_)) | None => {
                scan.graphs.push(Placed { zeros: rest as usize, ..graph });
                return Ok(());
            }
        }
    }
}

/// `None` if the file ends before or inside it.
fn read_head<R: Read + Seek>(source: &mut R, at: u64) -> Result<Option<Result<Head, Damage>>, SpoolError> {
    let mut bytes = Vec::with_capacity(BLOCK_HEADER_BYTES);
    source.seek(SeekFrom::Start(at)).map_err(|source| SpoolError::Read { offset: at, source })?;
    read_up_to(source, at, BLOCK_HEADER_BYTES, &mut bytes)?;
    Ok(bytes.first_chunk().map(|header| Head::parse(header, true)))
}

/// The next place, around the ring, that holds no graphs; itself if there is no other.
fn place_behind(place: usize, found: &[Found]) -> usize {
    let mut behind = (1..found.len()).map(|step| (place + step) % found.len());
    behind.find(|place| !matches!(found[*place], Found::Graphs)).unwrap_or(place)
}

/// From the oldest block of records on every one is there, each in the place behind the one before it.
fn check_records(records: &[(usize, Placed)], found: &[Found]) -> Result<(), SpoolError> {
    let wrong = |block: &Placed| SpoolError::Damaged { offset: block.at, damage: Damage::Place };
    let begin = found.iter().position(|found| !matches!(found, Found::Graphs));
    if let Some((place, first)) = records.first()
        && first.head.sequence == 0
        && begin != Some(*place)
    {
        return Err(wrong(first));
    }
    for pair in records.windows(2) {
        let [(place, block), (next_place, next)] = pair else { continue };
        check_number(next, block.head.sequence.wrapping_add(1))?;
        if place_behind(*place, found) != *next_place {
            return Err(wrong(next));
        }
    }
    Ok(())
}

fn check_number(block: &Placed, expected: u32) -> Result<(), SpoolError> {
    let found = block.head.sequence;
    let damage = Damage::Sequence { expected, found };
    if found == expected { Ok(()) } else { Err(SpoolError::Damaged { offset: block.at, damage }) }
}
