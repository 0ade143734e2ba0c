//! Finished steps for whoever watches: when they were done, how large they were, what they moved. For benchmarks.
//!
//! Without a watcher a step costs a look at an `Option`.

use std::sync::mpsc;

use crate::device::GraphId;
use crate::request::StepId;
use crate::step::StepRunner;
use crate::trace::schema::{GraphKind, LinearCost, StepSizes};

/// A finished step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepDone {
    /// Its number. While there are rows, a step is submitted before the one ahead of it is done: what lies between the
    /// ends of the two is then the second one's time.
    pub id: StepId,
    /// When its tokens had been read, by the monotonic clock.
    pub done_ns: u64,
    /// Its sizes.
    pub sizes: StepSizes,
    /// It replayed the decode graph: every sequence had one row.
    pub is_decode: bool,
    /// The least bytes that the nodes of its graphs move, by their costs.
    pub bytes: f64,
}

/// The one who watches, if there is one.
#[derive(Debug, Default)]
pub(super) struct StepWatch {
    to: Option<mpsc::SyncSender<StepDone>>,
    /// What the nodes of each graph move, added up when the graph is first seen.
    graphs: Vec<(GraphId, LinearCost)>,
}

impl StepWatch {
    /// Tells of every step from here on; whoever was told before is no more.
    pub(super) fn tell(&mut self, to: mpsc::SyncSender<StepDone>) {
        self.to = Some(to);
    }

    /// A step was done.
    pub(super) fn step(
        &mut self,
        id: StepId,
        (graphs, sizes): ([Option<GraphId>; 2], StepSizes),
        done_ns: u64,
        runner: &StepRunner,
    ) {
        let Some(to) = &self.to else { return };
        let (mut bytes, mut is_decode) = (0.0, false);
        for graph in graphs.into_iter().flatten() {
            let table = runner.graph(graph);
            is_decode |= table.key.kind == GraphKind::ForwardDecode;
            let known = self.graphs.iter().position(|(known, _)| *known == graph);
            let index = known.unwrap_or_else(|| {
                self.graphs.push((graph, table.nodes.iter().map(|node| node.cost.bytes).sum()));
                self.graphs.len() - 1
            });
            bytes += self.graphs[index].1.at(&sizes);
        }
        match to.try_send(StepDone { id, done_ns, sizes, is_decode, bytes }) {
            Ok(()) | Err(mpsc::TrySendError::Full(_)) => {}
            Err(mpsc::TrySendError::Disconnected(_)) => self.to = None,
        }
    }
}
