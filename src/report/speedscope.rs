//! Two flame graphs in speedscope's own file format: the device's nodes, and the engine's thread.
//!
//! Speedscope adds up frames that are equal, arguments included, so frames here have none: a step is named by its
//! graphs, not by its number, a layer by its number, a node by its op and its kernel. Left Heavy and Sandwich then show
//! what `node_sum` and `op_sum` say: a node's slice is its exclusive time, from the end of what began before it. Of a
//! thread's slices that do not nest, the later one is cut to the one around it.
//!
//! Rules of the format: events of a profile ascend, every frame that is opened is closed, the innermost first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use super::json::Json;
use super::{Recording, Report, ReportError, model, output};
use crate::trace::schema::NodeInfo;

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";
const FLUSH_BYTES: usize = 256 << 10;

/// Writes the file, gzipped if `path` ends in `.gz`; a file that is there is replaced by a whole one only.
pub fn write(report: &Report, path: &Path) -> Result<(), ReportError> {
    output::maybe_gzipped(path, |out| Ok(write_json(report, out).map(drop)?))
}

/// Writes the file as plain JSON, and returns what it wrote to.
pub fn write_json<W: Write>(report: &Report, mut out: W) -> io::Result<W> {
    let recording = &report.recording;
    let session = &recording.header.session;
    let mut frames = Frames::default();
    let mut head = Vec::new();
    head.raw("{\"$schema\": ").string(SCHEMA).raw(",\n\"exporter\": ");
    head.string(&format!("vitrum {}", session.version)).raw(",\n\"name\": ");
    head.string(&format!("{} on {}, {}", session.model, session.device.name, recording.header.id));
    head.raw(",\n\"activeProfileIndex\": 0,\n\"profiles\": [");
    out.write_all(&head)?;
    device(recording, &mut frames, &mut out)?;
    out.write_all(b",\n")?;
    engine_thread(recording, &mut frames, &mut out)?;
    // Behind the profiles: only now are all frames known.
    out.write_all(b"],\n\"shared\": {\"frames\": [")?;
    out.write_all(&frames.json)?;
    out.write_all(b"]}}\n")?;
    Ok(out)
}

/// Names in the file, each once.
#[derive(Default)]
struct Frames {
    numbers: HashMap<String, usize>,
    json: Vec<u8>,
}

impl Frames {
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len();
        self.json.raw(if number == 0 { "\n{\"name\":" } else { ",\n{\"name\":" }).string(name).raw("}");
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// A profile on its way to the file.
struct Profile<'a, W> {
    out: &'a mut W,
    bytes: Vec<u8>,
    base_ns: u64,
    /// Frames that are open, and when they end at the latest: the innermost last.
    open: Vec<(usize, u64)>,
    at_ns: u64,
    is_first: bool,
}

impl<'a, W: Write> Profile<'a, W> {
    fn begin(name: &str, (base_ns, end_ns): (u64, u64), out: &'a mut W) -> Profile<'a, W> {
        let mut bytes = Vec::new();
        bytes.raw("\n{\"type\":\"evented\",\"name\":").string(name).raw(",\"unit\":\"nanoseconds\",\"startValue\":0,");
        bytes.raw("\"endValue\":").int(end_ns.saturating_sub(base_ns)).raw(",\"events\":[");
        Profile { out, bytes, base_ns, open: Vec::new(), at_ns: base_ns, is_first: true }
    }

    fn event(&mut self, kind: &str, frame: usize) -> io::Result<()> {
        self.bytes.raw(if self.is_first { "\n{\"type\":\"" } else { ",\n{\"type\":\"" }).raw(kind);
        self.bytes.raw("\",\"frame\":").int(frame as u64).raw(",\"at\":").int(self.at_ns - self.base_ns).raw("}");
        self.is_first = false;
        if self.bytes.len() >= FLUSH_BYTES {
            self.out.write_all(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Opens a frame within those that are open.
    fn open(&mut self, frame: usize, start_ns: u64, end_ns: u64) -> io::Result<()> {
        self.at_ns = self.at_ns.max(start_ns);
        let within_ns = self.open.last().map_or(u64::MAX, |(_, end_ns)| *end_ns);
        self.open.push((frame, end_ns.min(within_ns).max(self.at_ns)));
        self.event("O", frame)
    }

    /// Closes the innermost frame at its end, or at `until_ns` if that is before.
    fn close(&mut self, until_ns: u64) -> io::Result<()> {
        let Some((frame, end_ns)) = self.open.pop() else { return Ok(()) };
        self.at_ns = self.at_ns.max(end_ns.min(until_ns));
        self.event("C", frame)
    }

    /// A slice of a thread, whose slices come by begin, the outer first.
    fn slice(&mut self, frame: usize, start_ns: u64, end_ns: u64) -> io::Result<()> {
        while self.open.last().is_some_and(|(_, end_ns)| *end_ns <= start_ns) {
            self.close(u64::MAX)?;
        }
        self.open(frame, start_ns, end_ns)
    }

    fn finish(mut self) -> io::Result<()> {
        while !self.open.is_empty() {
            self.close(u64::MAX)?;
        }
        self.bytes.raw("]}");
        self.out.write_all(&self.bytes)
    }
}

/// Step, layer, node: of the nodes' exclusive times, which follow each other.
fn device<W: Write>(recording: &Recording, frames: &mut Frames, out: &mut W) -> io::Result<()> {
    let session = &recording.header.session;
    let (base_ns, last_ns) = recording.span();
    let name = format!("{}: nodes", session.device.name);
    let mut profile = Profile::begin(&name, (base_ns, last_ns), out);
    let graphs = recording.graphs_by_step();
    let nodes: Vec<Vec<usize>> = recording
        .graphs
        .iter()
        .map(|graph| graph.nodes.iter().map(|info| frames.number(&node_name(info))).collect())
        .collect();
    let mut current: Option<(u64, i32)> = None;
    let mut latest_end_ns = base_ns;
    for at in &recording.nodes_by_start {
        let node = &recording.nodes[*at as usize];
        let replay = &recording.replays[node.replay as usize];
        let (step, layer) = (replay.record.step, recording.info(node).place.layer);
        if current != Some((step, layer)) {
            // Outside the layers a node stands in its step.
            let keep = usize::from(current.is_some_and(|(last, _)| last == step));
            while profile.open.len() > keep {
                profile.close(latest_end_ns)?;
            }
            let start_ns = node.start_ns.max(latest_end_ns);
            if keep == 0 {
                let name = graphs.get(&step).map_or_else(String::new, |graphs| model::names(graphs));
                profile.open(frames.number(&format!("step {name}")), start_ns, u64::MAX)?;
            }
            if layer >= 0 {
                profile.open(frames.number(&format!("layer {layer}")), start_ns, u64::MAX)?;
            }
            current = Some((step, layer));
        }
        let end_ns = node.end_ns.max(latest_end_ns);
        profile.open(nodes[replay.graph][node.ordinal as usize], end_ns - node.excl_ns, end_ns)?;
        profile.close(end_ns)?;
        latest_end_ns = end_ns;
    }
    while !profile.open.is_empty() {
        profile.close(latest_end_ns)?;
    }
    profile.finish()
}

fn node_name(info: &NodeInfo) -> String {
    format!("{} {}", info.place.op, info.kernel)
}

/// Loop iterations, phases inside them, launches and other calls of the driver inside these.
fn engine_thread<W: Write>(recording: &Recording, frames: &mut Frames, out: &mut W) -> io::Result<()> {
    let seen = &recording.seen;
    let mut slices: Vec<(u64, u64, usize)> = Vec::new();
    let iteration = frames.number("ProfilerStep");
    slices.extend(recording.steps.iter().map(|step| (step.start_ns, step.end_ns, iteration)));
    slices.extend(recording.spans.iter().map(|span| (span.start_ns, span.end_ns, frames.number(span.phase.as_str()))));
    for call in &seen.calls {
        if call.replay.is_some() || seen.is_engine(call) {
            let frame = frames.number(call.record.call.as_str());
            slices.push((call.record.start_ns, call.record.end_ns, frame));
        }
    }
    for launch in recording.unseen_launches() {
        slices.push((launch.launch_start_ns, launch.launch_end_ns, frames.number("replay")));
    }
    // Stable, so that of equal slices the outer stays first.
    slices.sort_by_key(|(start_ns, end_ns, _)| (*start_ns, Reverse(*end_ns)));
    let name = format!("thread {} (engine)", recording.header.session.engine_tid);
    let mut profile = Profile::begin(&name, recording.span(), out);
    slices.iter().try_for_each(|(start_ns, end_ns, frame)| profile.slice(*frame, *start_ns, *end_ns))?;
    profile.finish()
}
