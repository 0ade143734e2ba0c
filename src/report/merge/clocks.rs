//! Clocks of several recordings on one timeline: the first recording's.
//!
//! Recordings of one boot have one monotonic clock, so nothing has to be done, and nothing is lost. Others meet at the
//! wall clock: each anchor says which moment of its own clock it was, and all of one boot go by one anchor, so that
//! they stay exact among each other.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::trace::session::ClockAnchor;

/// How a recording's clock is put on the first one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alignment {
    /// How.
    pub by: AlignedBy,
    /// Nanoseconds to be added to the recording's own times.
    #[serde(serialize_with = "as_i64")]
    pub offset_ns: i128,
    /// How far that may be wrong: by reading the clocks, not by the clocks' own faults. `None`: not measured, in a
    /// recording of an older build.
    pub error_ns: Option<u64>,
    /// How much more would have been added by the wall clock.
    #[serde(serialize_with = "as_i64")]
    pub wall_clock_differs_ns: i128,
}

/// By what a recording's clock is put on the first one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlignedBy {
    /// It is the first.
    First,
    /// It has the same clock.
    SameBoot,
    /// By the wall clocks.
    WallClock,
}

impl fmt::Display for AlignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AlignedBy::First => "the first",
            AlignedBy::SameBoot => "same boot",
            AlignedBy::WallClock => "wall clock",
        })
    }
}

/// Puts each clock on the first one's.
pub(super) fn align(anchors: &[&ClockAnchor]) -> Vec<Alignment> {
    let Some(first) = anchors.first() else { return Vec::new() };
    let aligned = |(at, anchor): (usize, &&ClockAnchor)| {
        let by_wall_clock_ns = anchor.unix_ns_at(0) - first.unix_ns_at(0);
        let by = match (at, is_same_boot(anchor, first)) {
            (0, _) => AlignedBy::First,
            (_, true) => AlignedBy::SameBoot,
            (_, false) => AlignedBy::WallClock,
        };
        if by != AlignedBy::WallClock {
            return Alignment { by, offset_ns: 0, error_ns: Some(0), wall_clock_differs_ns: by_wall_clock_ns };
        }
        let (best, of_first) = (best_of_boot(anchors, anchor), best_of_boot(anchors, first));
        let offset_ns = best.unix_ns_at(0) - of_first.unix_ns_at(0);
        Alignment {
            by,
            offset_ns,
            error_ns: best.error_ns.zip(of_first.error_ns).map(|(one, other)| one.saturating_add(other)),
            wall_clock_differs_ns: by_wall_clock_ns - offset_ns,
        }
    };
    anchors.iter().enumerate().map(aligned).collect()
}

fn is_same_boot(one: &ClockAnchor, other: &ClockAnchor) -> bool {
    one.boot_id.is_some() && one.boot_id == other.boot_id
}

/// The anchor of the same boot with the least error; of equal ones the first.
fn best_of_boot<'a>(anchors: &[&'a ClockAnchor], anchor: &'a ClockAnchor) -> &'a ClockAnchor {
    let same = anchors.iter().copied().filter(|other| is_same_boot(anchor, other));
    same.min_by_key(|other| other.error_ns.unwrap_or(u64::MAX)).unwrap_or(anchor)
}

/// Readers of JSON have no larger integers: 292 years.
fn as_i64<S: Serializer>(ns: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64((*ns).clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(unix_ns: u64, monotonic_ns: u64, error_ns: Option<u64>, boot: Option<&str>) -> ClockAnchor {
        ClockAnchor { unix_ns, monotonic_ns, error_ns, boot_id: boot.map(str::to_owned) }
    }

    fn aligned(anchors: &[ClockAnchor]) -> Vec<(AlignedBy, i128, Option<u64>)> {
        let alignments = align(&anchors.iter().collect::<Vec<_>>());
        alignments.iter().map(|found| (found.by, found.offset_ns, found.error_ns)).collect()
    }

    #[test]
    fn one_boot_is_exact_whatever_the_wall_clock_did() {
        let anchors = [
            anchor(1_000_000, 500, Some(20), Some("a")),
            // The wall clock was set back by an hour between the two.
            anchor(1_000_400, 3_600_000_000_900, Some(30), Some("a")),
        ];
        assert_eq!(aligned(&anchors), [(AlignedBy::First, 0, Some(0)), (AlignedBy::SameBoot, 0, Some(0))]);
        let differs_ns = align(&anchors.iter().collect::<Vec<_>>())[1].wall_clock_differs_ns;
        assert_eq!(differs_ns, -3_600_000_000_000);
    }

    #[test]
    fn other_boots_meet_at_the_wall_clock_and_stay_exact_among_each_other() {
        let anchors = [
            anchor(1_000_000, 900_000, Some(20), Some("a")),
            anchor(1_000_700, 10, Some(400), Some("b")),
            // Read better, and the same clock: its anchor counts for both.
            anchor(1_000_990, 310, Some(30), Some("b")),
        ];
        let offset = 1_000_990 - 310 - (1_000_000 - 900_000);
        let by = AlignedBy::WallClock;
        assert_eq!(aligned(&anchors)[1..], [(by, offset, Some(50)), (by, offset, Some(50))]);
        assert_eq!(align(&anchors.iter().collect::<Vec<_>>())[1].wall_clock_differs_ns, 10);
    }

    #[test]
    fn older_recordings_have_no_error_and_no_boot() {
        let anchors = [anchor(50, 7, None, None), anchor(80, 7, None, None), anchor(80, 7, Some(3), Some("a"))];
        let by = AlignedBy::WallClock;
        assert_eq!(aligned(&anchors), [(AlignedBy::First, 0, Some(0)), (by, 30, None), (by, 30, None)]);
        let older: ClockAnchor = serde_json::from_str(r#"{"unix_ns":50,"monotonic_ns":7}"#).expect("an anchor");
        assert_eq!(older, anchors[0]);
        let extreme = [anchor(0, u64::MAX, Some(u64::MAX), None), anchor(u64::MAX, 0, Some(1), None)];
        assert_eq!(aligned(&extreme)[1], (by, 2 * i128::from(u64::MAX), Some(u64::MAX)));
        assert_eq!(align(&[]), []);
    }
}
