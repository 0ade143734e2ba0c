//! Requests: one slice for each life, with its stretches inside: queued, prefill, decode, preempted.

use std::io::{self, Write};

use super::events::Events;
use crate::report::Life;
use crate::report::json::Json;
use crate::report::layout::Layout;

/// A life, in its lane.
pub(super) fn write<W: Write>(life: &Life, lane: usize, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let tid = 1 + lane as u64;
    let out = slice(&format!("request {}", life.request), tid, (life.start_ns, life.end_ns), layout, events)?;
    out.raw(r#""request":"#).int(life.request);
    if let Some(tokens) = life.answer_tokens() {
        out.raw(r#","tokens":"#).int(tokens.into());
    }
    out.raw(r#","end":"#).string(life.end_word());
    if let Some(name) = &life.name {
        out.raw(r#","request id":"#).string(name);
    }
    out.raw("}}");
    for stretch in &life.stretches {
        let times = (stretch.start_ns, stretch.end_ns);
        let out = slice(stretch.doing.as_str(), tid, times, layout, events)?;
        out.raw(r#""request":"#).int(life.request).raw("}}");
    }
    Ok(())
}

/// The names of so many lanes.
pub(super) fn end<W: Write>(lanes: usize, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    for lane in 1..=lanes as u64 {
        super::host::name_lane(layout.pids.requests, lane, &format!("requests {lane}"), lane, events)?;
    }
    Ok(())
}

fn slice<'a, W: Write>(
    name: &str,
    tid: u64,
    (start_ns, end_ns): (u64, u64),
    layout: &Layout,
    events: &'a mut Events<W>,
) -> io::Result<&'a mut Vec<u8>> {
    let out = events.event()?;
    out.raw(r#"{"ph":"X","cat":"request","name":"#).string(name);
    out.raw(r#","pid":"#).int(layout.pids.requests).raw(r#","tid":"#).int(tid);
    out.raw(r#","ts":"#).us(layout.at(start_ns)).raw(r#","dur":"#).us(end_ns - start_ns).raw(r#","args":{"#);
    Ok(out)
}
