//! Calls of the driver that launch something or wait, and what the profiling library took for itself.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::engine::{HostSlice, write_slice};
use super::events::Events;
use super::host::{name_lane, name_process};
use super::lanes::{CALL_LANES_TID, ENGINE_OVERLAP_TID, Lanes, Nesting};
use crate::report::Recording;
use crate::report::json::Json;
use crate::report::layout::Layout;

/// For each call, whether a copy in the file is its.
pub(super) fn has_copies(recording: &Recording) -> Vec<bool> {
    let mut found = vec![false; recording.seen.calls.len()];
    for call in recording.seen.copies.iter().filter_map(|copy| copy.call) {
        found[call as usize] = true;
    }
    found
}

/// Calls on threads that are not the engine's, each thread on a lane of its own.
#[derive(Debug)]
pub(super) struct OtherThreads {
    threads: BTreeMap<u32, Thread>,
    spare_tid: u64,
}

/// Its lanes, and their tids.
#[derive(Debug)]
struct Thread {
    lanes: Lanes,
    tids: Vec<u64>,
}

impl OtherThreads {
    pub(super) fn new() -> OtherThreads {
        OtherThreads { threads: BTreeMap::new(), spare_tid: CALL_LANES_TID }
    }

    pub(super) fn write<W: Write>(
        &mut self,
        recording: &Recording,
        has_copies: &[bool],
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        for (call, has_copies) in recording.seen.calls.iter().zip(has_copies) {
            // Launches stand on the engine's lane, whichever thread made them.
            if recording.seen.is_engine(call) || call.replay.is_some() {
                continue;
            }
            let new = || Thread { lanes: Lanes::new(Nesting::Nested), tids: Vec::new() };
            let Thread { lanes, tids } = self.threads.entry(call.record.thread).or_insert_with(new);
            let lane = lanes.place(call.record.start_ns, call.record.end_ns);
            if lane == tids.len() {
                let own = u64::from(call.record.thread);
                // A number above the operating system's names no thread of it, and may be another lane's.
                let is_free = lane == 0 && own < ENGINE_OVERLAP_TID && own != layout.engine_tid;
                tids.push(if is_free { own } else { self.spare_tid });
                self.spare_tid += u64::from(!is_free);
            }
            write_slice(&HostSlice::Call(call, *has_copies), recording, layout, tids[lane], events)?;
        }
        Ok(())
    }

    pub(super) fn end<W: Write>(&self, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
        for (order, (thread, Thread { tids, .. })) in self.threads.iter().enumerate() {
            for tid in tids {
                name_lane(layout.pids.host, *tid, &format!("thread {thread}"), 1000 + order as u64, events)?;
            }
        }
        Ok(())
    }

    pub(super) fn late(&self) -> u64 {
        self.threads.values().map(|thread| thread.lanes.late()).sum()
    }
}

/// What the library took for itself, beside everything else.
pub(super) fn overheads<W: Write>(
    recording: &Recording,
    layout: &Layout,
    lanes: &mut Lanes,
    events: &mut Events<W>,
) -> io::Result<()> {
    let pid = layout.pids.overheads;
    if lanes.count() == 0 && !recording.seen.overheads.is_empty() {
        let order = layout.process_order(7_000_000, 3);
        name_process(pid, &layout.process_name("profiling overhead"), "overhead", order, events)?;
    }
    for overhead in &recording.seen.overheads {
        let lane = lanes.place(overhead.start_ns, overhead.end_ns) as u64;
        let out = events.event()?;
        out.raw(r#"{"ph":"X","cat":"overhead","name":"#).string(overhead.kind.as_str());
        out.raw(r#","pid":"#).int(pid).raw(r#","tid":"#).int(lane);
        out.raw(r#","ts":"#).us(layout.at(overhead.start_ns));
        out.raw(r#","dur":"#).us(overhead.end_ns - overhead.start_ns).raw(r#","args":{}}"#);
    }
    Ok(())
}

/// The names of its lanes.
pub(super) fn end_overheads<W: Write>(layout: &Layout, lanes: &Lanes, events: &mut Events<W>) -> io::Result<()> {
    (0..lanes.count() as u64).try_for_each(|lane| name_lane(layout.pids.overheads, lane, "overhead", lane, events))
}
