//! Copies and fills on the device: those that the driver's profiling library saw; of steps that it was not to see, the
//! upload and the download that the device stamped.

use std::collections::HashMap;

use super::layout::Layout;
use super::{DeviceCopy, Recording};
use crate::trace::activity::CopyKind;

/// A copy or fill, and what asked for it.
pub(super) struct CopySlice {
    pub(super) kind: CopyKind,
    /// Of the launch that asked for it, or of the replay that is next to it.
    pub(super) correlation: u64,
    /// Known of those that the device stamped.
    pub(super) step: Option<u64>,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) bytes: u64,
}

/// Every copy that has a launch in the file, by begin.
pub(super) fn by_start(recording: &Recording, layout: &Layout) -> Vec<CopySlice> {
    let seen = recording.seen.copies.iter().filter_map(|copy| seen_copy(recording, copy, layout));
    let mut copies: Vec<CopySlice> = seen.chain(stamped_copies(recording, layout)).collect();
    copies.sort_by_key(|copy| copy.start_ns);
    copies
}

fn seen_copy(recording: &Recording, copy: &DeviceCopy, layout: &Layout) -> Option<CopySlice> {
    let record = &copy.record;
    Some(CopySlice {
        kind: record.kind,
        correlation: layout.call_correlation(&recording.seen.calls[copy.call? as usize], recording),
        step: None,
        start_ns: record.start_ns,
        end_ns: record.end_ns,
        bytes: record.bytes,
    })
}

/// The stamped copies of steps that have replays, without which nothing launched them.
fn stamped_copies(recording: &Recording, layout: &Layout) -> impl Iterator<Item = CopySlice> {
    let mut replays_of: HashMap<u64, (u64, u64)> = HashMap::new();
    for replay in recording.replays.iter().filter(|replay| !replay.nodes.is_empty()) {
        let number = replay.record.replay;
        let (first, last) = replays_of.entry(replay.record.step).or_insert((number, number));
        (*first, *last) = ((*first).min(number), (*last).max(number));
    }
    recording.stamped_copies().filter_map(move |(step, kind, stamp)| {
        let (first, last) = *replays_of.get(&step.step)?;
        Some(CopySlice {
            kind,
            correlation: layout.correlation(if kind == CopyKind::HtoD { first } else { last }),
            step: Some(step.step),
            start_ns: stamp.start_ns,
            end_ns: stamp.end_ns,
            bytes: stamp.bytes,
        })
    })
}
