//! The device's lanes: nodes and copies.

use std::io::{self, Write};
use std::rc::Rc;

use super::copies;
use super::events::Events;
use super::lanes::{Lanes, Nesting, OVERLAP_TID};
use crate::report::copies::{CopySlice, by_start};
use crate::report::json::Json;
use crate::report::layout::{CONTEXT, Layout, STREAM};
use crate::report::model::Window;
use crate::report::stats::Comparison;
use crate::report::{NodeTime, Recording, Replay, SeenNode};
use crate::trace::schema::{Cost, GraphTable, LaunchFacts, NodeInfo, StepSizes};

/// The parts of a node's event that are the same in every replay.
struct NodeText {
    /// Up to the lane.
    head: Vec<u8>,
    /// Between the correlation and the replay.
    place: Vec<u8>,
    cost: Cost,
}

fn node_text(layout: &Layout, graph: &GraphTable, ordinal: usize, info: &NodeInfo) -> NodeText {
    let mut head = Vec::new();
    head.raw(r#"{"ph":"X","cat":"kernel","name":"#).string(&info.kernel);
    head.raw(r#","pid":"#).int(layout.pids.device).raw(r#","tid":"#);
    let mut place = Vec::new();
    if let Some(facts) = &info.launch {
        write_launch(facts, &mut place);
    }
    place.raw(r#","graph id":"#).int(layout.graph_id(graph.id));
    place.raw(r#","graph node id":"#).int(layout.graph_node_id(graph, ordinal));
    place.raw(r#","layer":"#).raw(&info.place.layer.to_string());
    place.raw(r#","op":"#).string(info.place.op.as_str());
    NodeText { head, place, cost: info.cost }
}

/// How a GPU's driver launches the node, by Kineto's names and in its order.
fn write_launch(facts: &LaunchFacts, out: &mut Vec<u8>) {
    let shared = u64::from(facts.static_shared_bytes) + u64::from(facts.dynamic_shared_bytes);
    out.raw(r#","registers per thread":"#).int(facts.registers.into()).raw(r#","shared memory":"#).int(shared);
    // More threads than a number holds are no block's.
    let is_block = facts.block.iter().try_fold(1_u32, |threads, size| threads.checked_mul(*size)).is_some();
    if is_block {
        out.raw(r#","blocks per SM":"#).raw(&(facts.blocks_per_multiprocessor() as f32).to_string());
        out.raw(r#","warps per SM":"#).raw(&(facts.warps_per_multiprocessor() as f32).to_string());
    }
    for (name, [x, y, z]) in [("grid", facts.grid), ("block", facts.block)] {
        out.raw(",").string(name).raw(":[").int(x.into()).raw(",").int(y.into()).raw(",").int(z.into()).raw("]");
    }
    if is_block {
        out.raw(r#","est. achieved occupancy %":"#).int((100.0 * facts.occupancy()).round() as u64);
    }
}

/// The parts that are the same for all nodes of a replay.
struct ReplayText {
    /// From the duration to the correlation.
    stream: Vec<u8>,
    /// Behind the place, up to the exclusive time.
    replay: Vec<u8>,
    sizes: Option<StepSizes>,
    /// The graph's place among the recording's.
    graph: usize,
    correlation: u64,
    /// Two sources timed its nodes.
    has_both: bool,
}

fn replay_text(recording: &Recording, replay: &Replay, layout: &Layout) -> ReplayText {
    let record = &replay.record;
    let mut stream = Vec::new();
    stream.raw(r#","args":{"device":"#).int(layout.device).raw(r#","context":"#).int(CONTEXT);
    stream.raw(r#","stream":"#).int(layout.stream);
    let correlation = layout.correlation(record.replay);
    stream.raw(r#","correlation":"#).int(correlation);
    let mut text = Vec::new();
    text.raw(r#","step":"#).int(record.step).raw(r#","replay":"#).int(record.replay).raw(r#","excl_us":"#);
    let sizes = recording.step(record.step).map(|step| step.sizes);
    ReplayText { stream, replay: text, sizes, graph: replay.graph, correlation, has_both: replay.has_both() }
}

/// The lanes of nodes and copies, filled window by window.
pub(super) struct DeviceLanes {
    /// By graph and ordinal.
    texts: Vec<Vec<NodeText>>,
    lanes: Lanes,
    latest_end_ns: u64,
    /// What the device did for steps before the next window after that had begun, by begin.
    nodes: Vec<Carried>,
    copies: Vec<CopySlice>,
    /// Of the nodes that two sources timed.
    pub(super) comparison: Comparison<()>,
}

/// A node with what its event says of its replay.
struct Carried {
    node: NodeTime,
    replay: Rc<ReplayText>,
    seen: Option<SeenNode>,
}

impl DeviceLanes {
    pub(super) fn new(graphs: &[GraphTable], layout: &Layout) -> DeviceLanes {
        let texts = graphs
            .iter()
            .map(|graph| graph.nodes.iter().enumerate().map(|(at, info)| node_text(layout, graph, at, info)).collect());
        DeviceLanes {
            texts: texts.collect(),
            lanes: Lanes::new(Nesting::Disjoint),
            latest_end_ns: 0,
            nodes: Vec::new(),
            copies: Vec::new(),
            comparison: Comparison::default(),
        }
    }

    /// Nodes and copies that begin before the next window does.
    pub(super) fn write<W: Write>(
        &mut self,
        window: &Window<'_>,
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let recording = window.recording;
        let is_due = |at_ns: u64| window.until_ns.is_none_or(|until_ns| at_ns < until_ns);
        let mut copies = std::mem::take(&mut self.copies);
        copies.append(&mut by_start(recording, layout));
        copies.sort_by_key(|copy| copy.start_ns);
        let mut copies = copies.into_iter().peekable();
        let mut carried = std::mem::take(&mut self.nodes).into_iter().peekable();
        let mut own = recording.nodes_by_start.iter().map(|at| &recording.nodes[*at as usize]).peekable();
        let mut current: Option<(u32, Rc<ReplayText>)> = None;
        loop {
            let [carried_ns, own_ns] = [carried.peek().map(|it| &it.node), own.peek().copied()].map(start_ns);
            let Some(next_ns) = [carried_ns, own_ns].into_iter().flatten().min().filter(|at_ns| is_due(*at_ns)) else {
                break;
            };
            while let Some(copy) = copies.next_if(|copy| copy.start_ns <= next_ns) {
                copies::write(&copy, layout, &mut self.lanes, events)?;
            }
            if carried_ns == Some(next_ns) {
                carried
                    .next()
                    .map_or(Ok(()), |it| self.node(&it.node, &it.replay, it.seen.as_ref(), layout, events))?;
            } else if let Some(node) = own.next() {
                let text = text_of(&mut current, node, recording, layout);
                let seen = recording.seen.node(&recording.replays[node.replay as usize], node.ordinal);
                self.node(node, text, seen, layout, events)?;
            }
        }
        while let Some(copy) = copies.next_if(|copy| is_due(copy.start_ns)) {
            copies::write(&copy, layout, &mut self.lanes, events)?;
        }
        self.copies.extend(copies);
        self.nodes.extend(carried);
        for node in own {
            let replay = Rc::clone(text_of(&mut current, node, recording, layout));
            let seen = recording.seen.node(&recording.replays[node.replay as usize], node.ordinal).copied();
            self.nodes.push(Carried { node: *node, replay, seen });
        }
        self.nodes.sort_by_key(|it| it.node.start_ns);
        self.comparison.seen(recording, window.until_ns, |_| ());
        Ok(())
    }

    fn node<W: Write>(
        &mut self,
        node: &NodeTime,
        replay: &ReplayText,
        seen: Option<&SeenNode>,
        layout: &Layout,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let excl_ns = node.end_ns.saturating_sub(node.start_ns.max(self.latest_end_ns));
        self.latest_end_ns = self.latest_end_ns.max(node.end_ns);
        if replay.has_both {
            self.comparison.stamped((), node, excl_ns, seen);
        }
        let tid = node_tid(&mut self.lanes, node.start_ns, node.end_ns);
        let start_ns = layout.at(node.start_ns);
        let out = events.event()?;
        write_node(node, excl_ns, &self.texts[replay.graph][node.ordinal as usize], replay, (tid, start_ns), out);
        if let Some(seen) = seen {
            write_seen(seen, layout, out);
        }
        out.raw("}}");
        write_flow_end(replay.correlation, (layout.pids.device, tid), start_ns, events.event()?);
        Ok(())
    }

    /// The names of its further lanes.
    pub(super) fn end<W: Write>(&self, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
        for lane in 1..self.lanes.count() as u64 {
            let name = format!("stream {} (overlap {lane})", layout.stream);
            super::host::name_lane(layout.pids.device, OVERLAP_TID + lane - 1, &name, 3 + lane, events)?;
        }
        Ok(())
    }

    pub(super) fn late(&self) -> u64 {
        self.lanes.late()
    }
}

fn start_ns(node: Option<&NodeTime>) -> Option<u64> {
    node.map(|node| node.start_ns)
}

/// Nodes of one replay mostly stand together.
fn text_of<'a>(
    current: &'a mut Option<(u32, Rc<ReplayText>)>,
    node: &NodeTime,
    recording: &Recording,
    layout: &Layout,
) -> &'a Rc<ReplayText> {
    if current.as_ref().is_some_and(|(of, _)| *of != node.replay) {
        *current = None;
    }
    let replay = &recording.replays[node.replay as usize];
    &current.get_or_insert_with(|| (node.replay, Rc::new(replay_text(recording, replay, layout)))).1
}

/// The lane of the next node or copy by begin.
pub(super) fn node_tid(lanes: &mut Lanes, start_ns: u64, end_ns: u64) -> u64 {
    let lane = lanes.place(start_ns, end_ns);
    if lane == 0 { STREAM } else { OVERLAP_TID + lane as u64 - 1 }
}

/// The arrow from a launch to what it launched.
pub(super) fn write_flow_end(correlation: u64, (pid, tid): (u64, u64), at_ns: u64, out: &mut Vec<u8>) {
    out.raw(r#"{"ph":"f","id":"#).int(correlation).raw(r#","cat":"ac2g","name":"ac2g","bp":"e","pid":"#);
    out.int(pid).raw(r#","tid":"#).int(tid).raw(r#","ts":"#).us(at_ns).raw("}");
}

fn write_node(
    node: &NodeTime,
    excl_ns: u64,
    text: &NodeText,
    replay: &ReplayText,
    (tid, start_ns): (u64, u64),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&text.head);
    out.int(tid).raw(r#","ts":"#).us(start_ns).raw(r#","dur":"#).us(node.end_ns - node.start_ns);
    out.extend_from_slice(&replay.stream);
    out.extend_from_slice(&text.place);
    out.extend_from_slice(&replay.replay);
    out.us(excl_ns);
    if let Some(sizes) = &replay.sizes {
        out.raw(r#","bytes":"#).int(text.cost.bytes.at(sizes).round() as u64);
        out.raw(r#","flops":"#).int(text.cost.flops.at(sizes).round() as u64);
    }
    out.raw(r#","wait_us":"#).us(node.wait_ns);
}

/// When the node ran by the driver's profiling library, where its slice is of its stamp: on the file's own time.
fn write_seen(seen: &SeenNode, layout: &Layout, out: &mut Vec<u8>) {
    out.raw(r#","lib_start_us":"#).us(layout.at(seen.start_ns));
    out.raw(r#","lib_dur_us":"#).us(seen.end_ns - seen.start_ns);
}

/// A step's sizes, as arguments.
pub(super) fn step_args(recording: &Recording, step: u64) -> Vec<u8> {
    let mut args = Vec::new();
    args.raw(r#""step":"#).int(step);
    if let Some(record) = recording.step(step) {
        let sizes = &record.sizes;
        for (name, value) in [
            ("tokens", sizes.tokens),
            ("prefill_tokens", record.prefill_tokens),
            ("seqs", sizes.seqs),
            ("logit_rows", sizes.logit_rows),
            ("kv_tokens", sizes.kv_tokens),
            ("qk_pairs", sizes.qk_pairs),
        ] {
            args.raw(",").string(name).raw(":").int(value);
        }
    }
    args
}
