//! What a ring has lost to later records: steps of which some records are gone are left out as a whole.

use std::collections::BTreeMap;

use super::Recording;
use super::resolve::Raw;
use crate::trace::session::{Counts, Overwritten};
use crate::trace::spool::Seam;

/// What is not in the file any more, and what was left out because of that.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// As the oldest block in the file says it.
    pub overwritten: Overwritten,
    /// Records of steps of which others are gone. They are in no other field; of node times the valid ones.
    pub trimmed: Counts,
    /// Replays and valid node times among them, by graph.
    pub trimmed_of: BTreeMap<u32, [u64; 2]>,
}

impl Recording {
    /// Leaves out what is not whole. So many node times stood before every replay.
    pub(super) fn trim(&mut self, raw: &mut Raw, seam: Option<&Seam>, leading: u64) {
        let Some(seam) = seam.filter(|seam| seam.before.total() > 0) else {
            self.orphans += leading;
            return;
        };
        let whole_from_step = seam.whole_from_step;
        let records = Counts { nodes: seam.before.nodes.saturating_add(leading), ..seam.before };
        let mut lost = Lost { overwritten: Overwritten { records, whole_from_step }, ..Lost::default() };
        let trimmed = &mut lost.trimmed;
        let keeps = |step: u64, count: &mut u64| {
            let is_whole = step >= whole_from_step;
            *count += u64::from(!is_whole);
            is_whole
        };
        self.steps.retain(|step| keeps(step.step, &mut trimmed.steps));
        self.members.retain(|member| keeps(member.step, &mut trimmed.members));
        self.spans.retain(|span| keeps(span.step, &mut trimmed.spans));
        for (graph, nodes) in raw.trim(whole_from_step) {
            trimmed.replays += 1;
            trimmed.nodes += nodes;
            let sums = lost.trimmed_of.entry(graph).or_default();
            *sums = [sums[0] + 1, sums[1] + nodes];
        }
        self.lost = Some(lost);
    }
}
