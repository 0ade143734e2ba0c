//! The engine's thread: loop iterations, phases, launches, other calls of the driver.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::events::Events;
use super::host::name_lane;
use super::lanes::{ENGINE_OVERLAP_TID, Lanes};
use super::nodes::step_args;
use crate::report::json::Json;
use crate::report::layout::Layout;
use crate::report::{Call, Recording, Replay};
use crate::trace::schema::{HostSpan, StepRecord};

/// What a thread does. Of slices with the same begin the outer comes first: iteration, phase, launch, call.
pub(super) enum HostSlice<'a> {
    Step(&'a StepRecord),
    Phase(&'a HostSpan),
    Launch(Launch<'a>),
    /// And whether a copy in the file is its.
    Call(&'a Call, bool),
}

/// A replay's launch.
pub(super) struct Launch<'a> {
    replay: &'a Replay,
    /// The call that it was, if the driver's profiling library saw it.
    call: Option<&'a Call>,
    /// Whether the device has something in the file for it.
    has_work: bool,
}

impl HostSlice<'_> {
    fn times_ns(&self) -> (u64, u64) {
        let (start_ns, end_ns) = match self {
            HostSlice::Step(step) => (step.start_ns, step.end_ns),
            HostSlice::Phase(span) => (span.start_ns, span.end_ns),
            HostSlice::Launch(Launch { call: Some(call), .. }) | HostSlice::Call(call, _) => {
                (call.record.start_ns, call.record.end_ns)
            }
            HostSlice::Launch(Launch { replay, .. }) => (replay.record.launch_start_ns, replay.record.launch_end_ns),
        };
        (start_ns, end_ns.max(start_ns))
    }
}

/// Loop iterations, phases inside them, launches and other calls inside these. What does not nest goes to a lane of its
/// own.
pub(super) fn engine_thread<W: Write>(
    recording: &Recording,
    has_copies: &[bool],
    layout: &Layout,
    lanes: &mut Lanes,
    events: &mut Events<W>,
) -> io::Result<()> {
    let steps = recording.steps.iter().map(HostSlice::Step);
    let phases = recording.spans.iter().map(HostSlice::Phase);
    let launches = launches(recording, has_copies).into_iter().map(HostSlice::Launch);
    let mut slices: Vec<HostSlice<'_>> = steps.chain(phases).chain(launches).collect();
    let calls = recording.seen.calls.iter().zip(has_copies);
    let calls = calls.filter(|(call, _)| call.replay.is_none() && recording.seen.is_engine(call));
    slices.extend(calls.map(|(call, has_copies)| HostSlice::Call(call, *has_copies)));
    // Stable, so that of equal slices the outer stays first.
    slices.sort_by_key(|slice| {
        let (start_ns, end_ns) = slice.times_ns();
        (start_ns, Reverse(end_ns))
    });
    for slice in &slices {
        let (start_ns, end_ns) = slice.times_ns();
        let lane = lanes.place(start_ns, end_ns);
        let tid = if lane == 0 { layout.engine_tid } else { ENGINE_OVERLAP_TID + lane as u64 - 1 };
        write_slice(slice, recording, layout, tid, events)?;
    }
    Ok(())
}

/// The names of its further lanes.
pub(super) fn end_engine_thread<W: Write>(layout: &Layout, lanes: &Lanes, events: &mut Events<W>) -> io::Result<()> {
    for lane in 1..lanes.count() as u64 {
        let name = format!("thread {} (engine, overlap {lane})", layout.engine_tid);
        name_lane(layout.pids.host, ENGINE_OVERLAP_TID + lane - 1, &name, lane, events)?;
    }
    Ok(())
}

/// Every replay's launch.
fn launches<'a>(recording: &'a Recording, has_copies: &[bool]) -> Vec<Launch<'a>> {
    let replays = recording.replays.iter();
    let mut launches: Vec<Launch<'a>> =
        replays.map(|replay| Launch { replay, call: None, has_work: !replay.nodes.is_empty() }).collect();
    for (call, has_copies) in recording.seen.calls.iter().zip(has_copies) {
        if let Some(replay) = call.replay {
            let launch = &mut launches[replay as usize];
            launch.call = Some(call);
            launch.has_work |= has_copies;
        }
    }
    launches
}

/// Writes a slice, and the begin of an arrow if the device did something for it.
pub(super) fn write_slice<W: Write>(
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
        HostSlice::Launch(Launch { call: Some(call), .. }) | HostSlice::Call(call, _) => {
            out.raw(r#"{"ph":"X","cat":"cuda_driver","name":"#).string(call.record.call.as_str());
        }
        HostSlice::Launch(Launch { call: None, .. }) => {
            out.raw(r#"{"ph":"X","cat":"cuda_driver","name":"replay""#);
        }
    }
    out.raw(r#","pid":"#).int(layout.pids.host).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":"#).us(layout.at(start_ns)).raw(r#","dur":"#).us(end_ns - start_ns).raw(r#","args":{"#);
    let mut arrow = None;
    match slice {
        HostSlice::Step(step) => write_step_args(step, recording, out),
        HostSlice::Phase(span) => {
            out.raw(r#""step":"#).int(span.step);
        }
        HostSlice::Launch(Launch { replay, has_work, .. }) => {
            let (graph, record) = (&recording.graphs[replay.graph], &replay.record);
            let correlation = layout.correlation(record.replay);
            out.raw(r#""correlation":"#).int(correlation).raw(r#","graph":"#).string(&graph.key.to_string());
            out.raw(r#","graph id":"#).int(layout.graph_id(graph.id)).raw(r#","step":"#).int(record.step);
            out.raw(r#","traced":"#).raw(if record.sources.any() { "true" } else { "false" });
            arrow = has_work.then_some(correlation);
        }
        HostSlice::Call(call, has_copies) => {
            let correlation = layout.call_correlation(call, recording);
            out.raw(r#""correlation":"#).int(correlation);
            if call.record.status != 0 {
                out.raw(r#","status":"#).int(call.record.status.into());
            }
            arrow = has_copies.then_some(correlation);
        }
    }
    out.raw("}}");
    if let Some(correlation) = arrow {
        let out = events.event()?;
        out.raw(r#"{"ph":"s","id":"#).int(correlation).raw(r#","cat":"ac2g","name":"ac2g","pid":"#);
        out.int(layout.pids.host).raw(r#","tid":"#).int(tid).raw(r#","ts":"#).us(layout.at(start_ns)).raw("}");
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
