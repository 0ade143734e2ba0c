//! Copies and fills on the device's lanes: those that the driver's profiling library saw; of steps that it was not to
//! see, the upload and the download that the device stamped.

use std::collections::HashMap;
use std::io::{self, Write};

use super::calls::correlation;
use super::json::{Events, Json};
use super::lanes::Lanes;
use super::layout::Layout;
use super::nodes::{node_tid, write_flow_end};
use crate::report::{DeviceCopy, Recording};
use crate::trace::activity::CopyKind;

/// A copy or fill in the words of PyTorch's tools.
pub(in crate::report) struct CopySlice {
    pub(in crate::report) kind: CopyKind,
    /// Of the launch that asked for it, or of the replay that is next to it.
    pub(in crate::report) correlation: u64,
    /// Known of those that the device stamped.
    pub(in crate::report) step: Option<u64>,
    pub(in crate::report) start_ns: u64,
    pub(in crate::report) end_ns: u64,
    pub(in crate::report) bytes: u64,
}

/// Every copy that has a launch in the file, by begin.
pub(in crate::report) fn by_start(recording: &Recording, layout: &Layout) -> Vec<CopySlice> {
    let seen = recording.seen.copies.iter().filter_map(|copy| seen_copy(recording, copy, layout));
    let mut copies: Vec<CopySlice> = seen.chain(stamped_copies(recording, layout)).collect();
    copies.sort_by_key(|copy| copy.start_ns);
    copies
}

fn seen_copy(recording: &Recording, copy: &DeviceCopy, layout: &Layout) -> Option<CopySlice> {
    let record = &copy.record;
    Some(CopySlice {
        kind: record.kind,
        correlation: correlation(recording, &recording.seen.calls[copy.call? as usize], layout),
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

/// Writes a copy, and the end of the arrow from its launch.
pub(super) fn write<W: Write>(
    copy: &CopySlice,
    layout: &Layout,
    lanes: &mut Lanes,
    events: &mut Events<W>,
) -> io::Result<()> {
    let (category, name) = match copy.kind {
        CopyKind::HtoD => ("gpu_memcpy", "Memcpy HtoD"),
        CopyKind::DtoH => ("gpu_memcpy", "Memcpy DtoH"),
        CopyKind::DtoD => ("gpu_memcpy", "Memcpy DtoD"),
        CopyKind::Other => ("gpu_memcpy", "Memcpy Unknown"),
        CopyKind::Fill => ("gpu_memset", "Memset (Device)"),
    };
    let ns = copy.end_ns - copy.start_ns;
    let tid = node_tid(lanes, copy.start_ns, copy.end_ns);
    let out = events.event()?;
    out.raw(r#"{"ph":"X","cat":"#).string(category).raw(r#","name":"#).string(name);
    out.raw(r#","pid":"#).int(layout.pids.device).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":"#).us(layout.at(copy.start_ns)).raw(r#","dur":"#).us(ns);
    out.raw(r#","args":{"device":"#).int(layout.device).raw(r#","context":1,"stream":"#).int(layout.stream);
    out.raw(r#","correlation":"#).int(copy.correlation);
    if let Some(step) = copy.step {
        out.raw(r#","step":"#).int(step);
    }
    out.raw(r#","bytes":"#).int(copy.bytes);
    if ns > 0 {
        // Bytes for each nanosecond.
        out.raw(r#","memory bandwidth (GB/s)":"#).raw(&(copy.bytes as f64 / ns as f64).to_string());
    }
    out.raw("}}");
    write_flow_end(copy.correlation, (layout.pids.device, tid), layout.at(copy.start_ns), events.event()?);
    Ok(())
}
