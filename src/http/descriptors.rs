//! File descriptors: as many as the connections need, if the operating system gives them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connections::SPARE_MAX;

/// What a server has open beside connections: the model, the device's files, recordings, the runtime's own.
const OTHER_FILES: u64 = 256;

/// Raises this process's limit so that there may be so many connections; says how many there may be.
pub(super) fn make_room(connections_max: usize) -> usize {
    let beside = OTHER_FILES + SPARE_MAX as u64;
    let wanted = connections_max as u64 + beside;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (Some(current), true) = (current, current.is_some_and(|current| current < wanted)) else {
        return connections_max;
    };
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    let have = if raised.is_ok() { most } else { current };
    if have >= wanted {
        return connections_max;
    }
    let possible = have.saturating_sub(beside).max(1) as usize;
    tracing::warn!(
        "{have} file descriptors are too few for {connections_max} connections (--max-connections): there may be \
         {possible} (`ulimit -n` sets their limit)"
    );
    possible
}
