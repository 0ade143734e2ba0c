//! Stretches of the device's time that have a name of their own: steps, and layers within them.

use super::{Recording, Replay};

/// A stretch of the device's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    /// The step.
    pub step: u64,
    /// The layer; `None`: a whole step.
    pub layer: Option<u64>,
    /// Begin of its first node.
    pub start_ns: u64,
    /// End of its last node, at the latest where the next range begins.
    pub end_ns: u64,
}

impl DeviceRange {
    /// One for each run of nodes of one layer in one of the replays, by begin.
    pub fn layers(recording: &Recording, replays: &[Replay]) -> Vec<DeviceRange> {
        let mut ranges: Vec<DeviceRange> = Vec::new();
        let mut last: Option<(u32, i32)> = None;
        let nodes = replays.iter().flat_map(|replay| &recording.nodes[replay.nodes.clone()]);
        for node in nodes {
            let layer = recording.info(node).place.layer;
            let run = Some((node.replay, layer));
            let number = u64::try_from(layer).ok();
            if run == last
                && let Some(range) = ranges.last_mut().filter(|_| number.is_some())
            {
                range.end_ns = range.end_ns.max(node.end_ns);
            } else if number.is_some() {
                let step = recording.replays[node.replay as usize].record.step;
                ranges.push(DeviceRange { step, layer: number, start_ns: node.start_ns, end_ns: node.end_ns });
            }
            last = run;
        }
        cut(ranges)
    }

    /// One for each step that has nodes in the replays, from the first of these to the last, by begin.
    pub fn steps(recording: &Recording, replays: &[Replay]) -> Vec<DeviceRange> {
        let mut ranges: Vec<DeviceRange> = Vec::new();
        for replay in replays {
            let nodes = &recording.nodes[replay.nodes.clone()];
            let Some(start_ns) = nodes.first().map(|node| node.start_ns) else { continue };
            let end_ns = nodes.iter().map(|node| node.end_ns).max().unwrap_or(start_ns);
            let step = replay.record.step;
            match ranges.last_mut().filter(|range| range.step == step) {
                Some(range) => {
                    range.start_ns = range.start_ns.min(start_ns);
                    range.end_ns = range.end_ns.max(end_ns);
                }
                None => ranges.push(DeviceRange { step, layer: None, start_ns, end_ns }),
            }
        }
        cut(ranges)
    }
}

/// By begin, each cut where the next one begins.
fn cut(mut ranges: Vec<DeviceRange>) -> Vec<DeviceRange> {
    ranges.sort_by_key(|range| range.start_ns);
    for at in 1..ranges.len() {
        ranges[at - 1].end_ns = ranges[at - 1].end_ns.min(ranges[at].start_ns);
    }
    ranges
}
