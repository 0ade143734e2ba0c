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
    /// For each lane, the ends of the slices that are open, the innermost last.
    open_ends: Vec<Vec<u64>>,
}

impl Lanes {
    pub(super) fn new(nesting: Nesting) -> Lanes {
        Lanes { nesting, open_ends: Vec::new() }
    }

    /// The first lane that takes the slice.
    pub(super) fn place(&mut self, start_ns: u64, end_ns: u64) -> usize {
        let fits = self.open_ends.iter_mut().position(|open| {
            while open.last().is_some_and(|end| *end <= start_ns) {
                open.pop();
            }
            match (open.last(), self.nesting) {
                (None, _) => true,
                (Some(_), Nesting::Disjoint) => false,
                (Some(enclosing), Nesting::Nested) => end_ns <= *enclosing,
            }
        });
        let lane = fits.unwrap_or_else(|| {
            self.open_ends.push(Vec::new());
            self.open_ends.len() - 1
        });
        self.open_ends[lane].push(end_ns);
        lane
    }

    /// How many lanes there are.
    pub(super) fn count(&self) -> usize {
        self.open_ends.len()
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
    fn touching_and_empty_slices_fit() {
        assert_eq!(place_all(Nesting::Disjoint, &[(0, 10), (10, 10), (10, 12), (12, 12)]), [0, 0, 0, 0]);
    }
}
