//! From records as they came to records that name each other.

use std::ops::Range;

use super::activity::{KnownCalls, RawActivity};
use super::{NodeTime, Recording, Replay};
use crate::trace::schema::{NodeStamp, ReplayRecord};

impl Recording {
    /// Sorts what is there, and adds what was read apart.
    pub(super) fn resolve(&mut self, mut raw: Raw, known: &KnownCalls) {
        self.sort();
        let activity = std::mem::take(&mut raw.activity);
        self.resolve_stamps(raw);
        self.resolve_activity(activity, known);
        self.fill_exclusive();
    }

    fn sort(&mut self) {
        self.graphs.sort_by_key(|graph| graph.id);
        self.graphs.dedup_by_key(|graph| graph.id);
        self.steps.sort_by_key(|step| step.step);
        self.members.sort_by_key(|member| member.step);
        self.spans.sort_by_key(|span| (span.start_ns, std::cmp::Reverse(span.end_ns)));
        self.requests.sort_by_key(|request| request.at_ns);
    }

    fn resolve_stamps(&mut self, mut raw: Raw) {
        raw.replays.sort_by_key(|replay| replay.record.replay);
        self.nodes.reserve(raw.stamps.len());
        for replay in raw.replays {
            let Ok(graph) = self.graphs.binary_search_by_key(&replay.record.graph, |graph| graph.id) else {
                self.orphans += 1 + replay.stamps.len() as u64;
                continue;
            };
            let index = self.replays.len() as u32;
            let from = self.nodes.len();
            let stamps = &raw.stamps[replay.stamps];
            // Its node times are made of the activity.
            let is_stamped = replay.record.sources.stamps || !replay.record.sources.activity;
            self.orphans += if is_stamped { 0 } else { stamps.len() as u64 };
            let known = self.graphs[graph].nodes.len() as u32;
            let mut invalid = 0;
            for (ordinal, stamp) in stamps.iter().filter(|_| is_stamped) {
                match (*ordinal < known, stamp.is_valid()) {
                    (true, true) => self.nodes.push(NodeTime {
                        replay: index,
                        ordinal: *ordinal,
                        start_ns: stamp.start_ns,
                        end_ns: stamp.end_ns,
                        excl_ns: 0,
                        wait_ns: stamp.wait_ns,
                    }),
                    (true, false) => invalid += 1,
                    (false, _) => self.orphans += 1,
                }
            }
            self.nodes[from..].sort_by_key(|node| (node.start_ns, node.ordinal));
            self.replays.push(Replay {
                record: replay.record,
                graph,
                nodes: from..self.nodes.len(),
                invalid,
                seen: 0..0,
                seen_invalid: 0,
            });
        }
    }

    fn fill_exclusive(&mut self) {
        self.nodes_by_start = (0..self.nodes.len() as u32).collect();
        let nodes = &mut self.nodes;
        self.nodes_by_start.sort_by_key(|at| (nodes[*at as usize].start_ns, *at));
        let mut latest_end_ns = 0;
        for at in &self.nodes_by_start {
            let node = &mut nodes[*at as usize];
            node.excl_ns = node.end_ns.saturating_sub(node.start_ns.max(latest_end_ns));
            latest_end_ns = latest_end_ns.max(node.end_ns);
        }
    }
}

/// Replays and node times as they come, before anything is known of their graphs.
#[derive(Default)]
pub(super) struct Raw {
    replays: Vec<RawReplay>,
    stamps: Vec<(u32, NodeStamp)>,
    pub(super) activity: RawActivity,
}

struct RawReplay {
    record: ReplayRecord,
    stamps: Range<usize>,
}

impl Raw {
    /// Node times, whatever their source.
    pub(super) fn nodes(&self) -> usize {
        self.stamps.len() + self.activity.nodes()
    }

    pub(super) fn push_replay(&mut self, record: ReplayRecord) {
        let at = self.stamps.len();
        self.replays.push(RawReplay { record, stamps: at..at });
    }

    /// Node times of the last replay.
    pub(super) fn push_stamps(&mut self, first: u32, stamps: &[NodeStamp]) {
        if let Some(last) = self.replays.last_mut() {
            self.stamps.extend((first..).zip(stamps.iter().copied()));
            last.stamps.end = self.stamps.len();
        }
    }
}
