//! The names of all lanes, and the node tables.

use std::io::{self, Write};

use super::events::Events;
use super::lanes::{LAYERS_TID, STEPS_TID};
use crate::report::Recording;
use crate::report::json::Json;
use crate::report::layout::{Layout, STREAM};
use crate::report::model::Survey;
use crate::trace::schema::GraphTable;

/// Names of processes and lanes: the file's first events.
pub(super) fn name_lanes<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let session = &recording.header.session;
    let device = format!("{} ({})", session.device.name, session.device.isa);
    let (pids, order) = (&layout.pids, |alone, within| layout.process_order(alone, within));
    name_process(pids.host, &layout.process_name("vitrum"), "CPU", order(pids.host, 0), events)?;
    name_lane(pids.host, layout.engine_tid, &format!("thread {} (engine)", layout.engine_tid), 0, events)?;
    let label = format!("GPU {}", layout.device);
    name_process(pids.device, &layout.process_name(&device), &label, order(5_000_000, 1), events)?;
    name_lane(pids.device, STEPS_TID, "steps", 0, events)?;
    name_lane(pids.device, LAYERS_TID, "layers", 1, events)?;
    name_lane(pids.device, STREAM, &format!("stream {} ", layout.stream), 2, events)?;
    name_process(pids.requests, &layout.process_name("requests"), "requests", order(6_000_000, 2), events)
}

/// Names a process and gives it its place.
pub(super) fn name_process<W: Write>(
    pid: u64,
    name: &str,
    labels: &str,
    order: u64,
    events: &mut Events<W>,
) -> io::Result<()> {
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
pub(super) fn node_tables<W: Write>(
    graphs: &[GraphTable],
    survey: &Survey,
    layout: &Layout,
    events: &mut Events<W>,
) -> io::Result<()> {
    for graph in graphs {
        let at_ns = survey.first_of.get(&graph.id).map_or(0, |(_, launch_start_ns)| layout.at(*launch_start_ns));
        let out = events.event()?;
        out.raw(r#"{"ph":"i","s":"t","cat":"graph","name":"#).string(&format!("graph {}", graph.key));
        out.raw(r#","pid":"#).int(layout.pids.host).raw(r#","tid":"#).int(layout.engine_tid);
        out.raw(r#","ts":"#)
            .us(at_ns)
            .raw(r#","args":{"graph id":"#)
            .int(layout.graph_id(graph.id))
            .raw(r#","nodes":["#);
        for (ordinal, node) in graph.nodes.iter().enumerate() {
            out.raw(if ordinal == 0 { "[" } else { ",[" }).int(ordinal as u64).raw(",").string(&node.kernel);
            out.raw(",").string(&node.choice).raw(",").raw(&node.place.layer.to_string());
            out.raw(",").string(node.place.op.as_str()).raw("]");
        }
        out.raw("]}}");
    }
    Ok(())
}
