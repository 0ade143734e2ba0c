//! The device's lanes: nodes, and above them layers and steps.

use std::io::{self, Write};

use super::copies;
use super::events::Events;
use super::lanes::{LAYERS_TID, Lanes, Nesting, OVERLAP_TID, STEPS_TID};
use crate::report::copies::by_start;
use crate::report::json::Json;
use crate::report::layout::{CONTEXT, Layout, STREAM};
use crate::report::{DeviceRange, NodeTime, Recording, Replay, Report, SeenNode};
use crate::trace::schema::{Cost, GraphTable, LaunchFacts, NodeInfo, StepSizes};

pub(super) fn write<W: Write>(report: &Report, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let recording = &report.recording;
    write_nodes(recording, layout, events)?;
    write_ranges(recording, layout, events)
}

/// The parts of a node's event that are the same in every replay.
struct NodeText<'a> {
    /// Up to the lane.
    head: Vec<u8>,
    /// Between the correlation and the replay.
    place: Vec<u8>,
    cost: &'a Cost,
}

fn node_text<'a>(layout: &Layout, graph: &GraphTable, ordinal: usize, info: &'a NodeInfo) -> NodeText<'a> {
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
    NodeText { head, place, cost: &info.cost }
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
}

fn replay_text(recording: &Recording, replay: &Replay, layout: &Layout) -> ReplayText {
    let record = &replay.record;
    let mut stream = Vec::new();
    stream.raw(r#","args":{"device":"#).int(layout.device).raw(r#","context":"#).int(CONTEXT);
    stream.raw(r#","stream":"#).int(layout.stream);
    stream.raw(r#","correlation":"#).int(layout.correlation(record.replay));
    let mut text = Vec::new();
    text.raw(r#","step":"#).int(record.step).raw(r#","replay":"#).int(record.replay).raw(r#","excl_us":"#);
    ReplayText { stream, replay: text, sizes: recording.step(record.step).map(|step| step.sizes) }
}

fn write_nodes<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let texts: Vec<Vec<NodeText<'_>>> = recording
        .graphs
        .iter()
        .map(|graph| graph.nodes.iter().enumerate().map(|(at, info)| node_text(layout, graph, at, info)).collect())
        .collect();
    let mut lanes = Lanes::new(Nesting::Disjoint);
    let mut current: Option<(u32, ReplayText)> = None;
    let mut copies = by_start(recording, layout).into_iter().peekable();
    for at in &recording.nodes_by_start {
        let node = &recording.nodes[*at as usize];
        while let Some(copy) = copies.next_if(|copy| copy.start_ns <= node.start_ns) {
            copies::write(&copy, layout, &mut lanes, events)?;
        }
        let replay = &recording.replays[node.replay as usize];
        if current.as_ref().is_none_or(|(of, _)| *of != node.replay) {
            current = Some((node.replay, replay_text(recording, replay, layout)));
        }
        let Some((_, replay_text)) = &current else { continue };
        let tid = node_tid(&mut lanes, node.start_ns, node.end_ns);
        let start_ns = layout.at(node.start_ns);
        let out = events.event()?;
        write_node(node, &texts[replay.graph][node.ordinal as usize], replay_text, (tid, start_ns), out);
        if let Some(seen) = recording.seen.node(replay, node.ordinal) {
            write_seen(seen, layout, out);
        }
        out.raw("}}");
        let correlation = layout.correlation(replay.record.replay);
        write_flow_end(correlation, (layout.pids.device, tid), start_ns, events.event()?);
    }
    for copy in copies {
        copies::write(&copy, layout, &mut lanes, events)?;
    }
    for lane in 1..lanes.count() as u64 {
        let name = format!("stream {} (overlap {lane})", layout.stream);
        super::host::name_lane(layout.pids.device, OVERLAP_TID + lane - 1, &name, 3 + lane, events)?;
    }
    Ok(())
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
    text: &NodeText<'_>,
    replay: &ReplayText,
    (tid, start_ns): (u64, u64),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&text.head);
    out.int(tid).raw(r#","ts":"#).us(start_ns).raw(r#","dur":"#).us(node.end_ns - node.start_ns);
    out.extend_from_slice(&replay.stream);
    out.extend_from_slice(&text.place);
    out.extend_from_slice(&replay.replay);
    out.us(node.excl_ns);
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

/// Layers and steps, on lanes that carry no stream, device or correlation.
fn write_ranges<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let replays = &recording.replays;
    let (layers, steps) = (DeviceRange::layers(recording, replays), DeviceRange::steps(recording, replays));
    for (ranges, tid) in [(layers, LAYERS_TID), (steps, STEPS_TID)] {
        for range in ranges {
            let out = events.event()?;
            out.raw(r#"{"ph":"X","cat":"gpu_user_annotation","name":"#);
            match range.layer {
                Some(layer) => out.string(&format!("layer {layer}")),
                None => out.string(&format!("step {}", range.step)),
            };
            out.raw(r#","pid":"#).int(layout.pids.device).raw(r#","tid":"#).int(tid);
            out.raw(r#","ts":"#).us(layout.at(range.start_ns)).raw(r#","dur":"#).us(range.end_ns - range.start_ns);
            out.raw(r#","args":{"#);
            match range.layer {
                Some(layer) => _ = out.raw(r#""layer":"#).int(layer).raw(r#","step":"#).int(range.step),
                None => out.extend_from_slice(&step_args(recording, range.step)),
            }
            out.raw("}}");
        }
    }
    Ok(())
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
