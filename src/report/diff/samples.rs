//! The executions of a recording, by what two recordings have in common: graph kind and bucket, ordinal, layer, op.
//!
//! Every key names its graph, so that a row never mixes what the load decides: how many steps had which bucket. An
//! execution is one replay of the graph, and its time the sum of the exclusive times of the key's nodes in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::report::{Report, model};
use crate::trace::schema::{GraphKey, GraphTable, NodeInfo, Op};

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Steps, by the graphs that they replayed.
    Step,
    /// Graphs.
    Graph,
    /// Ops of a graph.
    Op,
    /// Layers of a graph.
    Layer,
    /// Nodes of a graph.
    Node,
}

impl Level {
    /// Every level, the widest first.
    pub const ALL: [Level; 5] = [Level::Step, Level::Graph, Level::Op, Level::Layer, Level::Node];

    /// Its name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Step => "step",
            Level::Graph => "graph",
            Level::Op => "op",
            Level::Layer => "layer",
            Level::Node => "node",
        }
    }

    /// The key of a node of a graph; of a step, it is made of its graphs.
    fn key(self, graph: GraphKey, ordinal: usize, info: &NodeInfo) -> Key {
        let place = info.place;
        let is = |levels: &[Level]| levels.contains(&self);
        Key {
            graphs: vec![graph],
            ordinal: is(&[Level::Node]).then_some(ordinal as u32),
            layer: is(&[Level::Node, Level::Layer]).then_some(place.layer),
            op: is(&[Level::Node, Level::Op]).then_some(place.op),
        }
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Level, UnknownLevel> {
        Level::ALL.into_iter().find(|level| level.as_str() == word).ok_or(UnknownLevel)
    }
}

/// Not a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("differences are by step, graph, op, layer or node")]
pub struct UnknownLevel;

/// What is compared: the same in every build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The graph; of a step, its graphs in the order of their replays.
    pub graphs: Vec<GraphKey>,
    /// The node's ordinal in its graph.
    pub ordinal: Option<u32>,
    /// The layer, −1 outside of layers.
    pub layer: Option<i32>,
    /// The op.
    pub op: Option<Op>,
}

impl Key {
    /// The graphs' names.
    pub fn graphs(&self) -> String {
        model::names(&self.graphs)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.graphs())?;
        self.ordinal.map_or(Ok(()), |ordinal| write!(f, " node {ordinal}"))?;
        self.layer.filter(|layer| *layer >= 0).map_or(Ok(()), |layer| write!(f, " layer {layer}"))?;
        self.op.map_or(Ok(()), |op| write!(f, " {op}"))
    }
}

/// Executions of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Executions {
    /// In the order of time.
    pub(super) ns: Vec<u64>,
    /// The node's kernel and its variant, where the key is a node's.
    pub(super) kernel: Option<(String, String)>,
}

/// The executions of a recording.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) by_key: BTreeMap<Key, Executions>,
    /// Steps that they are of.
    pub(super) steps: u64,
}

impl Samples {
    pub(super) fn of(report: &Report, level: Level) -> Samples {
        if level == Level::Step { steps(report) } else { replays(report, level) }
    }
}

/// Steps that have an account, by the graphs that they replayed.
fn steps(report: &Report) -> Samples {
    let graphs = report.recording.graphs_by_step();
    let mut samples = Samples::default();
    for step in &report.account.steps {
        let Some(graphs) = graphs.get(&step.step) else { continue };
        let key = Key { graphs: graphs.clone(), ordinal: None, layer: None, op: None };
        samples.by_key.entry(key).or_default().ns.push(step.parts.wall_ns);
        samples.steps += 1;
    }
    samples
}

/// The nodes of a graph by key.
struct Groups {
    keys: Vec<Key>,
    /// For each key, its nodes.
    nodes: Vec<usize>,
    /// For each node, its key.
    of_ordinal: Vec<usize>,
}

impl Groups {
    fn of(table: &GraphTable, level: Level) -> Groups {
        let mut groups = Groups { keys: Vec::new(), nodes: Vec::new(), of_ordinal: Vec::new() };
        let mut known: BTreeMap<Key, usize> = BTreeMap::new();
        for (ordinal, info) in table.nodes.iter().enumerate() {
            let key = level.key(table.key, ordinal, info);
            let at = *known.entry(key.clone()).or_insert_with(|| {
                groups.keys.push(key);
                groups.nodes.push(0);
                groups.keys.len() - 1
            });
            groups.nodes[at] += 1;
            groups.of_ordinal.push(at);
        }
        groups
    }
}

fn replays(report: &Report, level: Level) -> Samples {
    let recording = &report.recording;
    let groups: Vec<Groups> = recording.graphs.iter().map(|table| Groups::of(table, level)).collect();
    let mut executions: Vec<Vec<Executions>> =
        groups.iter().map(|groups| vec![Executions::default(); groups.keys.len()]).collect();
    let mut steps: BTreeSet<u64> = BTreeSet::new();
    let mut found: Vec<(usize, u64)> = Vec::new();
    for replay in recording.replays.iter().filter(|replay| !replay.nodes.is_empty()) {
        let groups = &groups[replay.graph];
        steps.insert(replay.record.step);
        found.clear();
        found.resize(groups.keys.len(), (0, 0));
        for node in &recording.nodes[replay.nodes.clone()] {
            let (nodes, ns) = &mut found[groups.of_ordinal[node.ordinal as usize]];
            (*nodes, *ns) = (*nodes + 1, ns.saturating_add(node.excl_ns));
        }
        for (at, (nodes, ns)) in found.iter().enumerate() {
            // Without all of its nodes it would seem shorter.
            if *nodes == groups.nodes[at] {
                executions[replay.graph][at].ns.push(*ns);
            }
        }
    }
    let mut samples = Samples { by_key: BTreeMap::new(), steps: steps.len() as u64 };
    for (graph, (groups, executions)) in groups.into_iter().zip(executions).enumerate() {
        for (key, execution) in groups.keys.into_iter().zip(executions).filter(|(_, found)| !found.ns.is_empty()) {
            let info = key.ordinal.map(|ordinal| &recording.graphs[graph].nodes[ordinal as usize]);
            let sample = samples.by_key.entry(key).or_default();
            sample.ns.extend(execution.ns);
            sample.kernel = info.map(|info| (info.kernel.clone(), info.choice.clone()));
        }
    }
    samples
}
