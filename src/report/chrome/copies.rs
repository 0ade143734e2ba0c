//! Copies and fills on the device's lanes, in the words of PyTorch's tools.

use std::io::{self, Write};

use super::events::Events;
use super::lanes::Lanes;
use super::nodes::{node_tid, write_flow_end};
use crate::report::copies::CopySlice;
use crate::report::json::Json;
use crate::report::layout::{CONTEXT, Layout};
use crate::trace::activity::CopyKind;

/// Writes a copy, and the end of the arrow from its launch.
pub(super) fn write<W: Write>(
    copy: &CopySlice,
    layout: &Layout,
    lanes: &mut Lanes,
    events: &mut Events<W>,
) -> io::Result<()> {
    let (category, name) = match copy.kind {
        CopyKind::HtoD => ("gpu_memcpy", "Memcpy HtoD"),
        CopyKind::DtoH => ("gpu_memcpy", "Memcpy DtoH"),
        CopyKind::DtoD => ("gpu_memcpy", "Memcpy DtoD"),
        CopyKind::Other => ("gpu_memcpy", "Memcpy Unknown"),
        CopyKind::Fill => ("gpu_memset", "Memset (Device)"),
    };
    let ns = copy.end_ns - copy.start_ns;
    let tid = node_tid(lanes, copy.start_ns, copy.end_ns);
    let out = events.event()?;
    out.raw(r#"{"ph":"X","cat":"#).string(category).raw(r#","name":"#).string(name);
    out.raw(r#","pid":"#).int(layout.pids.device).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":"#).us(layout.at(copy.start_ns)).raw(r#","dur":"#).us(ns);
    out.raw(r#","args":{"device":"#).int(layout.device).raw(r#","context":"#).int(CONTEXT);
    out.raw(r#","stream":"#).int(layout.stream);
    out.raw(r#","correlation":"#).int(copy.correlation);
    if let Some(step) = copy.step {
        out.raw(r#","step":"#).int(step);
    }
    out.raw(r#","bytes":"#).int(copy.bytes);
    if ns > 0 {
        // Bytes for each nanosecond.
        out.raw(r#","memory bandwidth (GB/s)":"#).raw(&(copy.bytes as f64 / ns as f64).to_string());
    }
    out.raw("}}");
    write_flow_end(copy.correlation, (layout.pids.device, tid), layout.at(copy.start_ns), events.event()?);
    Ok(())
}
