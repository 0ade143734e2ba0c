//! Kinds of records, and which of them are enabled.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::status::{self, Answer, Refusal};
use super::{callbacks, settings};
use crate::driver::say;

/// A kind by its number in cupti_activity.h.
pub(super) type Kind = u32;

pub(super) const MEMCPY: Kind = 1;
pub(super) const MEMSET: Kind = 2;
const KERNEL: Kind = 3;
pub(super) const DRIVER: Kind = 4;
pub(super) const CONCURRENT_KERNEL: Kind = 10;
pub(super) const OVERHEAD: Kind = 17;
const GRAPH_TRACE: Kind = 51;

const NAMES: [(Kind, &str); 7] = [
    (MEMCPY, "MEMCPY"),
    (MEMSET, "MEMSET"),
    (KERNEL, "KERNEL"),
    (DRIVER, "DRIVER"),
    (CONCURRENT_KERNEL, "CONCURRENT_KERNEL"),
    (OVERHEAD, "OVERHEAD"),
    (GRAPH_TRACE, "GRAPH_TRACE"),
];

/// Kinds as bits by their place in `NAMES`.
static ENABLED: AtomicU32 = AtomicU32::new(0);
static WAS_ENABLED: AtomicBool = AtomicBool::new(false);

fn bit(kind: Kind) -> Option<u32> {
    NAMES.iter().position(|(known, _)| *known == kind).map(|place| 1 << place)
}

/// Those that are enabled now.
pub(super) fn enabled() -> u32 {
    ENABLED.load(Relaxed)
}

pub(super) fn is_in(kinds: u32, kind: Kind) -> bool {
    bit(kind).is_some_and(|bit| kinds & bit != 0)
}

pub(super) fn is_enabled(kind: Kind) -> bool {
    is_in(enabled(), kind)
}

/// Whether one ever was.
pub(super) fn was_enabled() -> bool {
    WAS_ENABLED.load(Relaxed)
}

fn known(kind: c_uint) -> Answer<u32> {
    bit(kind).ok_or_else(|| Refusal::new(status::INVALID_KIND, format!("kind {kind} is not modelled")))
}

pub(super) fn enable(kind: c_uint) -> Answer {
    let bit = known(kind)?;
    if settings::settings().is_taken {
        return Err(Refusal::quiet(status::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED));
    }
    if !callbacks::is_registered() {
        return Err(Refusal::new(status::INVALID_OPERATION, "no callbacks are registered"));
    }
    match kind {
        KERNEL => say("cuptiActivityEnable: KERNEL makes kernels run one after the other"),
        GRAPH_TRACE => say("cuptiActivityEnable: GRAPH_TRACE hides the nodes of graphs, for good"),
        _ => {}
    }
    ENABLED.fetch_or(bit, Relaxed);
    WAS_ENABLED.store(true, Relaxed);
    Ok(())
}

pub(super) fn disable(kind: c_uint) -> Answer {
    ENABLED.fetch_and(!known(kind)?, Relaxed);
    Ok(())
}

/// When the context or the process ends: which kinds are still enabled. Said once.
pub(crate) fn report_enabled() {
    static SAID: AtomicBool = AtomicBool::new(false);
    let kinds = enabled();
    if kinds != 0 && !SAID.swap(true, Relaxed) {
        let names: Vec<&str> = NAMES.iter().filter(|(kind, _)| is_in(kinds, *kind)).map(|(_, name)| *name).collect();
        say(&format!("cupti: kinds still enabled: {}", names.join(", ")));
    }
}
