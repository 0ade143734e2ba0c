//! Requests: one slice for each life, with its stretches inside: queued, prefill, decode, preempted.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::json::{Events, Json};
use super::lanes::{Lanes, Nesting};
use super::layout::Layout;
use crate::report::Recording;
use crate::trace::schema::{RequestMoment, RequestRecord};

/// A request's life as far as the recording saw it.
struct Life {
    request: u64,
    start_ns: u64,
    end_ns: u64,
    stretches: Vec<(&'static str, u64, u64)>,
    /// Tokens at its last moment.
    tokens: u32,
    /// How it ended; `None`: it was still running when the recording ended.
    ended: Option<RequestMoment>,
}

pub(super) fn write<W: Write>(recording: &Recording, layout: &Layout, events: &mut Events<W>) -> io::Result<()> {
    let mut lives = lives(recording, layout);
    lives.sort_by_key(|life| (life.start_ns, life.request));
    let mut lanes = Lanes::new(Nesting::Disjoint);
    for life in &lives {
        let tid = 1 + lanes.place(life.start_ns, life.end_ns) as u64;
        let out = slice(&format!("request {}", life.request), tid, (life.start_ns, life.end_ns), layout, events)?;
        out.raw(r#""request":"#).int(life.request).raw(r#","tokens":"#).int(life.tokens.into());
        out.raw(r#","end":"#).string(end_word(life.ended)).raw("}}");
        for (name, start_ns, end_ns) in &life.stretches {
            let out = slice(name, tid, (*start_ns, *end_ns), layout, events)?;
            out.raw(r#""request":"#).int(life.request).raw("}}");
        }
    }
    for lane in 1..=lanes.count() as u64 {
        super::host::name_lane(layout.pids.requests, lane, &format!("requests {lane}"), lane, events)?;
    }
    Ok(())
}

fn end_word(ended: Option<RequestMoment>) -> &'static str {
    match ended {
        Some(RequestMoment::Finished) => "finished",
        Some(_) => "aborted",
        None => "after the recording",
    }
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

/// Lives from moments; a request of which only batch compositions are known ran all the time.
fn lives(recording: &Recording, layout: &Layout) -> Vec<Life> {
    let mut moments: BTreeMap<u64, Vec<&RequestRecord>> = BTreeMap::new();
    for record in &recording.requests {
        moments.entry(record.request).or_default().push(record);
    }
    for member in &recording.members {
        moments.entry(member.request).or_default();
    }
    moments.iter().map(|(request, moments)| life(*request, moments, layout)).collect()
}

fn life(request: u64, moments: &[&RequestRecord], layout: &Layout) -> Life {
    let mut stretches = Vec::new();
    // What the request did until the next moment; before the first one it was running, if it was there.
    let mut state = Some("running");
    let mut since_ns = layout.start_ns;
    let mut start_ns = layout.start_ns;
    let mut ended = None;
    for (at, record) in moments.iter().enumerate() {
        if at == 0 && record.moment == RequestMoment::Queued {
            (start_ns, since_ns, state) = (record.at_ns, record.at_ns, None);
        }
        if let Some(name) = state {
            stretches.push((name, since_ns, record.at_ns));
        }
        since_ns = record.at_ns;
        state = match record.moment {
            RequestMoment::Queued => Some("queued"),
            RequestMoment::Scheduled => Some("prefill"),
            RequestMoment::FirstToken => Some("decode"),
            RequestMoment::Preempted => Some("preempted"),
            RequestMoment::Finished | RequestMoment::Aborted => None,
        };
        ended = state.is_none().then_some(record.moment);
    }
    if let Some(name) = state {
        stretches.push((name, since_ns, layout.end_ns));
    }
    let end_ns = if state.is_some() { layout.end_ns } else { since_ns };
    Life { request, start_ns, end_ns, stretches, tokens: moments.last().map_or(0, |record| record.tokens), ended }
}
