//! Which node of which graph a record of a kernel is of.
//!
//! A node's id is asked for when it has been captured: 32 bits of its graph, 32 of its own. Records of a replay are
//! taken to carry the id of the executable graph in the upper half, and the same lower half; those of newer libraries
//! carry the captured node's id besides. That it is so has not been seen on a GPU yet: `vitrum doctor` looks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A graph's number ([`crate::trace::schema::GraphTable::id`]) and a node's ordinal in it.
pub(super) type Node = (u32, u32);

/// The nodes of all captured graphs. Graphs and executables may be numbered apart, so their nodes are kept apart.
#[derive(Debug, Default)]
pub(super) struct Identity {
    captured: Ids,
    in_executables: Ids,
}

type Ids = HashMap<u64, Node, BuildHasherDefault<IdHasher>>;

impl Identity {
    /// A node by the captured node's id, where a record says it.
    pub(super) fn find_captured(&self, id: u64) -> Option<Node> {
        self.captured.get(&id).copied()
    }

    /// A node by its id in an executable graph.
    pub(super) fn find(&self, id: u64) -> Option<Node> {
        self.in_executables.get(&id).copied()
    }

    /// Adds the nodes of a captured graph, by their ids at capture and in the executable. 0 is no id.
    pub(super) fn add(&mut self, graph: u32, exec: u32, captured: &[u64]) {
        for (ordinal, id) in (0..).zip(captured).filter(|(_, id)| **id != 0) {
            self.captured.insert(*id, (graph, ordinal));
            self.in_executables.insert(in_executable(exec, *id), (graph, ordinal));
        }
    }

    /// Takes them out again.
    pub(super) fn remove(&mut self, exec: u32, captured: &[u64]) {
        for id in captured {
            self.captured.remove(id);
            self.in_executables.remove(&in_executable(exec, *id));
        }
    }
}

/// The id that a captured node has in an executable graph.
pub(super) fn in_executable(exec: u32, captured: u64) -> u64 {
    u64::from(exec) << 32 | captured & u64::from(u32::MAX)
}

/// Ids are small numbers in both halves: one multiplication spreads them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_both_ids_until_they_are_gone() {
        let mut identity = Identity::default();
        identity.add(1, 900, &[7 << 32 | 3, 7 << 32 | 5]);
        identity.add(1, 901, &[8 << 32 | 3]);
        identity.add(2, 902, &[9 << 32 | 3]);
        assert_eq!(identity.find(900 << 32 | 5), Some((1, 1)));
        assert_eq!(identity.find_captured(7 << 32 | 3), Some((1, 0)));
        assert_eq!(identity.find(7 << 32 | 3), None, "they are numbered apart");
        assert_eq!(identity.find(901 << 32 | 3), Some((1, 0)), "the second executable of the same graph");
        assert_eq!(identity.find(902 << 32 | 3), Some((2, 0)));
        assert_eq!(identity.find(902 << 32 | 5), None);
        identity.remove(900, &[7 << 32 | 3, 7 << 32 | 5]);
        assert_eq!((identity.find(900 << 32 | 5), identity.find_captured(7 << 32 | 5)), (None, None));
        assert_eq!(identity.find(901 << 32 | 3), Some((1, 0)));
    }
}
