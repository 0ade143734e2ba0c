//! Layers and steps above the device's nodes, on lanes that carry no stream, device or correlation.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::events::Events;
use super::lanes::{LAYERS_TID, STEPS_TID};
use super::nodes::step_args;
use crate::report::json::Json;
use crate::report::layout::Layout;
use crate::report::model::Window;
use crate::report::{DeviceRange, Recording, Replay};

/// One of the two lanes, filled window by window: a range ends where the next begins, so the last ones wait for it.
pub(super) struct RangeLane {
    tid: u64,
    of: fn(&Recording, &[Replay]) -> Vec<DeviceRange>,
    /// With the arguments of a step, by begin.
    waiting: VecDeque<(DeviceRange, Vec<u8>)>,
    /// End of the last one that was written.
    end_ns: u64,
    /// How many began before that: they are cut there.
    pub(super) late: u64,
}

impl RangeLane {
    pub(super) fn layers() -> RangeLane {
        RangeLane { tid: LAYERS_TID, of: DeviceRange::layers, waiting: VecDeque::new(), end_ns: 0, late: 0 }
    }

    pub(super) fn steps() -> RangeLane {
        RangeLane { tid: STEPS_TID, of: DeviceRange::steps, waiting: VecDeque::new(), end_ns: 0, late: 0 }
    }

    pub(super) fn write<W: Write>(
        &mut self,
        window: &Window<'_>,
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let recording = window.recording;
        let args = |range: &DeviceRange| match range.layer {
            Some(_) => Vec::new(),
            None => step_args(recording, range.step),
        };
        let is_waiting = !self.waiting.is_empty();
        self.waiting.extend((self.of)(recording, &recording.replays).into_iter().map(|range| (range, args(&range))));
        if is_waiting {
            self.waiting.make_contiguous().sort_by_key(|(range, _)| range.start_ns);
        }
        while let Some((mut range, args)) = self.waiting.pop_front() {
            let next_ns = self.waiting.front().map_or(u64::MAX, |(next, _)| next.start_ns);
            range.end_ns = range.end_ns.min(next_ns);
            // A range that is not here yet begins when the next window does, or later.
            if window.until_ns.is_some_and(|until_ns| range.start_ns >= until_ns || range.end_ns > until_ns) {
                self.waiting.push_front((range, args));
                break;
            }
            self.late += u64::from(range.start_ns < self.end_ns);
            range.start_ns = range.start_ns.max(self.end_ns);
            range.end_ns = range.end_ns.max(range.start_ns);
            self.end_ns = range.end_ns;
            self.range(&range, &args, layout, events)?;
        }
        Ok(())
    }

    fn range<W: Write>(
        &self,
        range: &DeviceRange,
        step_args: &[u8],
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let out = events.event()?;
        out.raw(r#"{"ph":"X","cat":"gpu_user_annotation","name":"#);
        match range.layer {
            Some(layer) => out.string(&format!("layer {layer}")),
            None => out.string(&format!("step {}", range.step)),
        };
        out.raw(r#","pid":"#).int(layout.pids.device).raw(r#","tid":"#).int(self.tid);
        out.raw(r#","ts":"#).us(layout.at(range.start_ns)).raw(r#","dur":"#).us(range.end_ns - range.start_ns);
        out.raw(r#","args":{"#);
        match range.layer {
            Some(layer) => _ = out.raw(r#""layer":"#).int(layer).raw(r#","step":"#).int(range.step),
            None => out.extend_from_slice(step_args),
        }
        out.raw("}}");
        Ok(())
    }
}
