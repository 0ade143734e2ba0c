//! Lanes: no two slices of one lane overlap partly, because Perfetto drops the second of such a pair, for 1 ns of
//! overlap too. What does not fit a lane goes to the next.

/// The tids of the lanes above the nodes.
pub(super) const STEPS_TID: u64 = 1_000;
pub(super) const LAYERS_TID: u64 = 1_001;
/// The tid of the second lane of overlapping nodes; further ones follow.
pub(super) const OVERLAP_TID: u64 = 2_000;
/// The tid of the second lane of the engine's thread, above any of the operating system.
pub(super) const ENGINE_OVERLAP_TID: u64 = 10_000_000;
/// The tid of the first lane of calls that have none of their own: on a thread whose number is none of the operating
/// system's, or beside calls that they overlap.
pub(super) const CALL_LANES_TID: u64 = 20_000_000;

/// How slices of one lane may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nesting {
    /// One after the other.
    Disjoint,
    /// One after the other, or one inside the other.
    Nested,
}

/// A set of lanes, filled in the order of the slices' begin (longer ones first).
#[derive(Debug)]
pub(super) struct Lanes {
    nesting: Nesting,
    lanes: Vec<Lane>,
    /// Begin of the latest slice.
    latest_ns: u64,
    late: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// The ends of the slices that are open, the innermost last.
    open_ends: Vec<u64>,
    /// When the last slice of all ends.
    end_ns: u64,
}

impl Lane {
    fn has_room(&mut self, (start_ns, end_ns): (u64, u64), nesting: Nesting) -> bool {
        while self.open_ends.last().is_some_and(|end| *end <= start_ns) {
            self.open_ends.pop();
        }
        match (self.open_ends.last(), nesting) {
            (None, _) => true,
            (Some(_), Nesting::Disjoint) => false,
            (Some(enclosing), Nesting::Nested) => end_ns <= *enclosing,
        }
    }
}

impl Lanes {
    pub(super) fn new(nesting: Nesting) -> Lanes {
        Lanes { nesting, lanes: Vec::new(), latest_ns: 0, late: 0 }
    }

    /// The first lane that takes the slice. One that begins before those that were placed has one that they are not in,
    /// or that had ended by then.
    pub(super) fn place(&mut self, start_ns: u64, end_ns: u64) -> usize {
        let is_late = start_ns < self.latest_ns;
        self.latest_ns = self.latest_ns.max(start_ns);
        self.late += u64::from(is_late);
        let nesting = self.nesting;
        let fits = self.lanes.iter_mut().position(|lane| match is_late {
            true => lane.end_ns <= start_ns,
            false => lane.has_room((start_ns, end_ns), nesting),
        });
        let at = fits.unwrap_or_else(|| {
            self.lanes.push(Lane::default());
            self.lanes.len() - 1
        });
        let lane = &mut self.lanes[at];
        lane.open_ends.push(end_ns);
        lane.end_ns = lane.end_ns.max(end_ns);
        at
    }

    /// How many slices came out of order.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// How many lanes there are.
    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_all(nesting: Nesting, slices: &[(u64, u64)]) -> Vec<usize> {
        let mut lanes = Lanes::new(nesting);
        slices.iter().map(|(start_ns, end_ns)| lanes.place(*start_ns, *end_ns)).collect()
    }

    #[test]
    fn one_nanosecond_of_overlap_needs_a_lane() {
        assert_eq!(place_all(Nesting::Disjoint, &[(0, 10), (9, 20), (20, 30), (25, 26)]), [0, 1, 0, 1]);
        assert_eq!(place_all(Nesting::Nested, &[(0, 10), (9, 20), (20, 30), (25, 26)]), [0, 1, 0, 0]);
    }

    #[test]
    fn a_late_slice_has_a_lane_where_nothing_has_been_since() {
        for nesting in [Nesting::Disjoint, Nesting::Nested] {
            let mut lanes = Lanes::new(nesting);
            let placed = [(0, 10), (20, 30), (12, 14), (30, 31), (13, 19)].map(|(start, end)| lanes.place(start, end));
            assert_eq!((placed, lanes.late()), ([0, 0, 1, 0, 2], 2), "{nesting:?}");
            assert_eq!(lanes.place(31, 40), 0, "{nesting:?}");
        }
    }

    #[test]
    fn touching_and_empty_slices_fit() {
        assert_eq!(place_all(Nesting::Disjoint, &[(0, 10), (10, 10), (10, 12), (12, 12)]), [0, 0, 0, 0]);
    }
}
