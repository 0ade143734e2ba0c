//! Requests: one slice for each life, with its stretches inside: queued, prefill, decode, preempted.

use std::io::{self, Write};

use super::json::{Events, Json};
use super::lanes::{Lanes, Nesting};
use super::layout::Layout;
use crate::report::Recording;
use crate::report::lives::{end_word, lives};

pub(super) fn write<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let lives = lives(recording, (layout.start_ns, layout.end_ns));
    let mut lanes = Lanes::new(Nesting::Disjoint);
    for life in &lives {
        let tid = 1 + lanes.place(life.start_ns, life.end_ns) as u64;
        let out = slice(&format!("request {}", life.request), tid, (life.start_ns, life.end_ns), layout, events)?;
        out.raw(r#""request":"#).int(life.request).raw(r#","tokens":"#).int(life.tokens.into());
        out.raw(r#","end":"#).string(end_word(life.ended)).raw("}}");
        for (stretch, start_ns, end_ns) in &life.stretches {
            let out = slice(stretch.as_str(), tid, (*start_ns, *end_ns), layout, events)?;
            out.raw(r#""request":"#).int(life.request).raw("}}");
        }
    }
    for lane in 1..=lanes.count() as u64 {
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
