//! The engine's thread: loop iterations, phases, launches; and the names of all lanes.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::json::{Events, Json};
use super::lanes::{Lanes, Nesting};
use super::nodes::step_args;
use super::{ENGINE_OVERLAP_TID, LAYERS_TID, Layout, REQUESTS_PID, STEPS_TID, STREAM};
use crate::report::{Recording, Report};
use crate::trace::schema::{HostSpan, ReplayRecord, StepRecord};

/// Names of processes and lanes: the file's first events.
pub(super) fn name_lanes<W: Write>(report: &Report, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let session = &report.recording.header.session;
    let device = format!("{} ({})", session.device.name, session.device.isa);
    name_process(layout.host_pid, "vitrum", "CPU", layout.host_pid, events)?;
    name_lane(layout.host_pid, layout.engine_tid, &format!("thread {} (engine)", layout.engine_tid), 0, events)?;
    name_process(layout.device_pid, &device, "GPU 0", 5_000_000, events)?;
    name_lane(layout.device_pid, STEPS_TID, "steps", 0, events)?;
    name_lane(layout.device_pid, LAYERS_TID, "layers", 1, events)?;
    name_lane(layout.device_pid, STREAM, &format!("stream {STREAM} "), 2, events)?;
    name_process(REQUESTS_PID, "requests", "requests", 6_000_000, events)
}

fn name_process<W: Write>(pid: u64, name: &str, labels: &str, order: u64, events: &mut Events<W>) -> io::Result<()> {
    metadata("process_name", (pid, 0), |out| _ = out.raw(r#""name":"#).string(name), events)?;
    metadata("process_labels", (pid, 0), |out| _ = out.raw(r#""labels":"#).string(labels), events)?;
    metadata("process_sort_index", (pid, 0), |out| _ = out.raw(r#""sort_index":"#).int(order), events)
}

/// Names a lane and gives it its place among its process's lanes.
pub(super) fn name_lane<W: Write>(
    pid: u64,
    tid: u64,
    name: &str,
    order: u64,
    events: &mut Events<W>,
) -> io::Result<()> {
    metadata("thread_name", (pid, tid), |out| _ = out.raw(r#""name":"#).string(name), events)?;
    metadata("thread_sort_index", (pid, tid), |out| _ = out.raw(r#""sort_index":"#).int(order), events)
}

fn metadata<W: Write>(
    name: &str,
    (pid, tid): (u64, u64),
    args: impl FnOnce(&mut Vec<u8>),
    events: &mut Events<W>,
) -> io::Result<()> {
    let out = events.event()?;
    out.raw(r#"{"ph":"M","name":"#).string(name).raw(r#","pid":"#).int(pid).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":0.000,"args":{"#);
    args(out);
    out.raw("}}");
    Ok(())
}

/// Each graph's node table, when its first replay was launched.
pub(super) fn node_tables<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    for (index, graph) in recording.graphs.iter().enumerate() {
        let first = recording.replays.iter().find(|replay| replay.graph == index);
        let at_ns = first.map_or(0, |replay| layout.at(replay.record.launch_start_ns));
        let out = events.event()?;
        out.raw(r#"{"ph":"i","s":"t","cat":"graph","name":"#).string(&format!("graph {}", graph.key));
        out.raw(r#","pid":"#).int(layout.host_pid).raw(r#","tid":"#).int(layout.engine_tid);
        out.raw(r#","ts":"#).us(at_ns).raw(r#","args":{"graph id":"#).int(graph.id.into()).raw(r#","nodes":["#);
        for (ordinal, node) in graph.nodes.iter().enumerate() {
            out.raw(if ordinal == 0 { "[" } else { ",[" }).int(ordinal as u64).raw(",").string(&node.kernel);
            out.raw(",").string(&node.choice).raw(",").raw(&node.place.layer.to_string());
            out.raw(",").string(node.place.op.as_str()).raw("]");
        }
        out.raw("]}}");
    }
    Ok(())
}

/// What the engine's thread does. Of slices with the same begin the outer comes first: iteration, phase, launch.
enum HostSlice<'a> {
    Step(&'a StepRecord),
    Phase(&'a HostSpan),
    Launch(&'a ReplayRecord, usize),
}

impl HostSlice<'_> {
    fn times_ns(&self) -> (u64, u64) {
        let (start_ns, end_ns) = match self {
            HostSlice::Step(step) => (step.start_ns, step.end_ns),
            HostSlice::Phase(span) => (span.start_ns, span.end_ns),
            HostSlice::Launch(replay, _) => (replay.launch_start_ns, replay.launch_end_ns),
        };
        (start_ns, end_ns.max(start_ns))
    }
}

/// Loop iterations, phases inside them, launches inside these. What does not nest goes to a lane of its own.
pub(super) fn engine_thread<W: Write>(report: &Report, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let recording = &report.recording;
    let steps = recording.steps.iter().map(HostSlice::Step);
    let phases = recording.spans.iter().map(HostSlice::Phase);
    let launches = recording.replays.iter().enumerate().map(|(at, replay)| HostSlice::Launch(&replay.record, at));
    let mut slices: Vec<HostSlice<'_>> = steps.chain(phases).chain(launches).collect();
    // Stable, so that of equal slices the outer stays first.
    slices.sort_by_key(|slice| {
        let (start_ns, end_ns) = slice.times_ns();
        (start_ns, Reverse(end_ns))
    });
    let mut lanes = Lanes::new(Nesting::Nested);
    for slice in &slices {
        let (start_ns, end_ns) = slice.times_ns();
        let lane = lanes.place(start_ns, end_ns);
        let tid = if lane == 0 { layout.engine_tid } else { ENGINE_OVERLAP_TID + lane as u64 - 1 };
        write_slice(slice, recording, layout, tid, events)?;
    }
    for lane in 1..lanes.count() as u64 {
        let name = format!("thread {} (engine, overlap {lane})", layout.engine_tid);
        name_lane(layout.host_pid, ENGINE_OVERLAP_TID + lane - 1, &name, lane, events)?;
    }
    Ok(())
}

fn write_slice<W: Write>(
    slice: &HostSlice<'_>,
    recording: &Recording,
    layout: &Layout,
    tid: u64,
    events: &mut Events<W>,
) -> io::Result<()> {
    let (start_ns, end_ns) = slice.times_ns();
    let out = events.event()?;
    match slice {
        HostSlice::Step(step) => {
            out.raw(r#"{"ph":"X","cat":"user_annotation","name":"ProfilerStep#"#).int(step.step).raw("\"");
        }
        HostSlice::Phase(span) => {
            out.raw(r#"{"ph":"X","cat":"user_annotation","name":"#).string(span.phase.as_str());
        }
        HostSlice::Launch(..) => {
            out.raw(r#"{"ph":"X","cat":"cuda_driver","name":"replay""#);
        }
    }
    out.raw(r#","pid":"#).int(layout.host_pid).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":"#).us(layout.at(start_ns)).raw(r#","dur":"#).us(end_ns - start_ns).raw(r#","args":{"#);
    match slice {
        HostSlice::Step(step) => write_step_args(step, recording, out),
        HostSlice::Phase(span) => {
            out.raw(r#""step":"#).int(span.step);
        }
        HostSlice::Launch(replay, at) => {
            let graph = &recording.graphs[recording.replays[*at].graph];
            out.raw(r#""correlation":"#).int(replay.replay).raw(r#","graph":"#).string(&graph.key.to_string());
            out.raw(r#","graph id":"#).int(graph.id.into()).raw(r#","step":"#).int(replay.step);
            out.raw(r#","traced":"#).raw(if replay.sources.any() { "true" } else { "false" });
        }
    }
    out.raw("}}");
    if let HostSlice::Launch(replay, at) = slice
        && !recording.replays[*at].nodes.is_empty()
    {
        let out = events.event()?;
        out.raw(r#"{"ph":"s","id":"#).int(replay.replay).raw(r#","cat":"ac2g","name":"ac2g","pid":"#);
        out.int(layout.host_pid).raw(r#","tid":"#).int(tid).raw(r#","ts":"#).us(layout.at(start_ns)).raw("}");
    }
    Ok(())
}

/// The step's sizes and its batch's composition.
fn write_step_args(step: &StepRecord, recording: &Recording, out: &mut Vec<u8>) {
    out.extend_from_slice(&step_args(recording, step.step));
    out.raw(r#","traced":"#).raw(if step.traced { "true" } else { "false" }).raw(r#","requests":["#);
    for (at, member) in recording.members_of(step.step).iter().enumerate() {
        out.raw(if at == 0 { r#"{"request":"# } else { r#",{"request":"# }).int(member.request);
        out.raw(r#","tokens":"#).int(member.tokens.into());
        out.raw(r#","prefill_tokens":"#).int(member.prefill_tokens.into());
        out.raw(r#","kv_len":"#).int(member.kv_len.into()).raw("}");
    }
    out.raw("]");
}
