//! How far a recording is: written by those who record, read by those who ask. Always compiled.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use serde::Serialize;

/// What a recording does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its first step has not come.
    #[default]
    Waiting,
    /// It takes steps.
    Recording,
    /// It takes no more: its file is being ended, or is whole.
    Closing,
}

impl State {
    const ALL: [State; 3] = [State::Waiting, State::Recording, State::Closing];
}

/// A recording's counts while it runs. The engine's thread and the writer's write them, one each.
#[derive(Debug, Default)]
pub struct Progress {
    state: AtomicU8,
    steps: AtomicU64,
    nodes: AtomicU64,
    bytes: AtomicU64,
    is_full: AtomicBool,
    opened_ns: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it does.
    pub state: State,
    /// Steps recorded.
    pub steps: u64,
    /// Node times that they have.
    pub nodes: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The file has no room for more: what comes now is left out.
    pub is_full: bool,
    /// When its first step was let in, or would have been, by the monotonic clock.
    pub opened_ns: Option<u64>,
}

impl Progress {
    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            state: State::ALL[usize::from(self.state.load(Ordering::Relaxed))],
            steps: of(&self.steps),
            nodes: of(&self.nodes),
            bytes: of(&self.bytes),
            is_full: self.is_full.load(Ordering::Relaxed),
            opened_ns: Some(of(&self.opened_ns)).filter(|ns| *ns > 0),
        }
    }

    /// It does something else from now on.
    pub fn enter(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// It takes steps, from this moment of the monotonic clock on.
    pub fn open(&self, opened_ns: u64) {
        self.opened_ns.store(opened_ns, Ordering::Relaxed);
        self.enter(State::Recording);
    }

    /// A step was recorded, with so many node times.
    pub fn step(&self, nodes: u64) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.nodes.fetch_add(nodes, Ordering::Relaxed);
    }

    /// What comes from now on is left out.
    pub fn set_full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// The file has this length.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read() {
        let progress = Progress::default();
        assert_eq!(progress.snapshot(), Snapshot::default());
        progress.open(17);
        progress.step(5);
        progress.step(7);
        progress.set_bytes(900);
        progress.set_full();
        let (state, opened_ns) = (State::Recording, Some(17));
        let expected = Snapshot { state, steps: 2, nodes: 12, bytes: 900, is_full: true, opened_ns };
        assert_eq!(progress.snapshot(), expected);
        for state in State::ALL {
            progress.enter(state);
            assert_eq!(progress.snapshot().state, state);
        }
    }
}
